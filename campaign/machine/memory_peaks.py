"""The most memory that each program of a machine has had: memory_peaks.py FILE

Looks every half second at all processes, and writes to FILE, as JSON, by program the most that one process of it had
resident at once, in bytes. It ends when it is told so by a signal.
"""

import json
import os
import re
import signal
import sys
import threading


def program(words):
    """A process's program, as an administrator knows it; None for what is neither of the backups nor of the CHT."""
    line = " ".join(words)
    for pattern, name in (
        (r"/chtbackup (\w[\w-]*)", "chtbackup {}"),
        (r"/bin/borg .*\b(serve|create|extract|list|info|check|compact|delete|init|key)\b", "borg {}"),
        (r"/(guard|seal|audit|keeping|quota)\w*\.py", "{}.py"),
        (r"(?:^|/)beam\.smp ", "CouchDB"),
        (r"^nginx: ", "nginx"),
        (r"(?:^|/)rclone (\w+)", "rclone {}"),
        (r"(?:^|/)dockerd\b", "dockerd"),
    ):
        found = re.search(pattern, line)
        if found:
            return name.format(*found.groups())
    return None


def look(peaks):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").rstrip("\0").split("\0")
            name = program(words)
            if name is None:
                continue
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                found = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.M)
        except OSError:
            continue  # it has ended
        if found:
            peaks[name] = max(peaks.get(name, 0), 1024 * int(found[1]))


def write(path, peaks):
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(peaks, file)
    os.replace(f"{path}.new", path)


if __name__ == "__main__":
    over, found = threading.Event(), {}
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    while not over.wait(0.5):
        look(found)
        write(sys.argv[1], found)
