"""Look at all processes again and again, and tell which of them show a secret to others.

Argument: a file; when it appears, the looking ends. Reads {name: [texts]} from standard input, the secrets.
Prints {"passes": number, "processes": number, "found": [...]} as JSON, without the secrets.

An argument list is open to everybody. The environment of a process is open to its own user: one of root's isn't
counted, nor one in a container, whose secrets are its own affair.
"""

import json
import os
import sys
import time

LIMIT = 240  # seconds


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def namespace(process: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except OSError:
        return ""


def main() -> None:
    stop = sys.argv[1]
    secrets = [(name, text.encode()) for name, texts in json.load(sys.stdin).items() for text in texts]
    seen, found, passes = set(), {}, 0
    own = namespace("self")
    end = time.monotonic() + LIMIT
    while not os.path.exists(stop) and time.monotonic() < end:
        passes += 1
        for process in filter(str.isdigit, os.listdir("/proc")):
            arguments = read(f"/proc/{process}/cmdline")
            seen.add((process, arguments))
            shown = [("argv", arguments)]
            try:
                root = os.stat(f"/proc/{process}").st_uid == 0
            except OSError:
                continue
            if not root and namespace(process) == own:
                shown.append(("environ", read(f"/proc/{process}/environ")))
            for where, text in shown:
                for name, secret in secrets:
                    if secret in text:
                        program = arguments.split(b"\0")[0].decode(errors="replace")
                        found[(name, where, program)] = {"secret": name, "where": where, "program": program}
        time.sleep(0.002)
    json.dump({"passes": passes, "processes": len(seen), "found": list(found.values())}, sys.stdout)


main()
