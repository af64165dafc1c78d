"""What an attacker does before retention runs, or what goes wrong by itself. Each is refused, or does no harm: nothing
that is needed is lost, and when somebody has mended it the next run does its work. docs/retention.md has the table."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time

from parts import PASSPHRASE, Case, Refused, machine, wait_for, with_newest_borg

from removing import DAY, HONEST, Removing, close, go_on, stands_still

AHEAD = 40 * DAY
STAY = ("archive-3", "archive-4")
GO = ("archive-0", "archive-1", "archive-2")
# The client's own program with another `info`: its list of archives loses some names, or all.
FORGET = """
import sys, borg.archiver as archiver
from borg.helpers import Manifest
names = sys.argv.pop(1).split()
@archiver.with_repository(exclusive=True, compatibility=(Manifest.Operation.DELETE,))
def forget(self, args, repository, manifest, key):
    for name in names:
        del manifest.archives[name]
    manifest.write()
    repository.commit(compact=False)
archiver.Archiver.do_info = forget
archiver.main()
"""


@with_newest_borg
class RetentionUnderAttack(Removing):
    """Forty days ago three archives were made, ten days ago one, and one now; the policy keeps the last two."""

    kept = {}
    """When the first test began, by borg's version: what it made is each later one's beginning, too."""

    def setUp(self):
        Case.setUp(self)
        self.now = self.kept.setdefault(self.version, time.time() + AHEAD)
        self.altered = {"ahead": AHEAD}
        self.days = {"archive-3": 10, "archive-4": 0}
        if "attacked" not in self.made.kept:
            for name, age in self.days.items():
                self.made.backup(name, more=["--timestamp", self.stamp(age)])
            self.take_in()
            self.made.save("attacked")
        self.made.reset(name="attacked")

    def stamp(self, age):
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.now - age * DAY))

    def take_in(self):
        """The audit's run, with the ledger's times as they would be."""
        found = self.made.audit()
        ids = self.ids()
        self.set_times({name: self.now - age * DAY for name, age in self.days.items() if name in ids})
        return found

    def set_times(self, times):
        ids = self.ids()
        with contextlib.closing(sqlite3.connect(self.made.state / "audit.sqlite")) as database, database:
            for name, at in times.items():
                database.execute("UPDATE archives SET at = ? WHERE id = ?", (int(at), bytes.fromhex(ids[name])))

    def start(self, action, **more):
        honest = {"despite": [], "drill": {**HONEST, "succeeded": self.now - 3600}, "now": self.now}
        return super().start(action, **{**honest, **more})

    def forget(self, *names):
        words = [" ".join(names), "--lock-wait", "20", "info", self.made.location]
        command = [str(self.made.python), "-c", FORGET, *words]
        done = subprocess.run(command, env={**os.environ, **self.made.environment()}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def by_client(self, *words, **options):
        return self.made.borg(*words, check=False, **options)

    def another(self, name, manifest=None, more=()):
        """An archive of next to nothing."""
        with tempfile.TemporaryDirectory() as folder:
            if manifest is not None:
                subprocess.run(["mkdir", "-p", f"{folder}/run/cht-backup/moh/collect"], check=True)
                with open(f"{folder}/run/cht-backup/moh/collect/manifest-after.json", "w") as file:
                    file.write(manifest)
            stamp = [] if "--timestamp" in more else ["--timestamp", self.stamp(0)]
            self.made.borg("create", *stamp, *more, f"{self.made.location}::{name}", ".", directory=folder)
            literal = name.replace("{{", "{").replace("}}", "}")
            self.days.setdefault(literal, 0)
        return literal

    def rolled_back(self):
        """What docs/restore.md has an operator do after a false list of archives, and then the honest run."""
        self.assertEqual(self.made.lost_segments(), [])
        self.roll_back()
        self.approved()

    def roll_back(self):
        self.made.roll_back()
        # What the client knows of a later state.
        shutil.rmtree(self.made.base / ".cache")
        for path in self.made.base.rglob("manifest-timestamp"):
            path.unlink()

    def approved(self):
        self.made.approve()
        self.ids()  # borg makes its index anew, by which the audit reads
        self.take_in()
        self.finished_by_the_next()

    # ---- with the client's key ----------------------------------------------------------------------------

    def test_a_client_that_deletes_all(self):
        self.by_client("delete", f"{self.made.location}::archive-0", *GO[1:], *STAY)
        self.assertEqual(self.made.list(), [*GO, *STAY])  # the guard refused, and the audit alarms
        self.forget(*GO, *STAY)
        self.refused("vanished")
        self.rolled_back()

    def test_a_client_that_deletes_all_but_one(self):
        self.forget(*GO, "archive-3")
        self.refused("vanished")
        self.refused("audit", despite=["vanished"])
        self.rolled_back()

    def test_an_archive_that_is_deleted_and_made_again_under_its_name(self):
        before = self.ids()["archive-3"]
        self.forget("archive-3")
        self.another("archive-3")
        self.assertNotEqual(self.ids()["archive-3"], before)
        self.days["archive-3"] = 0
        self.take_in()
        self.refused("vanished")
        self.days["archive-3"] = 10
        self.rolled_back()

    def test_a_flood_of_archives(self):
        for number in range(31):
            self.another(f"flood-{number}")
        self.take_in()
        self.refused("flood")
        code, result, errors = self.run_it(despite=["flood"])
        self.assertEqual((code, result["done"]["removed"]), (0, list(GO)), errors)

    def test_archives_that_are_dated_ahead(self):
        self.another("ahead", more=["--timestamp", "2199-01-01T00:00:00"])
        self.take_in()
        self.refused("clock")
        self.removed_despite("clock")

    def test_archives_that_are_dated_back(self):
        self.another("back", more=["--timestamp", "1999-01-01T00:00:00"])
        self.take_in()
        self.refused("clock")
        self.removed_despite("clock")

    def removed_despite(self, *doubts):
        """When somebody has looked: what the policy keeps is still there, whatever the attacker has added."""
        code, result, errors = self.run_it(despite=list(doubts))
        self.assertEqual((code, result["done"]["removed"]), (0, list(GO)), errors)
        for name in STAY:
            self.assertEqual(self.made.extract(name)[0], self.made.archives[name])

    def test_tiny_archives_under_right_names(self):
        """With none of the manifests that others have, and then with one that promises as much as the others'."""
        promise = json.dumps({"counts": {"databases": {"medic": {"documents": 5000}}}})
        self.another("honest", promise)
        self.another("tiny")
        self.take_in()
        self.refused("manifest")
        self.another("tinier", promise)
        self.take_in()
        self.removed_despite("manifest")

    def test_a_name_that_borg_takes_for_another_archives(self):
        """borg fills in what stands in braces: `delete REPOSITORY::{now:archive-4}` deletes archive-4."""
        odd = [self.another(name) for name in ("{{now:archive-4}}", "--force", "a::b")]
        self.assertIn("{now:archive-4}", self.ids())
        self.days.update(dict.fromkeys(odd, 30))
        self.days = dict(sorted(self.days.items(), key=lambda of: -of[1]))
        self.take_in()
        self.removed_despite("clock")
        self.assertLessEqual(set(odd), set(self.ids()))

    def test_a_chunk_of_a_file_that_is_deleted_before_the_run(self):
        # borg removes archives without reading their files: the check after that finds it.
        self.stopped_without("chunks", "borg check failed")

    def test_a_chunk_of_a_list_of_files_that_is_deleted_before_the_run(self):
        # borg reads every archive's list of files before it removes one.
        message = (
            r"borg delete failed \(exit code 2\): \S*ObjectNotFound: Object with key \w+ not found in repository \S+\n"
        )
        self.stopped_without("items", message)

    def stopped_without(self, kind, message):
        chunk = self.chunk_of_archive("archive-4", kind)
        self.assertNotEqual(self.by_client("debug", "delete-obj", self.made.location, chunk).code, 0)
        with self.made.opened_by_operator():  # as a hole in the guard would let it
            words = ("debug", "delete-obj", self.made.repository, chunk)
            self.made.borg(*words, user="account", environment=self.own())
        self.refused("audit")
        # Told to go on, it sees by itself that what stays is damaged, and frees nothing.
        code, _result, errors = self.run_it(despite=["audit"])
        self.assertEqual(code, 2)
        self.assertRegex(errors, message)
        self.rolled_back()

    def chunk_of_archive(self, name, kind):
        """One that no other archive has: of a file's content (`chunks`), or of the list of files (`items`)."""
        ids = {of: self.chunks(of, kind) for of in self.ids()}
        return next(id for id in ids.pop(name) if not any(id in other for other in ids.values()))

    def chunks(self, name, kind):
        dump = json.loads(self.made.borg("debug", "dump-archive", f"{self.made.location}::{name}", "-").output)
        ids = dump["_meta"]["items"]
        if kind == "chunks":
            ids = [chunk[0] for item in dump["_items"] for chunk in item.get("chunks", [])]
        return [id.removeprefix("\x7f") for id in ids]  # which borg writes before bytes that are not text

    def test_a_client_that_exchanges_the_key(self):
        environment = {"BORG_NEW_PASSPHRASE": "mine"}
        self.assertNotEqual(
            self.by_client("key", "change-passphrase", self.made.location, environment=environment).code, 0
        )
        self.refused("audit")
        self.approved()

    def test_a_client_that_holds_the_lock(self):
        session = self.made.opened()
        self.altered = {"ahead": AHEAD, "lockWait": 2}
        code, result, errors = self.run_it(shown=[])
        self.assertEqual((code, result), (2, None))
        self.assertRegex(errors, "(?i)lock")
        self.assertFalse((self.made.state / "open").exists())
        session.close()
        self.assertEqual(self.made.lost(), [])
        self.altered = {"ahead": AHEAD}
        self.finished_by_the_next()

    def test_a_session_that_was_prepared_before_the_run(self):
        """It reads without a lock, and asks to write when the seals are broken."""
        session = self.made.session()
        session.call("open", path=str(self.made.repository), lock=False, lock_wait=1, exclusive=False)
        with self.made.opened_by_operator(), self.assertRaises(Refused):
            session.call("put", id=bytes(32), data=b"rubbish")
        session.close()
        self.assertTrue(self.made.audit())
        self.approved()

    # ---- with the server ----------------------------------------------------------------------------------

    def test_a_server_that_forges_list_and_ledger(self):
        """Root there puts back the state of ten days ago, and has the ledger say that there never was another."""
        seen = {id: name for name, id in self.ids().items()}
        newest = max(number for number, _place in self.made.log.values())
        self.made.segments = {path: "" for path in self.made.segments if int(path.rpartition("/")[2]) < newest - 1}
        self.roll_back()
        with contextlib.closing(sqlite3.connect(self.made.state / "audit.sqlite")) as database, database:
            database.execute("DELETE FROM archives WHERE at > ?", (self.now - DAY,))
        self.made.approve()
        self.set_times({"archive-3": self.now - 7 * DAY})
        self.assertNotIn("archive-4", self.ids())
        self.refused("vanished", seen=seen)

    def test_a_key_that_root_has_exchanged(self):
        config = self.made.repository / "config"
        text = config.read_text()
        with self.made.sealing:
            config.write_text(re.sub(r"key = \S{8}", "key = AAAAAAAA", text))
            code, result, errors = self.run_it(shown=[])
            self.assertEqual((code, result), (2, None))
            self.assertNotIn("Traceback", errors)
            config.write_text(text)
        self.finished_by_the_next()

    def test_a_ledger_that_is_lost(self):
        for name in ("audit.sqlite", "ledger.json"):
            (self.made.state / name).unlink()
        self.refused("stale")
        self.take_in()
        self.finished_by_the_next()

    def test_a_ledger_that_was_edited(self):
        self.set_times({"archive-3": self.now - 90 * DAY, "archive-4": self.now - 5 * DAY})
        self.refused("clock")
        self.take_in()
        self.finished_by_the_next()

    def test_a_journal_that_somebody_has_written(self):
        journal = self.made.state / "retention.json"
        before = self.snapshot()
        for text in ("", "{", "null", "[]", '{"stage": "deleted", "stay": 5, "names": {}, "since": 1}', "[" * 10**5):
            journal.write_text(text)
            code, result, errors = self.run_it(shown=[])
            self.assertEqual((code, result), (2, None), text[:40])
            self.assertRegex(errors, "retention.json isn't in order", text[:40])
            self.assertNotIn("Traceback", errors)
        self.assertEqual(self.snapshot(), before)
        journal.unlink()
        self.finished_by_the_next()

    # ---- mistakes -----------------------------------------------------------------------------------------

    def test_a_clock_of_the_operators_computer_that_is_wrong(self):
        for hours in (-30, 30):
            self.refused("clock", now=self.now + hours * 3600)
        self.finished_by_the_next()

    def test_a_clock_of_the_server_that_is_ahead(self):
        self.altered = {"ahead": AHEAD + 300 * DAY}
        self.refused("clock")
        self.altered = {"ahead": AHEAD}
        self.finished_by_the_next()

    def test_a_clock_of_the_server_that_is_behind(self):
        self.altered = {"ahead": AHEAD - 20 * DAY}
        self.refused("clock", now=self.now - 20 * DAY)  # whoever asks has the same wrong time
        self.altered = {"ahead": AHEAD}
        self.finished_by_the_next()

    def test_a_drill_of_the_future(self):
        """Its machine's clock is wrong: by that the drill would be new for ever."""
        self.refused("drill", drill={**HONEST, "succeeded": self.now + 900 * DAY})
        self.finished_by_the_next()

    def test_two_operators_who_remove_at_once(self):
        shown = list(self.ids().values())
        self.altered = {**self.altered, "stopAt": "begun"}  # whoever comes first waits there for the other
        both = [self.start("apply", shown=shown) for _ in range(2)]
        self.altered = {"ahead": AHEAD}
        wait_for(lambda: any(process.poll() is not None for process in both), what="the end of one")
        ended = []
        for process in sorted(both, key=lambda of: of.returncode is None):
            if process.returncode is None:
                wait_for(lambda: stands_still(process), what="the beginning of the other")  # noqa: B023
                go_on(process)
            process.stdout.read()
            ended.append((process.wait(), process.stderr.read()))
            close(process)
        self.assertEqual([code for code, _errors in ended], [2, 0], ended)
        self.assertRegex(ended[0][1], "another run of it goes on")
        self.finished_by_the_next()

    def test_a_repository_that_is_not_append_only_already(self):
        config = self.made.repository / "config"
        with self.made.sealing:
            config.write_text(config.read_text().replace("append_only = 1", "append_only = 0"))
        self.finished_by_the_next()  # which looks that it is again

    def test_a_request_that_is_none(self):
        before = self.snapshot()
        policy = {"within": 7, "daily": 2, "weekly": 0, "monthly": 0, "yearly": 0}
        good = {"policy": policy, "passphrase": PASSPHRASE, "repository": "a" * 64}
        wrong = [
            {"policy": {}},
            {"policy": {**policy, "within": -1}},
            {"policy": {**policy, "daily": "7"}},
            {"policy": {**policy, "hourly": 1}},
            {"passphrase": ""},
            {"repository": None},
            {"shown": "all"},
            {"seen": []},
            {"despite": {}},
            {"drill": {"succeeded": "now"}},
            {"now": True},
        ]
        for line in ("", "{", "null", "[" * 10**5, "{}", *(json.dumps({**good, **bad}) for bad in wrong)):
            done = self.ask(line)
            self.assertEqual((done.returncode, done.stdout), (2, ""), line[:80])
            self.assertRegex(done.stderr, "isn't (a request|in order)", line[:80])
            self.assertNotIn("Traceback", done.stderr)
            self.assertNotIn(PASSPHRASE, done.stderr)
        self.assertEqual(self.snapshot(), before)

    def ask(self, line):
        program = [str(self.made.python), "-B", f"{machine().programs}/chtbackup", "retention", "apply"]
        command = [*program, str(self.made.settings_file)]
        return subprocess.run(command, input=line + "\n", text=True, capture_output=True)
