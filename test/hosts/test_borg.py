"""What borg says, by its JSON log, and what is made of it; and borg by hand."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401  (puts the scripts on the path)

from chtbackup.base import programs
from chtbackup.borg import json_log, meaning
from chtbackup.borg import program as borg_program
from chtbackup.borg.json_log import Message


def logged(message, msgid=None, level="ERROR", name="borg.archiver"):
    """A line as borg writes it with `--log-json`."""
    said = {"type": "log_message", "time": 1.5, "message": message, "levelname": level, "name": name}
    return json.dumps({**said, **({"msgid": msgid} if msgid else {})})


class Answers(unittest.TestCase):
    def changed(self, version):
        text = "/d/medic.couch: file changed while we backed it up"
        return Message(text, "FileChangedWarning" if version == "1.4" else "")

    def gone(self, version):
        text = "/d/x.couch: stat: [Errno 2] No such file or directory: '/d/x.couch'"
        return Message(text, "BackupFileNotFoundError" if version == "1.4" else "")

    def test_fine_is_fine_whatever_was_remarked(self):
        self.assertEqual(
            meaning.read_answer(0, [Message("Remote: Killed stale lock server.1-0.")]), meaning.Answer(True, [], [])
        )

    def test_files_that_change_or_vanish_are_normal(self):
        for version in ("1.2", "1.4"):
            for code in (1, 100, 103, 107):
                answer = meaning.read_answer(code, [self.changed(version), self.gone(version)])
                self.assertEqual(answer, meaning.Answer(True, ["/d/x.couch"], []))
        self.assertEqual(meaning.read_answer(100, []).problems, [])

    def test_a_file_that_was_swapped_while_it_was_read_is_normal(self):
        text = "/d/x.couch: file type or inode changed while we backed it up (race condition, skipped file)"
        swapped = Message(text, "BackupRaceConditionError")
        self.assertEqual(meaning.read_answer(103, [swapped]), meaning.Answer(True, [], []))

    def test_a_file_that_could_not_be_read_is_named(self):
        unread = "/d/y.couch: read: [Errno 5] Input/output error"
        for code, version, id_ in ((1, "1.2", ""), (106, "1.4", "BackupIOError")):
            said = [self.changed(version), Message(unread, id_)]
            self.assertEqual(meaning.read_answer(code, said).problems, [f"borg warns: {unread}"])

    def test_a_shell_that_died_with_1_is_not_taken_for_a_warning_that_is_fine(self):
        self.assertEqual(meaning.read_answer(1, []).problems, ["borg ended with 1 and didn't say why"])

    def test_errors_and_signals_mean_no_archive(self):
        for code in (2, 3, 73, 81, 99, 128, 143, 255, -15, None):
            answer = meaning.read_answer(code, [Message("words")])
            self.assertFalse(answer.may_have_archive)
            self.assertEqual(len(answer.problems), 1)

    def test_the_cause_is_named_before_its_consequence(self):
        text = "Connection closed by remote host. Is borg working on the server?"
        closed = Message(text, "ConnectionClosedWithHint")
        locked = "Failed to create/acquire the lock /r/lock.exclusive (timeout)."
        for line, id_, words in (
            ("Remote: ssh: connect to host 192.0.2.1 port 22: Connection refused", "", "can't be reached"),
            ("Remote: Host key verification failed.", "", "not the pinned one"),
            ("Remote: u@h: Permission denied (publickey).", "", "refuses this machine's SSH key"),
            ("OSError: [Errno 28] No space left on device", "", "disk is full"),
            (locked, "LockTimeout", "holds the repository's lock"),
        ):
            said = [Message(line, id_), closed]
            self.assertIn(words, meaning.explain(2, said))
            self.assertFalse(meaning.lacks_cause(2, said))
        self.assertIn("ended the connection", meaning.explain(2, [closed]))
        self.assertTrue(meaning.lacks_cause(81, [closed]))
        self.assertFalse(meaning.lacks_cause(0, []))
        self.assertEqual(meaning.explain(None, []), "borg ended with no exit code: no reason given")

    def test_a_reason_is_known_by_its_id_whatever_its_words(self):
        """The server's side gives some ids without the class around them."""
        for id_, words in (
            ("Cache.RepositoryReplay", "set back to an older state"),
            ("Cache.RepositoryAccessAborted", "not the repository that was backed up to before"),
            ("Cache.EncryptionMethodMismatch", "not the repository that was backed up to before"),
            ("Repository.DoesNotExist", "there is no borg repository"),
            ("Repository.InsufficientFreeSpaceError", "the backup server's disk is full"),
            ("InsufficientFreeSpaceError", "the backup server's disk is full"),
            ("PassphraseWrong", "the passphrase doesn't open the repository"),
        ):
            self.assertIn(words, meaning.explain(2, [Message("anderswo", id_)]))
        self.assertNotIn("no borg repository", meaning.explain(2, [Message("anderswo", "Archive.DoesNotExist")]))

    def test_a_lock_of_borgs_cache_is_not_told_as_the_repositorys(self):
        of_cache = Message("... the lock /var/lib/x/borg/.cache/borg/5a/lock.exclusive (timeout).", "LockTimeout")
        self.assertIn("another borg on this machine", meaning.explain(2, [of_cache]))


class Log(unittest.TestCase):
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/python3/dist-packages/borg/archiver.py", line 5401, in main\n'
        "    exit_code = archiver.run(args)\n"
        '  File "/usr/lib/python3/dist-packages/borg/cache.py", line 400, in open\n'
        "    raise Exception(text)\n"
        "Exception: /b/.cache/borg/5a does not look like a Borg cache.\n"
        "\n"
        "Platform: Linux cht 6.1.0 #1 SMP x86_64\n"
        "Linux: Debian GNU/Linux 12 bookworm\n"
        "Borg: 1.4.5  Python: CPython 3.11.2 msgpack: 1.2.1 fuse: None [None]\n"
        "PID: 77  CWD: /\n"
        "sys.argv: ['borg', 'create']\n"
        "SSH_ORIGINAL_COMMAND: None\n"
    )

    def test_of_a_traceback_the_exception_is_told_and_where_it_came_from(self):
        said = json_log.read_all("\n".join([logged("Local Exception", "Exception"), logged(self.traceback)]))
        self.assertEqual(json_log.texts(said), ["Exception: /b/.cache/borg/5a does not look like a Borg cache."])
        self.assertEqual(said[0].frames, ("archiver.py", "cache.py"))
        self.assertIn("does not look like", meaning.broken_cache(2, said) or "")

    def test_of_the_servers_traceback_only_the_exception_is_told(self):
        text = "Remote: " + self.traceback.replace("Exception: /b", "OSError: [Errno 28] No space left on device: /b")
        server = "Borg server: Platform: Linux server\nBorg server: Borg: 1.4.5\n" + self.traceback.partition("\n\n")[2]
        said = json_log.read_all("\n".join([logged(text, "OSError"), logged(server)]))
        self.assertEqual(len(said), 1)
        self.assertTrue(said[0].text.startswith("OSError: [Errno 28]"))
        self.assertEqual(said[0].id, "OSError")

    def test_what_is_only_information_is_passed_over_and_the_words_of_ssh_are_kept(self):
        said = json_log.read_all(
            "\n".join(
                [
                    logged("Synchronizing chunks cache...", level="INFO"),
                    json.dumps({"type": "progress_message", "message": "x", "msgid": "cache.commit"}),
                    logged("Remote: Host key verification failed.", level="WARNING", name="root"),
                    "borg: something before its log was set up",
                    "",
                    "7",
                ]
            )
        )
        self.assertEqual(
            json_log.texts(said),
            ["Remote: Host key verification failed.", "borg: something before its log was set up", "7"],
        )

    def test_an_id_is_kept(self):
        (said,) = json_log.read(logged("passphrase supplied ... is incorrect.", "PassphraseWrong"))
        self.assertEqual((said.id, said.kind), ("PassphraseWrong", "PassphraseWrong"))

    def test_how_far_an_extraction_is(self):
        line = {"type": "progress_percent", "msgid": "extract", "current": 7, "total": 9}
        self.assertEqual(json_log.done_so_far(json.dumps(line)), 7)
        for other in ({**line, "msgid": "check"}, {"finished": True}, []):
            self.assertIsNone(json_log.done_so_far(json.dumps(other)))
        self.assertIsNone(json_log.done_so_far("words"))


class ByHand(unittest.TestCase):
    """`python3 /opt/cht-backup/DEPLOYMENT/chtbackup borg list`."""

    settings = {
        "deployment": "lab", "chtHome": "/h", "composeProject": "cht", "couchdbData": [],
        "repository": "ssh://offsite/srv/r", "compression": "zstd", "chunker": "fixed,262144", "uploadRate": 0,
        "lockWait": 600, "checkpointInterval": 300,
    }  # fmt: skip

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.place = Path(scratch.name, "lab")
        (self.place / "borg/bin").mkdir(parents=True)
        self.settings_file = self.place / "settings.json"
        self.settings_file.write_text(json.dumps(self.settings))
        (self.place / "passphrase").write_text("right\n")

    def borg(self, script, *words, **changes):
        """Run the program with a borg that is a script. Returns how it ended."""
        borg = self.place / "borg/bin/borg"
        borg.write_text(f"#!/bin/sh\n{script}\n")
        borg.chmod(0o755)
        code = (
            "import sys; from unittest import mock; sys.path.insert(0, sys.argv[1])\n"
            "from chtbackup.base import programs; from chtbackup.borg import deployment, program\n"
            "place = sys.argv[2]; real = deployment.repository_of\n"
            "def at(settings):\n"
            "    found = real(settings); found.passphrase_file = place + '/passphrase'; return found\n"
            "read = program.read_settings\n"
            "program.repository_of = at\n"
            "program.read_settings = lambda path: print(path, file=sys.stderr) or read(place + '/settings.json')\n"
            "programs.PACKAGE = place + '/chtbackup'\n"
            "sys.argv = ['chtbackup borg', *sys.argv[3:]]\n"
            "sys.exit(program.main())\n"
        )
        return subprocess.run(
            [sys.executable, "-c", code, str(fixture.ROOT / "hosts"), str(self.place), *words],
            capture_output=True, text=True, timeout=60, env={**os.environ, **changes},
        )  # fmt: skip

    def test_is_borg_with_the_deployments_settings_and_its_words_output_and_exit_code_pass_through(self):
        done = self.borg('echo "$*"; echo "$BORG_REPO"; echo said >&2; exit 107', "list", "::lab-1")
        self.assertEqual(done.stdout.splitlines(), ["--lock-wait 600 list ::lab-1", "ssh://offsite/srv/r"])
        self.assertEqual(done.stderr.splitlines(), ["/etc/cht-backup/lab/settings.json", "said"])
        self.assertEqual(done.returncode, 107)

    def test_gives_borg_the_passphrase_in_a_pipe_and_nowhere_else(self):
        foreign = {"BORG_PASSPHRASE": "other", "BORG_REPO": "/nowhere", "BORG_PASSCOMMAND": "false"}
        script = 'echo "$0 $*"; env | grep ^BORG_; echo "passphrase: $(cat /dev/fd/$BORG_PASSPHRASE_FD)"'
        done = self.borg(script, "list", **foreign)
        *shown, last = done.stdout.splitlines()
        self.assertEqual(last, "passphrase: right")
        self.assertNotIn("right", "\n".join(shown))
        self.assertFalse([line for line in shown if line.startswith(("BORG_PASSPHRASE=", "BORG_PASSCOMMAND="))])
        self.assertIn("BORG_RSH=ssh -F /etc/cht-backup/lab/ssh_config", shown)
        self.assertIn("BORG_BASE_DIR=/var/lib/cht-backup/lab/borg", shown)
        self.assertIn("BORG_RELOCATED_REPO_ACCESS_IS_OK=no", shown)

    def test_without_a_passphrase_or_settings_is_refused_in_one_line(self):
        (self.place / "passphrase").unlink()
        done = self.borg("exit 0", "list")
        self.assertEqual(done.returncode, 2)
        self.assertIn("passphrase can't be read: No such file or directory", done.stderr.splitlines()[-1])
        with (
            mock.patch.object(programs, "PACKAGE", "/nowhere/none/chtbackup"),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            self.assertEqual(borg_program.main(["list"]), 2)
        self.assertIn("/etc/cht-backup/none/settings.json: can't be read as settings", said.getvalue())


if __name__ == "__main__":
    unittest.main()
