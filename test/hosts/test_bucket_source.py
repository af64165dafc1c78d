"""A drill from the bucket: its decisions, and how it runs `fetch` (which test/bucket tests)."""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401  # it puts the scripts on the path

from chtbackup.alert import describe as alert_describe
from chtbackup.base import errors, programs
from chtbackup.drill import bucket_source, findings, overdue, reports, room
from chtbackup.drill import settings as drill_settings

NOW = 1_795_000_000
HOUR = 3600
COPY = {
    "copy": "index/20261122T020000Z-7.json.gz",
    "version": "v",
    "finished": "2026-11-22T02:00:00Z",
    "finishedAt": NOW - HOUR,
    "number": 7,
    "transaction": 9,
    "files": 12,
    "size": 3_000_000,
    "remarks": [],
}


class WhereFrom(unittest.TestCase):
    def test_the_settings_say_where_from_and_alternating_takes_the_other_one(self):
        for wanted, latest, source in (
            ("server", {"from": "server"}, "server"),
            ("bucket", {"from": "bucket"}, "bucket"),
            ("alternating", None, "bucket"),
            ("alternating", {"from": "server"}, "bucket"),
            ("alternating", {"from": "bucket"}, "server"),
            ("alternating", {"outcome": "right"}, "bucket"),  # of a time when there was only the server
        ):
            self.assertEqual(drill_settings.source_of(wanted, latest), source, (wanted, latest))

    def refusal(self, **changes):
        settings = {
            "deployment": "t", "repository": "ssh://offsite/r", "scratch": "/s", "scratchGibibytes": 0,
            "keep": 2, "overdueAfterDays": 9, "network": "n", "image": None, "pull": True,
            "memoryMebibytes": 64, "cpus": 1,
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "drill.json")
            Path(path).write_text(json.dumps({**settings, **changes}))
            try:
                drill_settings.read_settings(path)
            except errors.Refused as error:
                return str(error).removeprefix(f"{path}: ")

    def test_a_bucket_that_is_half_described_is_refused(self):
        place = {
            "bucket": "b", "prefix": "", "region": "r", "endpoint": None, "pathStyle": True, "credentials": "/c",
            "python": "/p", "repositories": ["id"],
        }  # fmt: skip
        self.assertIsNone(self.refusal(**{"from": "bucket", "bucket": {**place, "maxAgeHours": 72}}))
        self.assertIsNone(self.refusal(**{"from": "server"}))
        self.assertRegex(self.refusal(**{"from": "tape"}), "^from must be server, bucket or alternating$")
        for bucket in (None, place, {**place, "maxAgeHours": 72, "credentials": ""}):
            self.assertRegex(self.refusal(**{"from": "bucket", "bucket": bucket}), r"^bucket(\.\w+)? must be ")

    def test_the_page_says_where_from_and_how_old_the_copy_was(self):
        made = {**reports.new_report("t"), "seconds": 1, "lastSuccessAt": None}
        self.assertRegex(reports.page(made), r"from      the server\n")
        made["from"] = "bucket"
        self.assertRegex(reports.page(made), r"from      the bucket\n")
        made["copy"] = {"number": 7, "finished": COPY["finished"], "ageSeconds": 5400, "bytes": 3_000_000}
        self.assertIn(
            "from      the bucket, copy 7, finished 2026-11-22T02:00:00Z, 1 h 30 min old when the drill"
            " began: 3.0 MB\n",
            reports.page(made),
        )


class Doubts(unittest.TestCase):
    def test_there_are_none_about_a_copy_that_is_young_and_in_order(self):
        self.assertEqual(bucket_source.doubts(COPY, NOW, 72), [])
        self.assertEqual(bucket_source.doubts(COPY, NOW + 70 * HOUR, 72), [])
        self.assertIsNone(bucket_source.archive_too_old(72 * HOUR, 72))

    def test_a_copy_that_is_too_old_is_named_with_its_time_and_what_it_may_mean(self):
        (found,) = bucket_source.doubts(COPY, NOW + 72 * HOUR, 72)
        self.assertRegex(found, r"^the newest copy in the bucket \(2026-11-22T02:00:00Z\) is .* old, and 72 h are")
        self.assertIn("somebody has stopped them", found)

    def test_copies_that_are_forged_or_damaged_are_doubts_though_a_restore_passes_over_them(self):
        remarks = [
            "note: index/x is passed over, it is no index",
            "WARNING: the copy index/y says that it was made at",
        ]
        found = bucket_source.doubts({**COPY, "remarks": remarks}, NOW, 72)
        self.assertEqual(found, ["index/x is passed over, it is no index", "the copy index/y says that it was made at"])

    def test_an_archive_too_old_in_a_young_copy_is_told_of(self):
        self.assertIn("nothing new", bucket_source.archive_too_old(72 * HOUR + 1, 72))


class Program(unittest.TestCase):
    """The program that fetches, in whose place another program stands."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        beside = mock.patch.object(programs, "PACKAGE", str(self.folder))
        beside.start()
        self.addCleanup(beside.stop)
        self.place = {"bucket": "b", "credentials": "/c", "python": sys.executable}

    def program(self, text):
        (self.folder / "__main__.py").write_text(
            f"import json, sys, time\ndel sys.argv[1]\nrequest = json.loads(input())\n{text}\n"
        )

    def test_is_told_what_is_asked_for_on_its_standard_input_and_not_in_arguments(self):
        self.program("print(json.dumps({'arguments': sys.argv[1:], 'request': request}))")
        self.assertEqual(bucket_source.newest(self.place), {"arguments": ["newest"], "request": self.place})

    def test_fetches_the_very_version_that_was_looked_at_and_its_progress_is_shown(self):
        self.program("print(sys.argv[1:], request['copy'], request['version'])")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            bucket_source.fetch(self.place, COPY, "/s/repository")
        self.assertIn(f"['fetch', '/s/repository'] {COPY['copy']} v\n", said.getvalue())

    def test_its_reason_is_the_drills(self):
        for text, words in (
            (
                "print('a\\nthe bucket b: it can\\'t be reached', file=sys.stderr); sys.exit(2)",
                "^the bucket b: it can't be",
            ),
            ("sys.exit(3)", "^the program that fetches ended with exit code 3$"),
            ("print('junk')", "says nothing of the newest copy"),
        ):
            self.program(text)
            with self.assertRaisesRegex(errors.Refused, words):
                bucket_source.newest(self.place)
        with self.assertRaisesRegex(errors.Refused, "/no/python can't be run .*: `pulumi up` makes it"):
            bucket_source.newest({**self.place, "python": "/no/python"})

    def test_ends_when_the_drill_is_stopped_meanwhile(self):
        started = self.folder / "started"
        self.program(f"import os; print(os.getpid(), file=open({str(started)!r}, 'w'), flush=True); time.sleep(60)")

        def stop(_number, _frame):
            raise room.TooLittle

        before = signal.signal(signal.SIGUSR1, stop)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

        def when_started():
            while not (started.exists() and started.read_text().strip()):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGUSR1)

        threading.Thread(target=when_started, daemon=True).start()
        with self.assertRaises(room.TooLittle):
            bucket_source.newest(self.place)
        with self.assertRaises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)


class Room(unittest.TestCase):
    def drill(self, held, free, limit=0):
        disk = mock.Mock(f_bavail=free, f_frsize=1, f_blocks=int(50e9))
        with (
            mock.patch.object(room.os, "statvfs", return_value=disk),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            room.require_room("/s", 4e9, held, limit / 1024**3)

    def test_there_is_enough_for_the_repository_and_the_copy_together(self):
        self.drill(3e9, 6e9)
        self.drill(3e9, 6e9, limit=7.5e9)
        # What it holds already isn't free, so it counts once.
        with self.assertRaisesRegex(errors.Refused, r"it takes 7,000.0 MB .*, and 7,500.0 MB are free"):
            self.drill(3e9, 4.5e9)
        with self.assertRaisesRegex(errors.Refused, "it takes 7,000.0 MB .*scratchGibibytes allows 6,500.0 MB"):
            self.drill(3e9, 60e9, limit=6.5e9)


class Choosing(unittest.TestCase):
    def drill(self, copy):
        settings = {"bucket": {"bucket": "b", "maxAgeHours": 72}, "scratchGibibytes": 0}
        report = {**reports.new_report("t"), "from": "bucket", "beganAt": NOW}
        asked = [
            mock.patch.object(bucket_source, name, of)
            for name, of in (("newest", lambda _: copy), ("fetch", mock.Mock()), ("require_room", mock.Mock()))
        ]
        with contextlib.ExitStack() as stack:
            for each in (
                *asked,
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                stack.enter_context(each)
            held = bucket_source.take_newest(settings, "/s", findings.Findings(report, mock.Mock(), []))
            bucket_source.require_room.assert_called_once_with("/s", COPY["size"], 0, 0)
        return report, held

    def test_the_copy_is_in_the_report_and_the_repository_counts_for_the_room(self):
        report, held = self.drill(COPY)
        self.assertEqual((report["problems"], held), ([], COPY["size"]))
        wanted = {"bucket": "b", "number": 7, "ageSeconds": HOUR, "bytes": 3_000_000}
        self.assertEqual({name: report["copy"][name] for name in wanted}, wanted)

    def test_a_copy_that_is_too_old_is_drilled_all_the_same_and_makes_the_drill_wrong(self):
        report, _ = self.drill({**COPY, "finishedAt": NOW - 73 * HOUR})
        self.assertRegex(report["problems"][0], "^the newest copy in the bucket .* is .* old")
        self.assertEqual(len(report["checked"]), 1)


class LookingBack(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.reports = reports.Reports(folder.name)
        self.reports.since()

    def look(self, source, newest):
        place = {"bucket": "b", "maxAgeHours": 72}
        settings = {"deployment": "t", "overdueAfterDays": 9, "from": source, "bucket": place}
        with (
            mock.patch.object(bucket_source, "newest", newest),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            code = overdue.look_back(settings, self.reports)
        with open(f"{self.reports.directory}/overdue.json", encoding="utf-8") as file:
            return code, said.getvalue(), json.load(file)

    def young(self, _place):
        return {**COPY, "finishedAt": time.time() - HOUR}

    def test_the_bucket_is_asked_only_where_drills_read_it(self):
        asked = mock.Mock(side_effect=AssertionError)
        self.assertEqual(self.look("server", asked)[0], 0)
        for source in ("bucket", "alternating"):
            code, said, seen = self.look(source, self.young)
            self.assertEqual((code, said, seen["late"], seen["doubts"]), (0, "", False, []))

    def test_an_old_copy_and_a_bucket_that_does_not_answer_are_kept_for_the_alarm(self):
        code, said, seen = self.look("bucket", lambda _: COPY)
        self.assertEqual((code, seen["late"], len(seen["doubts"])), (1, False, 1))
        self.assertIn("the newest copy in the bucket", said)

        def refused(_place):
            raise errors.Refused("the bucket b: it can't be reached")

        code, _, seen = self.look("bucket", refused)
        self.assertEqual(code, 1)
        self.assertEqual(
            seen["doubts"],
            ["the newest copy in the bucket can't be found out: the bucket b: it can't be reached"],
        )

    def alarm(self, seen, began=NOW - 60):
        failed = {
            "ActiveState": "failed",
            "ExecMainStartTimestampMonotonic": str((began - NOW + 1000) * 1_000_000),
        }
        return alert_describe.describe_drill("t", "d", None, {"cht-drill-t-overdue.service": failed}, NOW - 1000, seen)

    def test_the_alarm_says_what_was_seen(self):
        seen = {
            "finishedAt": NOW - 59,
            "late": False,
            "doubts": ["the newest copy is old", "another is forged"],
        }
        title, text = self.alarm(seen)
        self.assertEqual(title, "CHT backup t: the copy in the bucket, as d sees it")
        self.assertEqual(text, "the newest copy is old; another is forged")
        title, text = self.alarm({**seen, "late": True})
        self.assertEqual(title, "CHT restore drill t is overdue on d")
        self.assertIn("The bucket: the newest copy is old. The bucket: another is forged.", text)

    def test_the_alarm_does_not_believe_what_was_seen_the_day_before(self):
        for seen in (None, {"finishedAt": NOW - 86400, "late": True, "doubts": ["old"]}):
            title, text = self.alarm(seen)
            self.assertEqual(title, "CHT restore drill t: whether it is overdue isn't known on d")
            self.assertIn("see: journalctl -u cht-drill-t-overdue", text)


if __name__ == "__main__":
    unittest.main()
