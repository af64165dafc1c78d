"""Retention on the server, with real borg: what goes, what stays, and every way in which it could go wrong."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from parts import PASSPHRASE, Case, contents, machine, wait_for, with_newest_borg

DAY = 86400
POLICY = {"within": 7, "daily": 2, "weekly": 0, "monthly": 0, "yearly": 0}
HONEST = {"succeeded": None, "failed": False, "overdueAfterDays": 9}


@with_newest_borg
class Retention(Case):
    def setUp(self):
        super().setUp()
        made = self.made
        built = machine().programs / "borg" / "bin"
        built.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(Path(made.python).parent / "borg", built / "borg")
        made.backup("archive-3")
        made.backup("archive-4")
        made.audit()
        # The three oldest are of days for which nothing is kept.
        self.age({"archive-0": 40, "archive-1": 30, "archive-2": 20, "archive-3": 10, "archive-4": 0})

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
            "shown": list(self.ids().values()) if action == "apply" else [],
            **more,
        }
        command = [str(made.python), "-B", f"{machine().programs}/retention.py", action, str(made.settings_file)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return process

    def run_it(self, action="apply", **more):
        process = self.start(action, **more)
        # Its standard input stays open meanwhile, as ssh keeps it.
        output, errors = process.stdout.read(), process.stderr.read()
        code = process.wait()
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        return code, json.loads(output.splitlines()[-1]) if output else None, errors

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

    # ---- what it does -------------------------------------------------------------------------------------

    def test_shows_what_goes_and_why_the_rest_stays_and_changes_nothing(self):
        before = self.snapshot()
        code, plan, _errors = self.run_it("plan")
        self.assertEqual(code, 0)
        why = {of["name"]: bool(of["why"]) for of in plan["archives"]}
        self.assertEqual(why, {"archive-4": True, "archive-3": True, "archive-2": False, "archive-1": False,
                               "archive-0": False})  # fmt: skip
        self.assertEqual(list(plan["doubts"]), ["clock"])
        self.assertEqual(self.snapshot(), before)

    def snapshot(self):
        ours = [path for path in self.made.repository.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in ours}

    def test_removes_what_the_policy_no_longer_keeps_and_frees_its_space(self):
        code, result, errors = self.run_it()
        self.assertEqual(code, 0, errors)
        self.assertEqual(result["done"]["removed"], ["archive-0", "archive-1", "archive-2"])
        self.assertGreater(result["done"]["freed"], 200_000)
        self.removed("archive-0", "archive-1", "archive-2")

    def test_has_nothing_to_do_a_second_time(self):
        self.run_it()
        for name in ("archive-0", "archive-1", "archive-2"):
            del self.made.archives[name]
        before = self.snapshot()
        code, result, errors = self.run_it()
        self.assertEqual((code, result["done"]), (0, None), errors)
        self.assertEqual(sorted(result["removedBefore"].values()), ["archive-0", "archive-1", "archive-2"])
        self.assertEqual(self.snapshot(), before)

    def test_removes_only_what_was_shown(self):
        code, result, _errors = self.run_it(shown=[self.ids()["archive-1"]])
        self.assertEqual((code, result["done"]["removed"]), (0, ["archive-1"]))
        self.removed("archive-1")

    def test_keeps_the_ages_of_those_that_stay(self):
        before = self.ages()
        self.run_it()
        after = self.ages()
        self.assertEqual(after, {id: at for id, at in before.items() if id in after})
        self.assertEqual(len(after), 2)

    def ages(self):
        ledger = json.loads(self.made.program("audit", "ledger").output)
        return {of["id"]: of["at"] for of in ledger if of["gone"] is None}

    def test_lets_a_backup_wait_that_begins_meanwhile(self):
        process = self.start("apply")
        wait_for(lambda: (self.made.state / "open").exists(), what="the breaking of the seals")
        self.made.backup("meanwhile")
        self.assertEqual(process.wait(), 0, process.stderr.read())
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        self.removed("archive-0", "archive-1", "archive-2")

    # ---- what it refuses ----------------------------------------------------------------------------------

    def refused(self, doubt, **more):
        before = self.snapshot()
        code, result, errors = self.run_it(**more)
        self.assertEqual(code, 1, errors)
        self.assertIn(doubt, result["doubts"])
        self.assertIsNone(result["done"])
        self.assertEqual(self.snapshot(), before)

    def test_refuses_where_somebody_has_deleted_archives(self):
        made = self.made
        made.borg("delete", f"{made.repository}::archive-2", user="account", environment=self.own())
        code, result, _errors = self.run_it()
        self.assertEqual(code, 1)
        self.assertLessEqual({"audit"}, set(result["doubts"]))

    def test_refuses_where_an_archive_of_the_operators_is_gone_and_the_ledger_was_edited(self):
        self.refused("vanished", seen={"f" * 64: "archive-of-january"})

    def test_refuses_another_repository(self):
        self.refused("repository", repository="a" * 64)

    def test_refuses_times_that_cannot_be(self):
        self.refused("clock", despite=[])

    def test_refuses_where_nothing_shows_that_what_stays_can_be_restored(self):
        self.refused("drill", drill={**HONEST, "failed": True})
        self.refused("drill", drill={})

    def test_refuses_where_backups_have_stopped(self):
        self.age({f"archive-{number}": 9 + number for number in range(5)})
        self.refused("stale")

    def test_refuses_where_documents_have_collapsed(self):
        made = self.made
        for name, documents in (("archive-5", 5000), ("archive-6", 3)):
            folder = made.source / "run" / "cht-backup" / "moh" / "collect"
            folder.mkdir(parents=True, exist_ok=True)
            manifest = {"databases": {"medic": {"documents": documents}}}
            (folder / "manifest-after.json").write_text(json.dumps(manifest))
            made.borg("create", f"{made.location}::{name}", ".")
        made.audit()
        self.age({"archive-5": 1.5})
        self.refused("shrunk")
        subprocess.run(["rm", "-rf", str(made.source / "run")], check=True)

    def test_goes_on_despite_a_doubt_that_is_named(self):
        code, result, errors = self.run_it(despite=["clock", "drill"], drill={})
        self.assertEqual(code, 0, errors)
        self.assertEqual(len(result["done"]["removed"]), 3)

    def test_refuses_a_wrong_passphrase_in_plain_words(self):
        before = self.snapshot()
        code, result, errors = self.run_it(passphrase="wrong")
        self.assertEqual((code, result), (2, None))
        self.assertRegex(errors, "(?i)passphrase")
        self.assertNotIn("Traceback", errors)
        self.assertEqual(self.snapshot(), before)

    def test_refuses_to_run_twice_at_once(self):
        process = self.start("apply")
        wait_for(lambda: (self.made.state / "open").exists(), what="the breaking of the seals")
        code, _result, errors = self.run_it("plan", shown=[])
        self.assertEqual(code, 2)
        self.assertRegex(errors, "another run")
        self.assertEqual(process.wait(), 0)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()

    # ---- what breaks it off -------------------------------------------------------------------------------

    def finished_by_the_next(self):
        """Whatever was done of it, the next run does the rest, and all is as it should be."""
        code, result, errors = self.run_it()
        self.assertEqual(code, 0, errors)
        gone = {*((result["done"] or {}).get("removed", [])), *result["removedBefore"].values()}
        self.assertEqual(gone, {"archive-0", "archive-1", "archive-2"})
        self.removed("archive-0", "archive-1", "archive-2")

    def test_is_finished_by_the_next_one_wherever_it_was_killed(self):
        begin = time.monotonic()
        self.run_it()
        whole = time.monotonic() - begin
        seed = int(os.environ.get("SEED") or time.time())
        chosen = random.Random(seed)
        for _ in range(3):
            self.setUp()
            process = self.start("apply")
            after = chosen.uniform(0, whole)
            time.sleep(after)
            with self.subTest(seed=seed, after=f"{after:.2f} of {whole:.2f} s"):
                end_with_children(process)
                self.finished_by_the_next()

    def test_is_finished_by_the_next_one_after_each_stage(self):
        for stage in ("begun", "deleting", "deleted"):
            with self.subTest(stage=stage):
                self.setUp()
                process = self.start("apply")
                journal = self.made.state / "retention.json"
                wait_for(lambda: journal.exists() and f'"{stage}"' in journal.read_text(), what=stage)  # noqa: B023
                end_with_children(process)
                self.assertEqual(self.made.program("audit", "audit").code, 0, "it alarms while retention is at work")
                self.assertEqual(self.run_it("plan", dryRun=True)[0], 2, "a dry run did more than look")
                self.assertTrue(journal.exists())
                self.finished_by_the_next()

    def test_seals_again_where_it_is_stopped(self):
        process = self.start("apply")
        wait_for(lambda: (self.made.state / "open").exists(), what="the breaking of the seals")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(), 130, process.stderr.read())
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        self.assertFalse((self.made.state / "open").exists())
        self.finished_by_the_next()

    def test_ends_where_the_operator_has_gone(self):
        process = self.start("apply")
        wait_for(lambda: (self.made.state / "open").exists(), what="the breaking of the seals")
        process.stdin.close()
        self.assertEqual(process.wait(), 130)
        for stream in (process.stdout, process.stderr):
            stream.close()
        self.finished_by_the_next()

    def test_leaves_the_passphrase_nowhere(self):
        process = self.start("apply")
        wait_for(lambda: (self.made.state / "open").exists(), what="the breaking of the seals")
        seen = False
        while process.poll() is None:
            for name in os.listdir("/proc"):
                with contextlib.suppress(OSError, ValueError):
                    if os.stat(f"/proc/{int(name)}").st_uid != machine().uid:
                        continue
                    seen = True
                    for what in ("environ", "cmdline"):
                        self.assertNotIn(PASSPHRASE.encode(), Path(f"/proc/{name}/{what}").read_bytes())
        self.assertTrue(seen, "borg was never seen")
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        for path in self.made.state.rglob("*"):
            if path.is_file():
                self.assertNotIn(PASSPHRASE.encode(), path.read_bytes(), path)

    def test_archives_that_stay_are_what_they_were(self):
        self.run_it()
        for name in ("archive-3", "archive-4"):
            self.assertEqual(self.made.extract(name)[0], self.made.archives[name])
        self.assertTrue(contents(self.made.source))


def end_with_children(process):
    """kill -9, of the program and of the borg that it runs, as a power cut does."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    process.kill()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
