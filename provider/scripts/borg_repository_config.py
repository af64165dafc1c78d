"""Write a borg repository's `config` anew where it is stored, as root: borg 1.x keeps the repository's key in it.

    python3 -I -c PROGRAM PATH ID SPACE <KEY

PATH is the repository, ID its id, SPACE its `additional_free_space`, KEY base64 as `borg key export` writes it
without the first line; empty: the key that is there stays. `append_only` becomes 1. What is damaged is built from
its pieces, and what no piece is left of gets borg's own value (`Repository.create` in borg 1.x's `repository.py`).

The new file takes the old one's place in one step, so that whoever opens the repository meanwhile reads one of the
two whole. No lock is needed for that: of all that borg does, only `init`, `key`, `config`, `upgrade` and a partial
`check` write this file, and none of them is open to the account of a deployment once the repository exists.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import os
import re
import stat
import sys

LARGEST = 64 * 1024
NEW = "config.new"
KEY_LINE = 70  # where borg breaks a key's lines
# What a value must look like to be kept, and what it is otherwise.
KEPT = {
    "segments_per_dir": ("[1-9][0-9]{0,6}", "1000"),
    "max_segment_size": ("[1-9][0-9]{0,11}[KMGT]?", "524288000"),
    "storage_quota": ("[0-9]{1,15}[KMGT]?", "0"),
}


class Problem(Exception):
    """The configuration can't be written. The text is one line for the operator."""


def pieces(text: str) -> dict[str, str]:
    """What is left of a configuration: the first value of each name. A carriage return begins no line here, unlike in
    Python's own reader, so that a key that holds one can't bring further settings in; and a line without an end was cut
    off, which a number doesn't show."""
    found: dict[str, str] = {}
    name = ""
    for line in text.split("\n")[:-1]:
        match = re.fullmatch(r"([a-z_]+)[ \t]*[=:][ \t]*(.*)", line, re.DOTALL)
        if match:
            name = match[1] if match[1] not in found else ""
            found.setdefault(match[1], match[2].strip(" \t"))
        elif name == "key" and line[:1] in (" ", "\t"):
            found["key"] += line.strip(" \t")
        else:
            name = ""
    return found


def key_lines(text: str) -> list[str]:
    """A key in the lines that borg writes. Raises Problem where it can't be one."""
    blob = re.sub(r"\s", "", text)
    try:
        length = len(base64.b64decode(blob, validate=True))
    except ValueError:
        length = 0
    if not 20 <= length <= LARGEST // 8:  # the least that borg takes for a key is 20 bytes
        raise Problem("its key is missing or damaged, and no other was given")
    return [blob[at : at + KEY_LINE] for at in range(0, len(blob), KEY_LINE)]


def written(text: str, repository_id: str, space: str, key: str) -> str:
    """The configuration as it has to be, from what there is. Raises Problem."""
    found = pieces(text)
    there = found.get("id", "")
    if re.fullmatch("[0-9a-f]{64}", there) and there != repository_id:
        raise Problem(f"it is another repository now: {there[:16]}…")
    if re.fullmatch("[0-9]+", found.get("version", "")) and found["version"] != "1":
        raise Problem(f"its format is {found['version']}, and only 1 is known here")
    values = {"version": "1"}
    for name, (pattern, default) in KEPT.items():
        values[name] = found[name] if re.fullmatch(pattern, found.get(name, "")) else default
    values |= {"append_only": "1", "additional_free_space": space, "id": repository_id}
    if re.fullmatch("[0-9]{1,15}", found.get("last_segment_checked", "")):
        values["last_segment_checked"] = found["last_segment_checked"]
    values["key"] = "\n\t".join(key_lines(key or found.get("key", "")))
    order = ("version", "segments_per_dir", "max_segment_size", "append_only", "storage_quota")
    names = [*order, *(name for name in values if name not in order)]
    result = "[repository]\n" + "".join(f"{name} = {values[name]}\n" for name in names) + "\n"
    # As borg will read it.
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(result)
    if {name: value.replace("\n", "\n\t") for name, value in parser["repository"].items()} != values:
        raise Problem("what would be written can't be read again")
    return result


def read_config(directory: int) -> tuple[str, os.stat_result | None]:
    """The configuration as it is, and whose it is; nothing of what is no file."""
    try:
        descriptor = os.open("config", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return "", None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return "", None
        return file.read(LARGEST).decode("ascii", "replace"), status


def ownership(directory: os.stat_result, config: os.stat_result | None) -> tuple[int, int, int]:
    """Owner, group and mode of the new file. In a sealed repository root owns it, and the account may read it."""
    sealed = (directory if config is None else config).st_uid == 0
    if sealed:
        return 0, directory.st_gid, 0o640
    if config is None:
        return directory.st_uid, directory.st_gid, 0o600
    return config.st_uid, config.st_gid, stat.S_IMODE(config.st_mode)


def configure(path: str, repository_id: str, space: str, key: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.stat("data", dir_fd=directory, follow_symlinks=False).st_mode):
            raise Problem("there is no repository")
        before, status = read_config(directory)
        after = written(before, repository_id, space, key)
        if before == after:
            return
        owner, group, mode = ownership(os.fstat(directory), status)
        with contextlib.suppress(FileNotFoundError):  # of a run that was killed
            os.unlink(NEW, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(NEW, flags, 0o600, dir_fd=directory), "w", encoding="ascii") as file:
            file.write(after)
            file.flush()
            os.fchown(file.fileno(), owner, group)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(NEW, "config", src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)


def main(path: str, repository_id: str, space: str) -> int:
    try:
        configure(path, repository_id, space, sys.stdin.read(LARGEST))
    except (Problem, OSError) as error:
        words = error if isinstance(error, Problem) else error.strerror
        print(f"{path}: the repository's configuration can't be written: {words}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
