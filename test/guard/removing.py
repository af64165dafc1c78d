"""What the tests of retention share: a deployment with five archives of some ages, and the program as an operator's
computer starts it."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from parts import HERE, PASSPHRASE, Case, deployment, machine, wait_for

DAY = 86400
POLICY = {"within": 7, "daily": 2, "weekly": 0, "monthly": 0, "yearly": 0}
HONEST = {"succeeded": None, "failed": False, "overdueAfterDays": 9}


class Removing(Case):
    altered = {}
    """How the program's surroundings differ from this machine's (altered.py)."""

    def setUp(self):
        made = self.made = deployment(self.version)
        if "five" not in made.kept:
            made.reset()
            made.backup("archive-3")
            made.backup("archive-4")
            made.audit()
            # The three oldest are of days for which nothing is kept.
            self.age({"archive-0": 40, "archive-1": 30, "archive-2": 20, "archive-3": 10, "archive-4": 0})
            made.save("five")
        made.reset(name="five")

    def age(self, days):
        """Makes archives older than they are, in the server's own ledger, where no client can; borg's times stay."""
        ids = self.ids()
        with contextlib.closing(sqlite3.connect(self.made.state / "audit.sqlite")) as database, database:
            for name, age in days.items():
                values = (int(time.time() - age * DAY), bytes.fromhex(ids[name]))
                database.execute("UPDATE archives SET at = ? WHERE id = ?", values)

    def ids(self):
        listed = json.loads(self.made.borg("list", "--consider-checkpoints", "--json", self.made.location).output)
        return {of["name"]: of["id"] for of in listed["archives"]}

    def start(self, action, **more):
        made = self.made
        config = (made.repository / "config").read_text()
        request = {
            "policy": POLICY,
            "passphrase": PASSPHRASE,
            "repository": config.partition("\nid = ")[2].split("\n")[0],
            "seen": {},
            # borg's own times can't be made older here.
            "despite": ["clock"],
            "drill": {**HONEST, "succeeded": time.time() - 3600},
            **more,
        }
        if "shown" not in request:
            request["shown"] = list(self.ids().values()) if action == "apply" else []
        program = [f"{machine().programs}/chtbackup", "retention", action, str(made.settings_file)]
        altered = [str(HERE / "altered.py"), json.dumps(self.altered)] if self.altered else []
        command = [str(made.python), "-B", *altered, *program]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return process

    def stopped_at(self, place, **more):
        """Retention that stands still at a place of `stopAt` (altered.py); `go_on` lets it continue."""
        before, self.altered = self.altered, {**self.altered, "stopAt": place}
        try:
            process = self.start("apply", **more)
        finally:
            self.altered = before
        wait_for(lambda: stands_still(process), what=place)
        return process

    def run_it(self, action="apply", **more):
        process = self.start(action, **more)
        # Its standard input stays open meanwhile, as ssh keeps it.
        output, errors = process.stdout.read(), process.stderr.read()
        code = process.wait()
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        last = output.splitlines()[-1] if output else ""
        return code, json.loads(last) if last.startswith("{") else None, errors

    def removed(self, *names):
        """The state of the whole deployment after these were removed."""
        made = self.made
        for name in names:
            del made.archives[name]
        self.assertEqual(made.list(), list(made.archives))
        self.assertEqual(made.audit(), [])
        self.assertEqual(set(made.ledger()), set(self.ids().values()))
        self.assertIn("append_only = 1", (made.repository / "config").read_text())
        self.assertFalse((made.state / "open").exists() or (made.state / "retention.json").exists())
        made.mark()
        self.holds()
        # What the repository itself holds is checked in each run, and writes its configuration.
        words = ("check", "--archives-only", "--verify-data", made.repository)
        made.borg(*words, user="account", environment=self.own())

    def own(self):
        return {"BORG_BASE_DIR": str(self.made.operator), "BORG_PASSPHRASE": PASSPHRASE}

    def snapshot(self):
        ours = [path for path in self.made.repository.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in ours}

    def refused(self, doubt, **more):
        before = self.snapshot()
        code, result, errors = self.run_it(**more)
        self.assertEqual(code, 1, errors)
        self.assertIn(doubt, result["doubts"])
        self.assertIsNone(result["done"])
        self.assertEqual(self.snapshot(), before)

    def finished_by_the_next(self):
        """Whatever was done of it, the next run does the rest, and all is as it should be."""
        code, result, errors = self.run_it()
        self.assertEqual(code, 0, f"{errors}{result and result['doubts']}")
        gone = {*((result["done"] or {}).get("removed", [])), *result["removedBefore"].values()}
        self.assertEqual(gone, {"archive-0", "archive-1", "archive-2"})
        self.removed("archive-0", "archive-1", "archive-2")


def stands_still(process):
    """Whether a process was stopped by a signal. It must not have ended."""
    if process.poll() is not None:
        raise AssertionError(f"exit code {process.returncode}: {process.stderr.read()}")
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def go_on(process):
    process.send_signal(signal.SIGCONT)


def children_of(process):
    """Process numbers of what a program runs."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(OSError):
        return [int(pid) for pid in children.read_text().split()]
    return []


def end(pid):
    """kill -9."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_with_children(process):
    """kill -9, of the program and of the borg that it runs, as a power cut does."""
    pids = children_of(process)
    end(process.pid)
    for pid in pids:
        end(pid)
    process.wait()
    close(process)


def close(process):
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
