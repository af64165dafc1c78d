"""Make a CouchDB file larger as CouchDB does: data blocks, then a header like its newest.

Arguments: FILE, MEBIBYTES.
"""

import os
import sys

BLOCK = 4096
path, blocks = sys.argv[1], int(sys.argv[2]) * 1024 * 1024 // BLOCK
with open(path, "r+b") as file:
    content = file.read()
    headers = [at for at in range(0, len(content), BLOCK) if content[at] == 1]
    newest = content[headers[-1] : headers[-1] + BLOCK]
    file.write(bytes(-len(content) % BLOCK))
    for _ in range(blocks):
        file.write(b"\0" + os.urandom(BLOCK - 1))
    file.write(newest)
