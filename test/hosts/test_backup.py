import contextlib
import io
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
from pathlib import Path
from unittest import mock

import fixture

from chtbackup.alert import deliver as alert_deliver
from chtbackup.alert import describe as alert_describe
from chtbackup.alert import program as alert
from chtbackup.backup import collect, data, store
from chtbackup.backup import program as backup
from chtbackup.backup.run import Run
from chtbackup.base import errors, process, programs
from chtbackup.base import text as plain
from chtbackup.borg import deployment, json_log, writer
from chtbackup.borg import idle as borg_idle
from chtbackup.couchdb import http


class Settings(unittest.TestCase):
    good = {
        "deployment": "lab",
        "chtHome": "/h",
        "composeProject": "cht",
        "couchdbData": [],
        "repository": "ssh://x/y",
        "compression": "auto,zstd,3",
        "chunker": "fixed,262144",
        "uploadRate": 0,
        "lockWait": 600,
        "checkpointInterval": 300,
    }

    def refusal(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "settings.json")
            Path(path).write_text(text)
            with contextlib.redirect_stderr(io.StringIO()) as err:
                self.assertEqual(backup.main([path, "--dry-run"]), 2)
        return err.getvalue().strip().removeprefix(f"{path}: ")

    def test_a_wrong_setting_is_one_line_with_its_name(self):
        for change, words in (
            ({"deployment": "Lab!"}, "deployment must be"),
            ({"chtHome": ""}, "chtHome must be text"),
            ({"couchdbData": "/x"}, "couchdbData must be a list of directories"),
            ({"repository": None}, "repository must be text"),
            ({"compression": None}, "compression must be a compression of borg's, such as auto,zstd,3"),
            ({"chunker": "fixed,1 --repair"}, "chunker must be borg's chunker parameters"),
            ({"uploadRate": -1}, "uploadRate must be a whole number: KiB a second, 0 for no limit"),
            ({"lockWait": True}, "lockWait must be a whole number: seconds"),
            ({"checkpointInterval": "300"}, "checkpointInterval must be a whole number: seconds"),
        ):
            line = self.refusal(json.dumps({**self.good, **change}))
            self.assertTrue(line.startswith(words), line)
            self.assertNotIn("\n", line)
        self.assertIn("can't be read as settings", self.refusal("{"))
        self.assertIn("must be an object", self.refusal("[]"))


class Counter(unittest.TestCase):
    """Of a machine that has never written to the repository, or has lost its state."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        run = Run(Settings.good, False)
        run.state = scratch.name
        self.state = scratch.name
        self.client = writer.Writer(deployment.repository_of(Settings.good), run.notes.append)
        self.store = store.Store(run, self.client)
        self.security = Path(scratch.name, "borg/.config/borg/security")
        self.asked = []

    def begin(self, printed, code=0, words=""):
        def start(*arguments, **_options):
            self.asked.append(arguments)
            self.client.child = subprocess.Popen(
                [
                    "sh",
                    "-c",
                    'printf %s "$1"; printf %s "$2" >&2; exit "$3"',
                    "sh",
                    printed,
                    words,
                    str(code),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        with mock.patch.object(self.client, "start", start):
            self.store.begin_counter()

    def test_begins_with_the_time_before_anything_is_written(self):
        before = int(time.time())
        self.begin(json.dumps({"repository": {"id": "5a" * 32}}))
        file = self.security / ("5a" * 32) / "nonce"
        text = file.read_text()
        self.assertRegex(text, "^[0-9a-f]{16}$")
        self.assertTrue(before <= int(text, 16) >> 31 <= time.time())
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)

    def test_that_is_there_stays_and_borg_isnt_asked(self):
        file = self.security / ("5a" * 32) / "nonce"
        file.parent.mkdir(parents=True)
        file.write_text("0000000010000123")
        self.begin("")
        self.assertEqual((file.read_text(), self.asked), ("0000000010000123", []))

    def test_ssh_is_asked_where_borg_knows_only_that_the_connection_ended(self):
        configuration = Path(self.state, "ssh_config")
        configuration.write_text("Host offsite\n HostName 127.0.0.1\n Port 1\n BatchMode yes\n")
        self.client.repository.ssh_config = str(configuration)
        words = json.dumps(
            {
                "type": "log_message",
                "levelname": "ERROR",
                "name": "borg.archiver",
                "msgid": "ConnectionClosedWithHint",
                "message": "Connection closed by remote host. Is borg working on the server?",
            }
        )
        with self.assertRaisesRegex(
            errors.NoBackup, r"the backup server can't be reached \(ssh: connect to .* refused\)"
        ):
            self.begin("", 81, words)

    def test_that_cant_be_begun_is_no_backup_and_the_reason_is_named(self):
        words = json.dumps(
            {
                "type": "log_message",
                "levelname": "ERROR",
                "name": "borg.archiver",
                "msgid": "ConnectionClosedWithHint",
                "message": "Connection closed by remote host. Is borg working on the server?",
            }
        )
        with self.assertRaisesRegex(errors.NoBackup, "the backup server ended the connection"):
            self.begin("", 81, words)
        for printed in ("[]", '{"repository": {"id": "../x"}}', "{"):
            with self.assertRaises(errors.NoBackup):
                self.begin(printed)
        self.assertFalse(self.security.exists())


class Swapped(unittest.TestCase):
    """Files that a compaction swaps while borg comes to them."""

    def problems_with(self, name):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.touch()
            run = Run(Settings.good, False)
            client = mock.Mock(run=lambda *_words, **_options: writer.Ended(107, [warning], ""))
            stored = store.Store(run, client)
            words = f"{path}: stat: [Errno 2] No such file or directory: '{name}'"
            warning = json_log.Message(words, "BackupFileNotFoundError")
            archives = [{"name": run.archive, "id": "1", "time": "now"}]
            with (
                mock.patch.multiple(stored, begin_counter=mock.DEFAULT, look_up=lambda: archives),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                stored.store([path], {}, ("", dict))
                return run.problems

    def test_a_shard_that_is_missing_for_that_is_a_problem_and_a_view_which_couchdb_rebuilds_is_none(self):
        self.assertIn("was being replaced when borg came", "\n".join(self.problems_with("medic.1.couch")))
        self.assertEqual(self.problems_with("0123.view"), [])


class AskingCouchDB(unittest.TestCase):
    """Of a database that it is just deleting CouchDB says 500 before it says that there is none."""

    COUNTS = {"doc_count": 3, "doc_del_count": 1, "update_seq": "9-g1AAAA"}

    def ask(self, answers):
        """Its answers by path, one after the other; a number is a status."""

        def opened(_opener, request, timeout):
            path = request.full_url.partition(":5984")[2]
            answer = answers[path].pop(0) if len(answers[path]) > 1 else answers[path][0]
            if isinstance(answer, int):
                raise urllib.error.HTTPError(request.full_url, answer, "", {}, None)
            return contextlib.closing(io.BytesIO(json.dumps(answer).encode()))

        with (
            mock.patch("urllib.request.OpenerDirector.open", opened),
            mock.patch("time.sleep"),
        ):
            return sorted(http.ask_couchdb("couchdb", "medic", "secret"))

    def test_a_database_that_is_being_deleted_is_asked_for_once_more(self):
        names = ["gone", "made", "medic", "unlisted"]
        asked = {
            "/_all_dbs": [names, names[:3]],
            "/gone": [500, 404],
            "/made": [500, self.COUNTS],
            "/medic": [self.COUNTS],
            "/unlisted": [500],
        }
        self.assertEqual(self.ask(asked), ["made", "medic"])

    def test_one_that_cant_be_opened_is_a_fault(self):
        with self.assertRaises(urllib.error.HTTPError) as raised:
            self.ask({"/_all_dbs": [["medic"]], "/medic": [500]})
        self.assertEqual(raised.exception.code, 500)


class DataDirectory(unittest.TestCase):
    def test_an_empty_mount_point_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(errors.NoBackup, "is its disk mounted"):
                data.check_data_directory(folder, {})
            with self.assertRaisesRegex(errors.NoBackup, "can't be read"):
                data.check_data_directory(f"{folder}/nowhere", {})


class Idle(unittest.TestCase):
    """Of the processes of a run: borg, ssh."""

    def look(self, *moments):
        """What is said at the last of the moments: seconds, then the work of borg and of ssh by then."""
        idle = borg_idle.Idle()
        for now, borg, ssh in moments:
            work = {1: borg, 2: ssh}
            with (
                mock.patch.object(borg_idle, "work_done", work.get),
                mock.patch.object(borg_idle, "name_of", {1: "borg", 2: "ssh"}.get),
                mock.patch.object(borg_idle, "open_files", lambda _process: ["/srv/couchdb/pipe"]),
            ):
                said = idle.look([1, 2], now)
        return said

    def test_a_run_in_which_nothing_happens_is_ended_and_the_file_it_stands_at_named(self):
        self.assertIsNone(self.look((0, 5, 5), (borg_idle.IDLE_LIMIT, 5, 5)))
        said = self.look((0, 5, 5), (borg_idle.IDLE_LIMIT + 1, 5, 5))
        self.assertIn("borg and its ssh did nothing for 15 minutes", said)
        self.assertIn("/srv/couchdb/pipe", said)

    def test_a_living_connection_doesnt_keep_a_run_for_ever_in_which_borg_does_nothing(self):
        ticks = [(second, 5, second) for second in range(0, borg_idle.STUCK_LIMIT + 600, 600)]
        self.assertIsNone(self.look(*ticks))
        self.assertIn("borg did nothing for 360 minutes", self.look(*ticks, (borg_idle.STUCK_LIMIT + 601, 5, 0)))

    def test_where_the_kernel_doesnt_tell_nothing_is_said(self):
        self.assertIsNone(self.look((0, None, 5), (1e9, None, 5)))
        self.assertIn("borg did nothing", self.look((0, 5, None), (1e9, 5, None)))

    def test_where_the_kernel_doesnt_name_the_processes_nothing_is_said(self):
        idle = borg_idle.Idle()
        self.assertIsNone(idle.look([], 0))
        self.assertIsNone(idle.look([], 1e6))


class AFaultOfTheProgram(unittest.TestCase):
    def run_main(self, folder, **patched):
        path = os.path.join(folder, "settings.json")
        Path(path).write_text(json.dumps(Settings.good))
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for name, value in patched.items():
                stack.enter_context(mock.patch.object(collect.Collection, name, value))
            made = Run.__init__

            def inside(run, *arguments):
                made(run, *arguments)
                run.state, run.scratch = f"{folder}/state", f"{folder}/run/collect"

            stack.enter_context(mock.patch.object(Run, "__init__", inside))
            for number in process.SIGNALS:
                stack.callback(signal.signal, number, signal.getsignal(number))
            return backup.main([path])

    def test_has_an_exit_code_of_its_own_and_a_report_of_today(self):
        def fails(_run):
            raise TypeError("a fault")

        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(f"{folder}/state")
            report = Path(folder, "state/last-backup.json")
            report.write_text(json.dumps({"problems": ["of last night"], "lastSuccessAt": 7, "finishedAt": 8}))
            began = time.time()
            self.assertEqual(self.run_main(folder, collect=fails), plain.BUG)
            said = json.loads(report.read_text())
        self.assertEqual(said["problems"], ["a fault of the backup program itself: TypeError: a fault"])
        self.assertGreaterEqual(said["finishedAt"], int(began))
        self.assertEqual((said["ok"], said["archive"], said["exitCode"], said["lastSuccessAt"]), (False, None, 70, 7))

    def test_is_no_exit_code_of_any_programs_own(self):
        """Python's own would be 1: "a backup was made", "the copy is wrong", "something was found"."""
        package = Path(fixture.ROOT, "hosts", "chtbackup")
        modules = {
            ".".join(path.relative_to(package.parent).with_suffix("").parts)
            for path in package.rglob("*.py")
            if "def main(" in path.read_text()
        }
        self.assertEqual(set(programs.PROGRAMS.values()), modules)
        failing = mock.Mock(main=mock.Mock(side_effect=KeyError("missing")))
        for name in programs.PROGRAMS:
            with (
                mock.patch("importlib.import_module", return_value=failing),
                contextlib.redirect_stderr(io.StringIO()),
                mock.patch("sys.argv", []),
                self.assertRaises(SystemExit) as ended,
            ):
                programs.run([name])
            self.assertEqual(ended.exception.code, 70, name)

    def test_is_said_and_not_hidden(self):
        def fails():
            raise KeyError("missing")

        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
            plain.exit_with(fails)
        self.assertEqual(ended.exception.code, 70)
        self.assertIn("KeyError: 'missing'", said.getvalue())
        self.assertIn("a fault of the program itself", said.getvalue())


class Alerts(unittest.TestCase):
    failed = {"ok": False, "archive": None, "finished": "T", "problems": ["disk full"], "lastSuccessAt": 1}

    def test_the_message_names_the_reason(self):
        title, text = alert_describe.describe(
            "lab", "host", self.failed, {"Result": "exit-code", "ExecMainStatus": "2"}
        )
        self.assertEqual(title, "CHT backup lab failed on host")
        self.assertEqual(text, "no backup was made (T): disk full")

    def test_last_nights_result_is_not_told_as_tonights(self):
        """Of a run that failed by itself, but before it could write its own."""
        tonight = {
            "Result": "exit-code",
            "ExecMainStatus": "70",
            "ExecMainStartTimestampMonotonic": "100000000",
        }
        last = {**self.failed, "finishedAt": 1000.0}
        self.assertIn("disk full", alert_describe.describe("lab", "host", last, tonight, 900.0)[1])
        text = alert_describe.describe("lab", "host", last, tonight, 90_000.0)[1]
        self.assertNotIn("disk full", text)
        self.assertIn("a fault of the program itself", text)

    def test_an_older_result_is_not_taken_for_that_of_a_killed_run(self):
        for last in ({"ok": True, "lastSuccessAt": 1, "problems": []}, self.failed, None):
            self.assertIn("timeout", alert_describe.describe("lab", "host", last, {"Result": "timeout"})[1])

    def test_it_says_when_there_has_never_been_a_backup(self):
        last = {**self.failed, "lastSuccessAt": None}
        self.assertIn("No backup has succeeded so far", alert_describe.describe("lab", "host", last, {})[1])

    def test_of_an_address_only_its_kind_is_said(self):
        self.assertEqual(alert_deliver.kind("mailtos://user:secret@example.org"), "mailtos")
        self.assertEqual(alert_deliver.kind("secret words"), "unknown kind")

    def test_empty_lines_and_comments_are_no_addresses(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("\n# comment\n json://x \n")
            file.flush()
            self.assertEqual(alert.read_addresses(file.name), ["json://x"])
        self.assertEqual(alert.read_addresses("/nowhere"), [])


if __name__ == "__main__":
    unittest.main()
