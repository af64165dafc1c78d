import contextlib
import io
import json
import os
import tempfile
import unittest
from pathlib import Path

import fixture  # noqa: F401  (puts the scripts on the path)

import alert
import backup


class BorgmaticsWords(unittest.TestCase):
    def test_borgs_exit_code_is_read_from_what_borgmatic_says(self):
        warned = (
            "offsite: Treating exit code 107 (Backup file not found) as a warning, as per configuration\n"
        )
        self.assertEqual(backup.read_borgmatic(0, warned), (107, []))
        failed = (
            "Remote: ssh: connect to host h port 22: Connection refused\n"
            "offsite: Error running actions for repository\n"
            "offsite: Command 'borg create …' returned non-zero exit status 81.\n"
            "summary:\nAn error occurred\n"
        )
        self.assertEqual(
            backup.read_borgmatic(1, failed),
            (81, ["Remote: ssh: connect to host h port 22: Connection refused"]),
        )
        self.assertEqual(backup.read_borgmatic(1, "died with <Signals.SIGKILL: 9>.")[0], 9)

    def test_nothing_said_is_fine_only_when_borgmatic_is(self):
        self.assertEqual(backup.read_borgmatic(0, ""), (0, []))
        self.assertEqual(backup.read_borgmatic(1, "Traceback"), (None, ["Traceback"]))
        self.assertEqual(backup.read_borgmatic(-9, ""), (None, []))


class Settings(unittest.TestCase):
    good = {
        "deployment": "lab",
        "chtHome": "/h",
        "composeProject": "cht",
        "couchdbData": [],
        "repository": "ssh://x/y",
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
        ):
            line = self.refusal(json.dumps({**self.good, **change}))
            self.assertTrue(line.startswith(words), line)
            self.assertNotIn("\n", line)
        self.assertIn("can't be read as settings", self.refusal("{"))
        self.assertIn("deployment must be", self.refusal("[]"))


class DataDirectory(unittest.TestCase):
    def test_an_empty_mount_point_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(backup.NoBackup, "is its disk mounted"):
                backup.check_data_directory(folder)
            with self.assertRaisesRegex(backup.NoBackup, "can't be read"):
                backup.check_data_directory(f"{folder}/nowhere")


class Opening(unittest.TestCase):
    def test_the_kernel_tells_when_a_file_is_opened(self):
        with tempfile.NamedTemporaryFile() as file:
            descriptor = backup.watch_opening(file.name)
            try:
                os.set_blocking(descriptor, False)
                with self.assertRaises(BlockingIOError):
                    os.read(descriptor, 100)
                open(file.name).close()
                self.assertTrue(os.read(descriptor, 100))
            finally:
                os.close(descriptor)


class Alerts(unittest.TestCase):
    failed = {"ok": False, "archive": None, "finished": "T", "problems": ["disk full"], "lastSuccessAt": 1}

    def test_the_message_names_the_reason(self):
        title, text = alert.describe(
            "lab", "host", self.failed, {"Result": "exit-code", "ExecMainStatus": "2"}
        )
        self.assertEqual(title, "CHT backup lab failed on host")
        self.assertEqual(text, "no backup was made (T): disk full")

    def test_an_older_result_is_not_taken_for_that_of_a_killed_run(self):
        for last in ({"ok": True, "lastSuccessAt": 1, "problems": []}, self.failed, None):
            self.assertIn("timeout", alert.describe("lab", "host", last, {"Result": "timeout"})[1])

    def test_it_says_when_there_has_never_been_a_backup(self):
        last = {**self.failed, "lastSuccessAt": None}
        self.assertIn("No backup has succeeded so far", alert.describe("lab", "host", last, {})[1])

    def test_of_an_address_only_its_kind_is_said(self):
        self.assertEqual(alert.kind("mailtos://user:secret@example.org"), "mailtos")
        self.assertEqual(alert.kind("secret words"), "unknown kind")

    def test_empty_lines_and_comments_are_no_addresses(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("\n# comment\n json://x \n")
            file.flush()
            self.assertEqual(alert.read_addresses(file.name), ["json://x"])
        self.assertEqual(alert.read_addresses("/nowhere"), [])


if __name__ == "__main__":
    unittest.main()
