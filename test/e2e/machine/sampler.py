"""Look at all processes again and again, and tell which of them show a secret to others.

Argument: a file; when it appears, the looking ends. Reads {name: [texts]} from standard input, the secrets.
Prints {"passes": number, "programs": [names], "found": [...]} as JSON, without the secrets.

An argument list is open to everybody. The environment of a process is open to its own user: one of root's isn't
counted, nor one in a container, whose secrets are its own affair.
"""

import json
import os
import sys
import time

LIMIT = 1200  # seconds


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def in_container(process: str) -> bool:
    """A process in a container has a second number there, see `NSpid` in proc_pid_status(5)."""
    line = next((line for line in read(f"/proc/{process}/status").splitlines() if line.startswith(b"NSpid:")), b"")
    return len(line.split()) > 2


def main() -> None:
    stop = sys.argv[1]
    secrets = [(name, text.encode()) for name, texts in json.load(sys.stdin).items() for text in texts]
    programs, found, passes = set(), {}, 0
    end = time.monotonic() + LIMIT
    while not os.path.exists(stop) and time.monotonic() < end:
        passes += 1
        for process in filter(str.isdigit, os.listdir("/proc")):
            arguments = read(f"/proc/{process}/cmdline")
            # An interpreter's name, the script's that it runs, and of the package also which program.
            words = [os.path.basename(word).decode(errors="replace") for word in arguments.split(b"\0")[:6]]
            programs |= {
                *words[:3],
                *(f"{of} {what}" for of, what in zip(words, words[1:], strict=False) if of == "chtbackup"),
            }
            shown = [("argv", arguments)]
            try:
                root = os.stat(f"/proc/{process}").st_uid == 0
            except OSError:
                continue
            if not root and not in_container(process):
                shown.append(("environ", read(f"/proc/{process}/environ")))
            for where, text in shown:
                for name, secret in secrets:
                    if secret in text:
                        program = arguments.split(b"\0")[0].decode(errors="replace")
                        found[(name, where, program)] = {"secret": name, "where": where, "program": program}
        time.sleep(0.002)
    json.dump({"passes": passes, "programs": sorted(programs), "found": list(found.values())}, sys.stdout)


main()
