"""The package as one file that the distribution's Python runs, `recover.pyz`: what a recovery kit on paper needs.

The same package gives the same bytes on every machine and with every Python (`components/recover-program.ts` makes
them too), so that the SHA-256 on the paper holds wherever the file is found: beside the repository, in the bucket, in
each archive. Its name carries the sum: an old kit finds the very file that it was printed for.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from dataclasses import dataclass

from chtbackup.base.programs import PACKAGE

STARTER = "recover/__main__.py"
"""What lies at the archive's root, too: Python starts it."""
FIRST_DAY = 0x21
"""1980-01-01 in a zip's form, the first day that there is in it."""
FILE = (stat.S_IFREG | 0o644) << 16


@dataclass(frozen=True)
class Program:
    """The packed program. `sha256` is in hexadecimal."""

    content: bytes
    sha256: str

    @property
    def name(self) -> str:
        return f"recover-{self.sha256[:12]}.pyz"


def sources(package: str = PACKAGE) -> dict[str, bytes]:
    """Content of the package's files by their paths inside it, sorted. Raises OSError."""
    found = {}
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, package)] = file.read()
    return dict(sorted(found.items()))


def program(package: str = PACKAGE) -> Program:
    """The package as a zip application. Raises OSError where it can't be read."""
    files = sources(package)
    content = zipped({"__main__.py": files[STARTER], **{f"chtbackup/{path}": of for path, of in files.items()}})
    return Program(content, hashlib.sha256(content).hexdigest())


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive of files that aren't compressed, in their order (APPNOTE.TXT of PKWARE, 4.3)."""
    body, directory = b"", b""
    for name, content in files.items():
        path = name.encode("ascii")
        sizes = struct.pack("<HHIIIHH", 0, FIRST_DAY, zlib.crc32(content), len(content), len(content), len(path), 0)
        # Version 2.0, no flags, stored. In the directory before it: made by Unix.
        head = struct.pack("<HHH", 20, 0, 0) + sizes
        made_by, rest = struct.pack("<H", 3 << 8 | 20), struct.pack("<HHHII", 0, 0, 0, FILE, len(body))
        directory += b"PK\1\2" + made_by + head + rest + path
        body += b"PK\3\4" + head + path + content
    count = len(files)
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
