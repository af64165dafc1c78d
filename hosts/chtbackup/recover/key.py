"""Put a repository's key back from the paper, where the repository has lost it."""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import stat


class WrongKey(Exception):
    """The key isn't put there. The text says why."""


def typed(text: str) -> str:
    """A key without what typing or scanning adds: empty lines, spaces at the lines' ends."""
    return "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip())


def sum_of(key: str) -> str:
    """What the page has of the key to compare with: 16 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def with_key(config: str, key: str) -> str:
    """The text of a repository's `config` with the key, whatever became of the one that it had. Raises WrongKey."""
    head = re.split(r"(?m)^key *=", config)[0]
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(head)
        id = parser["repository"]["id"].strip()
    except (configparser.Error, KeyError):
        raise WrongKey("the repository's `config` has no id that can be read: this isn't only a lost key") from None
    first, *lines = key.split("\n")[:-1]
    if first != f"BORG_KEY {id}":
        raise WrongKey(f"this is another repository than the key's: its id is {id}")
    kept = [line for line in head.split("\n") if line.strip()]
    return "\n".join([*kept, f"key = {lines[0]}", *(f"\t{line}" for line in lines[1:])]) + "\n"


def put(repository: str, text: str, wanted: str) -> None:
    """Put the key into the repository in a directory of this machine; owner and mode of `config` stay. Raises WrongKey,
    and OSError; nothing has changed then."""
    key, path = typed(text), os.path.join(repository, "config")
    if sum_of(key) != wanted.lower() or key.count("\n") < 2:
        raise WrongKey("this is not the key of the page: a letter is wrong, or a line is missing")
    # Not through a link, which whoever had the account on the server could have put there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, encoding="utf-8", newline="") as file:
        of = os.fstat(file.fileno())
        config = with_key(re.sub(r"\r\n?", "\n", file.read()), key)
    new = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(new, "w", encoding="utf-8") as file:
            file.write(config)
            file.flush()
            os.fchown(new, of.st_uid, of.st_gid)
            os.fchmod(new, stat.S_IMODE(of.st_mode))
            os.fsync(new)
        os.replace(f"{path}.new", path)
    except BaseException:
        os.remove(f"{path}.new")
        raise
