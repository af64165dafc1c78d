"""Make the machine that drills forget archives which retention has removed, so that it doesn't miss them.

    python3 forget.py LEDGER

LEDGER is what ledger.py keeps; the standard input has the ids, a list in JSON. Nothing is changed where nothing is to
forget.
"""

import json
import os
import sys


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
        # As backup.write_atomically does, which isn't at hand here.
        with open(f"{path}.forget", "w", encoding="utf-8", opener=lambda name, how: os.open(name, how, 0o600)) as file:
            json.dump({**known, "archives": left}, file, indent=0)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.forget", path)
    return gone


if __name__ == "__main__":
    forget(sys.argv[1], json.load(sys.stdin))
