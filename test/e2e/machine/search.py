"""Search for secrets where others may look. Prints {"read": number, "found": [...]} as JSON, without the secrets.

Arguments: `journal`: all fields of the whole journal; `files` DIRECTORY...: what the user `nobody` may read there.
Reads {name: [texts]} from standard input, the secrets.
"""

import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator

CHUNK = 1 << 20


def chunks(file: object) -> Iterator[bytes]:
    """The content piece by piece, each with the end of the one before, so that no border hides anything."""
    last = b""
    while piece := file.read(CHUNK):
        yield last + piece
        last = piece[-4096:]


def files(directories: list[str]) -> Iterator[str]:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    for directory in directories:
        for folder, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        yield path
                except OSError:
                    continue


def main() -> None:
    kind, *directories = sys.argv[1:]
    secrets = [(name, text.encode()) for name, texts in json.load(sys.stdin).items() for text in texts]
    found, count = set(), 0
    if kind == "journal":
        with subprocess.Popen(["journalctl", "--no-pager", "--output=export"], stdout=subprocess.PIPE) as journal:
            for text in chunks(journal.stdout):
                count += text.count(b"\nMESSAGE")
                found |= {(name, "journal") for name, secret in secrets if secret in text}
    else:
        for path in files(directories):
            try:
                with open(path, "rb") as file:
                    for text in chunks(file):
                        found |= {(name, path) for name, secret in secrets if secret in text}
                count += 1
            except OSError:
                continue
    json.dump({"read": count, "found": [{"secret": name, "where": where} for name, where in sorted(found)]}, sys.stdout)


main()
