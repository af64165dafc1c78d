"""Make a CouchDB data directory larger: copies of its shards under other names, with other bytes in every block.

Usage: python3 copies.py DIRECTORY BYTES: as many copies as it takes to reach about BYTES in all.
"""

import os
import re
import sys

BLOCK = 4096
KEPT = 64 * BLOCK  # at the end of a file: its newest header must stay whole


def main(directory: str, wanted: int) -> None:
    shards = []
    for folder, _folders, names in os.walk(os.path.join(directory, "shards")):
        for name in names:
            parts = re.fullmatch(r"(medic)(\.\d+\.couch)", name)
            if parts is not None:
                shards.append((folder, parts))
    size = sum(os.path.getsize(os.path.join(folder, parts[0])) for folder, parts in shards)
    if size == 0:
        sys.exit(f"{directory}: there are no shards of the database medic")
    for number in range(1, wanted // size + 1):
        for folder, parts in shards:
            with open(os.path.join(folder, parts[0]), "rb") as file:
                data = bytearray(file.read())
            # Never a block's first byte, which marks headers.
            for at in range(BLOCK // 2, max(0, len(data) - KEPT), BLOCK):
                data[at] = (data[at] + number) % 256
            with open(os.path.join(folder, f"{parts[1]}-copy{number}{parts[2]}"), "wb") as file:
                file.write(data)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
