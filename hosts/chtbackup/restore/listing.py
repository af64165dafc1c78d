"""What an archive lists, checked before it is extracted, and what came besides."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def hostile(items: list[dict[str, Any]]) -> str | None:
    """Why an archive must not be extracted, by borg's list of its items; None when it may.

    borg writes through a link that it has extracted itself, so who can add an archive could have it write anywhere.
    """
    kinds: dict[str, str] = {}
    for of in items:
        path, kind, source = of["path"], of["type"], of.get("linktarget")
        if any(name in ("", ".", "..") for name in path.split("/")):
            return f"the path {path}, which leads elsewhere"
        if kind not in ("-", "d", "l"):
            return f"{path}, which is neither a file nor a directory nor a link"
        if path in kinds:
            return f"{path} twice"
        if kind != "l" and source and kinds.get(source) != "-":
            return f"{path} as another name of {source}, which is no file before it"
        kinds[path] = kind
    for path in kinds:
        above = path
        while above := above.rpartition("/")[0]:
            if kinds.get(above, "d") != "d":
                return f"{path} below {above}, which is no directory"
    return None


def unlisted(base: str, items: Iterable[dict[str, Any]]) -> str | None:
    """The first path below a directory that isn't what `Borg.items` says of it; None when all is. Follows no link.

    Names can be given to other archives, and back again; what is on the disk can't deny where it came from.
    """
    listed = {of["path"]: (of["type"], of["linktarget"] if of["type"] == "l" else "") for of in items}
    for path in list(listed):
        while (path := path.rpartition("/")[0]) and path not in listed:
            listed[path] = ("d", "")
    left = [base]
    while left:
        with os.scandir(left.pop()) as entries_here:
            for entry in entries_here:
                path, link = entry.path[len(base) :], os.readlink(entry.path) if entry.is_symlink() else ""
                folder = entry.is_dir(follow_symlinks=False)
                kind = "l" if link else "d" if folder else "-" if entry.is_file(follow_symlinks=False) else "other"
                if listed.get(path) != (kind, link):
                    return path
                if folder:
                    left.append(entry.path)
    return None
