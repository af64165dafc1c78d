"""List files and directories as JSON by path: kind, mode, owner, and a checksum of the content.

Reads {"roots": [paths], "leaveOut": [paths], "base": directory} from standard input. `base` is put before each
root and left out of the paths that are printed.
"""

import hashlib
import json
import os
import stat
import sys


def describe(path: str) -> dict[str, object]:
    of = os.lstat(path)
    described: dict[str, object] = {"mode": f"{stat.S_IMODE(of.st_mode):04o}", "uid": of.st_uid, "gid": of.st_gid}
    if stat.S_ISDIR(of.st_mode):
        return {"kind": "directory", **described}
    if stat.S_ISLNK(of.st_mode):
        return {"kind": "link", "target": os.readlink(path)}
    with open(path, "rb") as file:
        return {"kind": "file", **described, "sha256": hashlib.sha256(file.read()).hexdigest()}


def main() -> None:
    wanted = json.load(sys.stdin)
    base, left_out = wanted.get("base", ""), set(wanted.get("leaveOut", []))
    found = {}

    def visit(path: str) -> None:
        if path in left_out or not os.path.lexists(base + path):
            return
        found[path] = describe(base + path)
        if found[path]["kind"] == "directory":
            for name in sorted(os.listdir(base + path)):
                visit(f"{path}/{name}")

    for root in wanted["roots"]:
        visit(root)
    json.dump(found, sys.stdout)


main()
