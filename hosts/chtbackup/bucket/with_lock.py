"""Take the snapshot while borg's own lock keeps everybody else from writing: `borg with-lock`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from chtbackup.base import programs
from chtbackup.base.process import end_with_parent
from chtbackup.base.text import say
from chtbackup.bucket.memory import Busy
from chtbackup.bucket.plan import NoCopy

STOP_TIMEOUT = 60  # seconds that borg gets to end after a signal


def wait_until_settled(settings: dict[str, Any], settle: int) -> None:
    """Let a client finish that has just stored something: it looks at it next, and a borg that finds the lock
    taken, be it for a moment, waits a tenth of its own lock-wait (up to a minute) before it tries again. It is waited
    for until nobody has taken or given back the lock for `settle` seconds."""
    deadline = time.monotonic() + settings["lockWait"]
    while time.monotonic() < deadline:
        # Each lock that is taken or given back changes the directory.
        with contextlib.suppress(FileNotFoundError):  # a repository that is gone is told of later
            if 0 <= time.time() - os.stat(settings["repository"]).st_mtime < settle:
                time.sleep(0.5)
                continue
        return


def take(settings: dict[str, Any], snapshot: str, notes: list[str]) -> dict[str, Any]:
    """Take a snapshot under borg's lock: `transaction` and `settled` of it (see take_snapshot). Raises Busy or
    NoCopy."""
    shutil.rmtree(snapshot, ignore_errors=True)  # of a run that was killed
    lines: list[str] = []
    began = time.monotonic()
    code = run(
        ["borg", "--lock-wait", str(settings["lockWait"]), "with-lock", settings["repository"],
         *programs.command("snapshot"), settings["repository"], snapshot],
        {"HOME": settings["state"], "BORG_BASE_DIR": os.path.join(settings["state"], "borg")},
        lines.append,
    )  # fmt: skip
    said = [line for line in lines if line.strip()]
    taken = next((line for line in said if line.startswith('{"transaction"')), None)
    if taken is not None:
        say(f"a snapshot was taken, with the lock and all in {time.monotonic() - began:.1f} s")
        if code != 0:
            # The snapshot was taken under the lock all the same; a full disk keeps borg from going on.
            notes.append(f"borg ended with {code} after the snapshot: {said[-1]}")
        return json.loads(taken)
    if any(re.search(r"Failed to create/acquire the lock .*timeout", line) for line in lines):
        raise Busy(f"the repository was in use for {settings['lockWait']} s")
    own = next((line for line in said if line.startswith("snapshot: ")), None)
    raise NoCopy(own or f"borg can't lock the repository {settings['repository']}: {said[-1] if said else code}")


def run(command: list[str], environment: dict[str, str], on_line: Callable[[str], None]) -> int:
    """Run a program that ends with this one; `on_line` gets each line it writes. Raises NoCopy."""
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True, preexec_fn=end_with_parent, cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", **environment},
        )  # fmt: skip
    except FileNotFoundError:
        raise NoCopy(f"{command[0]} is not installed") from None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            on_line(line.rstrip("\n"))
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
