"""Make the machine that drills forget archives which retention has removed, so that it doesn't miss them.

    python3 chtbackup forget LEDGER

LEDGER is what ledger.py keeps; the standard input has the ids, a list in JSON. Nothing is changed where nothing is to
forget.
"""

import json
import sys

from chtbackup.base.files import write_atomically


def forget(path: str, ids: list[str]) -> int:
    """How many archives were forgotten. Raises OSError or ValueError where the file can't be read or written."""
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        return 0
    left = {id: name for id, name in known["archives"].items() if id not in ids}
    gone = len(known["archives"]) - len(left)
    if gone > 0:
        write_atomically(path, json.dumps({**known, "archives": left}, indent=0) + "\n", 0o600)
    return gone


def main() -> int:
    forget(sys.argv[1], json.load(sys.stdin))
    return 0
