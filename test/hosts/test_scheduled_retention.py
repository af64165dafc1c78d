"""Retention on a schedule: what the machine that drills sends, what the server takes of it, and what comes of it."""

import contextlib
import io
import json
import stat
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401  (finds the programs)

from chtbackup.alert.describe import describe_retention
from chtbackup.drill.reports import Reports
from chtbackup.retention import scheduled
from chtbackup.retention.borg import Refused
from chtbackup.retention.request import asked_on_schedule

REPOSITORY = "ab" * 32
OWN = {
    "repository": REPOSITORY,
    "overdueAfterDays": 9,
    "policy": {"within": 7, "daily": 14, "weekly": 6, "monthly": 4, "yearly": 2},
}


class WhatTheServerTakes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.settings = Path(folder.name, "repository.json")
        self.own = self.settings.with_name("retention.json")
        self.own.write_text(json.dumps(OWN))

    def asked(self, **sent):
        return asked_on_schedule(json.dumps(sent), str(self.settings))

    def test_is_the_passphrase_and_what_only_the_drill_machine_knows(self):
        asked = self.asked(passphrase="p", seen={"a": "one"}, drill={"succeeded": 12.5, "failed": True})
        self.assertEqual(asked["seen"], {"a": "one"})
        self.assertEqual(asked["drill"], {"succeeded": 12.5, "failed": True, "overdueAfterDays": 9})

    def test_is_never_a_policy_a_repository_or_a_doubt_to_pass_over(self):
        sent = {"policy": {"within": 1}, "repository": "0", "despite": ["audit"], "shown": ["a"], "dryRun": True}
        asked = self.asked(passphrase="p", drill={"overdueAfterDays": 9999}, **sent)
        self.assertEqual(asked["policy"], OWN["policy"])
        self.assertEqual((asked["repository"], asked["despite"], asked["shown"]), (REPOSITORY, [], None))
        self.assertEqual(asked["drill"]["overdueAfterDays"], 9)
        self.assertNotIn("dryRun", asked)

    def test_is_nothing_without_a_policy_of_its_own(self):
        self.own.unlink()
        with self.assertRaisesRegex(Refused, "retention.json: can't be read as settings"):
            self.asked(passphrase="p")

    def test_refuses_what_is_no_request(self):
        for line, why in (
            ("", "isn't a request"),
            ("[]", "isn't a request"),
            ("[" * 100_000, "isn't a request"),
            ("{}", "passphrase isn't in order"),
            ('{"passphrase": 1}', "passphrase isn't in order"),
            ('{"passphrase": "p", "seen": [], "drill": "x"}', "seen, drill isn't in order"),
        ):
            with self.assertRaisesRegex(Refused, why):
                asked_on_schedule(line, str(self.settings))


class WhatTheDrillMachineDoes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.reports = Reports(f"{folder.name}/moh/drills")
        self.reports.ledger().compare(REPOSITORY, {"one": "a", "two": "b"})
        (self.folder / "moh" / "drills" / "latest.json").write_text('{"ok": true, "lastSuccessAt": 7}')
        self.sent = self.folder / "sent"

    def run_it(self, answer="", code=0):
        """With a server that notes what it is sent, answers so, and ends with a code."""
        (self.folder / "answer").write_text(answer)
        server = f'read -r line; echo "$line" > {self.sent}; cat {self.folder}/answer; exit {code}'
        settings = self.folder / "retention.json"
        command = ["sh", "-c", server]
        settings.write_text(json.dumps({"deployment": "moh", "repository": REPOSITORY, "command": command}))
        said, complained = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(scheduled, "STATE", str(self.folder)),
            mock.patch.object(scheduled, "read_passphrase", lambda _deployment: "hunter2"),
            mock.patch.object(scheduled, "remember", self.remember),
            mock.patch.object(scheduled, "stop_on_signals"),
            mock.patch.object(scheduled.time, "time", lambda: 1234.5),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
        ):
            code = scheduled.main([str(settings)])
        return code, said.getvalue(), complained.getvalue()

    def remember(self, state, _started, problems, done):
        self.remembered = (state, problems, done)

    def answer(self, done=None, doubts=None, removed=()):
        return json.dumps({"doubts": doubts or {}, "done": done, "removedBefore": dict.fromkeys(removed, "x")}) + "\n"

    def test_is_to_send_what_it_knows_and_to_forget_what_was_removed(self):
        code, said, _complained = self.run_it(self.answer({"removed": ["one"], "freed": 2_000_000}, removed=["a"]))
        self.assertEqual((code, said), (0, "1 archives removed, 2.0 MB freed on the server\n"))
        self.assertEqual(
            json.loads(self.sent.read_text()),
            {
                "passphrase": "hunter2",
                "seen": {"a": "one", "b": "two"},
                "drill": {"succeeded": 7, "failed": False},
                "now": 1234.5,
            },
        )
        self.assertEqual(self.reports.ledger().seen(REPOSITORY), {"b": "two"})
        self.assertEqual(self.remembered[1:], ([], {"removed": ["one"], "freed": 2_000_000}))

    def test_is_to_fail_with_the_servers_doubts(self):
        code, _said, complained = self.run_it(self.answer(doubts={"flood": "there are many"}), code=1)
        self.assertEqual(code, 1)
        self.assertIn("doubt (flood): there are many\n", complained)
        self.assertEqual(self.remembered[1], ["doubt (flood): there are many"])

    def test_is_to_say_so_where_the_server_could_not_or_answers_nonsense(self):
        for answer, exit_code, why in (
            ("", 255, "exit code 255"),
            ("", 0, "answer isn't in order"),
            ("{}\n", 0, "answer isn't in order"),
            ("[" * 100_000, 0, "answer isn't in order"),
        ):
            code, _said, complained = self.run_it(answer, exit_code)
            self.assertEqual(code, 2)
            self.assertRegex(complained, f"^the server.*{why}")
            self.assertNotIn("Traceback", complained)

    def test_is_to_write_a_report_that_only_root_changes(self):
        scheduled.remember(str(self.folder), 1.0, ["why"], None)
        report = self.folder / "last-retention.json"
        self.assertEqual(json.loads(report.read_text())["problems"], ["why"])
        self.assertEqual(stat.S_IMODE(report.stat().st_mode) & 0o022, 0)


class TheAlarm(unittest.TestCase):
    units = {"cht-retention-moh.service": {"ActiveState": "failed", "ExecMainStartTimestampMonotonic": "5000000"}}

    def test_says_why_and_when_it_last_worked(self):
        report = {"problems": ["doubt (flood): there are many"], "finishedAt": 110, "lastSuccessAt": 86400}
        title, text = describe_retention("moh", "drill", report, self.units, 100)
        self.assertEqual(title, "CHT backup moh: old backups weren't removed from the server, drill says")
        self.assertRegex(text, r"^doubt \(flood\): there are many. The last good run ended at 1970-01-02")

    def test_does_not_take_an_old_report_for_todays(self):
        report = {"problems": ["old"], "finishedAt": 50, "lastSuccessAt": None}
        _title, text = describe_retention("moh", "drill", report, self.units, 100)
        self.assertRegex(text, "^the unit ended .*journalctl -u cht-retention-moh. No run has succeeded so far")


if __name__ == "__main__":
    unittest.main()
