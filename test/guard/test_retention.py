"""Retention on the server, with real borg: what goes, what stays, and every way in which it could go wrong."""

import contextlib
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from parts import PASSPHRASE, contents, machine, wait_for, with_newest_borg

from removing import DAY, HONEST, POLICY, Removing, children_of, close, end_with_children, go_on


@with_newest_borg
class Retention(Removing):
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
        process = self.stopped_at("check")
        self.assertTrue((self.made.state / "open").exists())
        with ThreadPoolExecutor() as pool:
            backup = pool.submit(self.made.backup, "meanwhile")
            wait_for(lambda: children_of(self.made.as_account.process), what="the session of a backup")
            go_on(process)
            backup.result()
        self.assertEqual(process.wait(), 0, process.stderr.read())
        close(process)
        self.removed("archive-0", "archive-1", "archive-2")

    # ---- on a schedule ------------------------------------------------------------------------------------

    def scheduled(self, **more):
        """As the machine that drills starts it, which sends what it knows, and perhaps what it has no say in."""
        config = (self.made.repository / "config").read_text()
        own = {
            "repository": config.partition("\nid = ")[2].split("\n")[0],
            "overdueAfterDays": 9,
            "policy": POLICY,
        }
        Path(self.made.settings_file).with_name("retention.json").write_text(json.dumps(own))
        return self.run_it("scheduled", **more)

    def report(self):
        return json.loads((self.made.state / "last-retention.json").read_text())

    def test_on_a_schedule_a_doubt_that_is_sent_away_stays_one_and_is_in_the_report(self):
        before = self.snapshot()
        code, result, errors = self.scheduled(despite=["clock"])
        self.assertEqual((code, list(result["doubts"]), result["done"]), (1, ["clock"], None), errors)
        self.assertEqual(self.snapshot(), before)
        report = self.report()
        self.assertEqual((report["ok"], report["lastSuccessAt"], report["removed"]), (False, None, 0))
        self.assertRegex(report["problems"][0], r"^doubt \(clock\): 4 archives bear another time")

    def test_on_a_schedule_goes_by_the_policy_that_the_server_has_whatever_is_sent(self):
        # Within the hour by which an archive may be older than it says.
        self.age({name: (4 - number) / 200 for number, name in enumerate(self.ids())})
        sent = {"policy": {"within": 1}, "shown": [], "repository": "0" * 64}
        code, result, errors = self.scheduled(**sent)
        self.assertEqual((code, result["doubts"], result["done"]), (0, {}, None), errors)
        report = self.report()
        self.assertEqual((report["ok"], report["problems"], report["removed"]), (True, [], 0))
        self.assertEqual(report["lastSuccessAt"], report["finishedAt"])
        # A week later only the last one of a day stays. Most often they are all of one.
        last = {self.ages()[id][:10]: name for name, id in self.ids().items()}
        going = [name for name in self.ids() if name not in last.values()]
        self.altered = {"ahead": 7.5 * DAY}
        code, result, errors = self.scheduled(**sent, now=time.time() + 7.5 * DAY)
        self.assertEqual((code, result["doubts"]), (0, {}), errors)
        self.assertEqual(result["done"]["removed"], going)
        report = self.report()
        self.assertEqual((report["removed"], report["freed"]), (len(going), result["done"]["freed"]))
        self.altered = {}
        self.removed(*going)

    def test_on_a_schedule_a_request_that_is_none_is_told_in_a_line_and_changes_nothing(self):
        before = self.snapshot()
        for more in ({"passphrase": 7}, {"passphrase": "wrong", "seen": [], "drill": "x"}):
            code, result, errors = self.scheduled(**more)
            self.assertEqual((code, result), (2, None))
            self.assertNotIn("Traceback", errors)
        self.assertEqual(self.snapshot(), before)

    # ---- what it refuses ----------------------------------------------------------------------------------

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
            manifest = {"counts": {"databases": {"medic": {"documents": documents}}}}
            (folder / "manifest-after.json").write_text(json.dumps(manifest))
            made.borg("create", f"{made.location}::{name}", ".")
        made.audit()
        self.age({"archive-5": 1.5})
        self.refused("shrunk")
        subprocess.run(["rm", "-rf", str(made.source / "run")], check=True)

    def test_refuses_where_the_newest_manifest_cannot_be_read(self):
        made = self.made
        for name, text in (
            ("archive-5", '{"counts": {"databases": {"medic": {"documents": 5000}}}}'),
            ("archive-6", "{"),
        ):
            folder = made.source / "run" / "cht-backup" / "moh" / "collect"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "manifest-after.json").write_text(text)
            made.borg("create", f"{made.location}::{name}", ".")
        made.audit()
        self.age({"archive-5": 1.5})
        self.refused("manifest")
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
        process = self.stopped_at("check")
        code, _result, errors = self.run_it("plan", shown=[])
        self.assertEqual(code, 2)
        self.assertRegex(errors, "another run")
        go_on(process)
        self.assertEqual(process.wait(), 0)
        close(process)

    # ---- what breaks it off -------------------------------------------------------------------------------

    def test_is_finished_by_the_next_one_after_each_stage(self):
        for stage in ("begun", "deleting", "deleted"):
            with self.subTest(stage=stage):
                self.setUp()
                process = self.stopped_at(stage)
                journal = self.made.state / "retention.json"
                self.assertIn(f'"{stage}"', journal.read_text())
                end_with_children(process)
                self.assertEqual(self.made.program("audit", "audit").code, 0, "it alarms while retention is at work")
                self.assertEqual(self.run_it("plan", dryRun=True)[0], 2, "a dry run did more than look")
                self.assertTrue(journal.exists())
                self.finished_by_the_next()

    def test_seals_again_where_it_is_stopped(self):
        process = self.stopped_at("check")
        self.assertTrue((self.made.state / "open").exists())
        process.send_signal(signal.SIGTERM)
        go_on(process)
        self.assertEqual(process.wait(), 130, process.stderr.read())
        close(process)
        self.assertFalse((self.made.state / "open").exists())
        self.finished_by_the_next()

    def test_ends_where_the_operator_has_gone(self):
        process = self.stopped_at("check")
        self.assertTrue((self.made.state / "open").exists())
        process.stdin.close()
        go_on(process)
        self.assertEqual(process.wait(), 130)
        close(process)
        self.finished_by_the_next()

    def test_leaves_the_passphrase_nowhere(self):
        shown = list(self.ids().values())
        session = self.made.opened()  # borg waits for its lock, and can be looked at
        process = self.start("apply", shown=shown)

        def look():
            """At all processes of the account; returns whether retention's borg was one of them."""
            seen = False
            for name in os.listdir("/proc"):
                with contextlib.suppress(OSError, ValueError):
                    if os.stat(f"/proc/{int(name)}").st_uid == machine().uid:
                        texts = b"".join(Path(f"/proc/{name}/{what}").read_bytes() for what in ("environ", "cmdline"))
                        self.assertNotIn(PASSPHRASE.encode(), texts)
                        seen = seen or (b"BORG_PASSPHRASE_FD" in texts and int(name) in children_of(process))
            return seen

        wait_for(look, what="retention's borg")
        session.close()
        while process.poll() is None:
            look()
        close(process)
        for path in self.made.state.rglob("*"):
            if path.is_file():
                self.assertNotIn(PASSPHRASE.encode(), path.read_bytes(), path)

    def test_archives_that_stay_are_what_they_were(self):
        self.run_it()
        for name in ("archive-3", "archive-4"):
            self.assertEqual(self.made.extract(name)[0], self.made.archives[name])
        self.assertTrue(contents(self.made.source))
