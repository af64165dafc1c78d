import contextlib
import io
import json
import re
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

import fixture  # first: it puts the scripts on the path

from chtbackup.alert import deliver as alert_deliver
from chtbackup.alert import program as alert
from chtbackup.backup import program as backup
from chtbackup.backup import report as backup_report
from chtbackup.base import text as plain
from chtbackup.bucket import fetch as bucket_fetch
from chtbackup.bucket import program as bucket_program
from chtbackup.bucket import report as copy_report
from chtbackup.couchdb import scan as couch_scan
from chtbackup.drill import reports

TABLE = json.loads((fixture.ROOT / "test" / "plain.json").read_text())
EVIL = "\x1b]0;all is well\x07\x9b2J\n<0>right: gpj.\u202eexe <script>alert(1)</script>"
HARMLESS = "\\x1b]0;all is well\\x07\\x9b2J\\n<0>right: gpj.\\u202eexe <script>alert(1)</script>"


class Plain(unittest.TestCase):
    def test_it_is_what_the_table_says_as_on_the_operators_computer(self):
        for text, expected in TABLE["lines"]:
            self.assertEqual(plain.plain(text), expected)
        for text, expected in TABLE["texts"]:
            self.assertEqual(plain.plain_lines(text), expected)

    def test_of_all_characters_it_escapes_those_of_the_table_and_no_other(self):
        ranges = [(int(first, 16), int(last, 16)) for first, last in TABLE["ranges"]]
        unsafe = {code for first, last in ranges for code in range(first, last + 1)}
        for code in range(0x110000):
            escaped = plain.plain(chr(code))
            if (escaped != chr(code)) != (code in unsafe) or (code in unsafe and not escaped.isascii()):
                self.fail(f"U+{code:04X} becomes {escaped!r}")

    def test_what_is_plain_stays_as_it_is(self):
        for text, expected in TABLE["lines"]:
            self.assertEqual(plain.plain(plain.plain(text)), expected)


def said(action):
    """What an action prints, on either output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        action()
    return out.getvalue()


class Journal(unittest.TestCase):
    """What programs say about what others named."""

    def test_no_program_prints_but_through_it(self):
        for path in sorted((fixture.ROOT / "hosts" / "chtbackup").rglob("*.py")):
            # What snapshot.py prints is read by copy.py; what page.py prints is HTML, in which names are escaped.
            # guard.py, confined.py and what starts programs say words of their own.
            if path.name in ("text.py", "snapshot.py", "page.py", "guard.py", "confined.py", "programs.py"):
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                # JSON is ASCII.
                if re.search(r"\bprint\(|std(out|err)\.write\(", line) and "json.dumps" not in line:
                    self.fail(f"{path.name}:{number} prints by itself: say and complain of base/text.py do that")

    def test_a_line_stays_one_line_and_of_its_priority(self):
        self.assertEqual(said(lambda: plain.say(EVIL)), HARMLESS + "\n")
        self.assertEqual(said(lambda: plain.complain(ValueError(EVIL))), HARMLESS + "\n")

    def test_problems_of_a_backup_and_of_a_copy_are_harmless(self):
        result = {"notes": [EVIL], "problems": [EVIL], "startedAt": 1, "finishedAt": 2, "archive": None}
        for report in (backup_report.report, copy_report.report):
            text = said(lambda report=report: report(result))
            self.assertIn(f"note: {HARMLESS}\n", text)
            self.assertIn(f"problem: {HARMLESS}\n", text)

    def test_settings_that_cannot_be_read_are_named_harmlessly(self):
        for main in (
            lambda: backup.main([EVIL]),
            lambda: bucket_program.main(["describe", EVIL]),
            lambda: alert.main([EVIL]),
            lambda: couch_scan.main([EVIL]),
        ):
            with mock.patch("os.umask"), mock.patch("signal.signal"):
                self.assertIn("\\x1b]0;", text := said(main))
            self.assertEqual(text, plain.plain_lines(text))

    def test_what_a_bucket_says_is_harmless(self):
        with (
            mock.patch("os.umask"),
            mock.patch("signal.signal"),
            mock.patch("sys.stdin", io.StringIO("{}\n")),
            mock.patch.object(bucket_fetch, "list_copies", side_effect=bucket_fetch.Refused(EVIL)),
        ):
            self.assertEqual(said(lambda: bucket_fetch.main(["list"])), HARMLESS + "\n")


class Reports(unittest.TestCase):
    def test_a_report_can_be_shown_as_it_is_whatever_shows_it(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = reports.Reports(folder)
            report = reports.new_report("lab")
            report.update(problems=[EVIL], notes=[EVIL], log=[EVIL], counts={EVIL: 3}, image=EVIL)
            kept.write(report)
            latest = kept.latest()
            page = (Path(folder) / "latest.txt").read_text()
        self.assertEqual((latest["problems"], latest["counts"]), ([HARMLESS], {HARMLESS: 3}))
        self.assertEqual(page, plain.plain_lines(page))
        self.assertIn(f"  - {HARMLESS}\n", page)

    def test_results_of_backups_and_copies_hold_harmless_problems(self):
        with tempfile.TemporaryDirectory() as folder:
            result = {"ok": False, "problems": [EVIL], "finishedAt": 1}
            copy_report.remember({"state": folder}, "last-copy.json", dict(result))
            with mock.patch("chtbackup.backup.report.metrics", return_value=""):
                backup_report.remember(folder, dict(result))
            for name in ("last-copy.json", "last-backup.json"):
                self.assertEqual(json.loads((Path(folder) / name).read_text())["problems"], [HARMLESS])


class Alarms(unittest.TestCase):
    def test_it_is_a_text_with_a_title_of_one_line_and_nothing_in_it_is_html(self):
        messages = []
        apprise = types.SimpleNamespace(
            NotifyType=types.SimpleNamespace(FAILURE="failure"),
            NotifyFormat=types.SimpleNamespace(TEXT="text"),
            Apprise=lambda: mock.Mock(notify=lambda **message: messages.append(message) or True),
        )
        with mock.patch.dict(sys.modules, apprise=apprise), mock.patch("logging.disable"):
            self.assertEqual(
                alert_deliver.deliver("mailto://x", f"failed on a\r\nBcc: all@example.org {EVIL}", EVIL), ""
            )
        [message] = messages
        # By this format apprise escapes what an address takes as HTML, and sends a mail as text.
        self.assertEqual(message["body_format"], "text")
        self.assertEqual(message["body"], HARMLESS)
        self.assertEqual(message["title"], f"failed on a\\r\\nBcc: all@example.org {HARMLESS}")

    def test_in_the_journal_it_is_one_line_whatever_the_report_holds(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "settings.json"
            settings.write_text(json.dumps({"deployment": "lab"}))
            last = {"ok": False, "problems": [EVIL], "archive": None, "finished": EVIL, "lastSuccessAt": None}
            with (
                mock.patch.object(alert, "read_report", return_value=last),
                mock.patch.object(alert, "unit_state", return_value={"Result": "exit-code"}),
            ):
                text = said(lambda: alert.main([str(settings)]))
        self.assertEqual(text.count("\n"), 1)
        self.assertEqual(text, plain.plain_lines(text))
        self.assertIn(HARMLESS, text)


if __name__ == "__main__":
    unittest.main()
