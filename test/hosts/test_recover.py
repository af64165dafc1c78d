"""What the program for a recovery with nothing but the paper decides. With borg and a bucket: test/bucket; with a
server: test/e2e/recovery-kit.test.ts."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401  (puts the package on the path)

from chtbackup.base import pack, programs
from chtbackup.recover import access, archives, key, paper, program

ID = "5a" * 32
LINE = "hqlhbGdvcml0aG2mc2hhMjU2pGRhdGHaAZ7l3sPnTp6NDo8YlWq1vJ4pR9xkXo0aBcDeF/"
KEY = f"BORG_KEY {ID}\n{LINE}\n{LINE}\n9hXQCSndmVyc2lvbgE=\n"
FACTS = [
    "cht-backup recovery kit 1",
    "deployment prod",
    "server 10.0.0.2 2222 cht-backup-prod",
    "host-key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII8nyxMn8svM1ThCPAgYniADvs7y5zvM1uSd7V2YtxyT",
    "repository /mnt/backup/prod/repository",
    f"id {ID}",
    f"earlier-id {'b6' * 32}",
    "bucket moh-copy us-east-1 path https://s3.example.org prod/",
    "reader READER r3ad/er+secret=",
    "passphrase it's a <b>*pass* `phrase` ",
]
TEXT = "\n".join([*FACTS, f"check {paper.check_of(FACTS)}", ""])


def no_terminal(name):
    raise AssertionError(f"{name} is asked for")


class OneFile(unittest.TestCase):
    """The package as `recover.pyz`."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.file = self.folder / "recover.pyz"
        self.file.write_bytes(pack.program().content)

    def run_file(self, *words, where=""):
        return subprocess.run(
            [sys.executable, "-I", f"{self.file}{where}", *words], capture_output=True, text=True, cwd=self.folder
        )

    def test_is_the_same_bytes_wherever_and_whenever_it_is_made(self):
        other = self.folder / "other"
        shutil.copytree(programs.PACKAGE, other, ignore=shutil.ignore_patterns("__pycache__"))
        for path in other.rglob("*"):
            os.chmod(path, 0o700)
            os.utime(path, (0, 0))
        (other / "base" / "__pycache__").mkdir()
        (other / "base" / "__pycache__" / "text.pyc").write_bytes(b"x")
        self.assertEqual(pack.program(str(other)), pack.program())
        (other / "base" / "text.py").write_text("# another\n")
        self.assertNotEqual(pack.program(str(other)).name, pack.program().name)

    def test_is_a_zip_that_others_read_with_each_file_as_it_is(self):
        with zipfile.ZipFile(self.file) as archive:
            self.assertIsNone(archive.testzip())
            found = {of.filename: archive.read(of) for of in archive.infolist()}
            modes = {of.external_attr >> 16 for of in archive.infolist()}
        self.assertEqual(modes, {0o100644})
        self.assertEqual(found.pop("__main__.py"), found["chtbackup/recover/__main__.py"])
        self.assertEqual(found, {f"chtbackup/{path}": of for path, of in pack.sources().items()})

    def test_says_the_steps_without_a_word_more_and_leaves_nothing(self):
        done = self.run_file()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for word in ("/run/kit", "RECOVER list", "RECOVER restore", "RECOVER tidy", "--from bucket"):
            self.assertIn(word, done.stdout)
        self.assertEqual(os.listdir(self.folder), ["recover.pyz"])

    def test_has_help_for_each_step(self):
        for words in (["--help"], ["list", "--help"], ["restore", "--help"], ["key", "--help"], ["tidy", "--help"]):
            self.assertEqual(self.run_file(*words).returncode, 0, words)
        self.assertEqual(self.run_file("lst").returncode, 2)

    def test_starts_its_own_programs_from_inside(self):
        """As `restore` starts `confined`, which keeps borg to its directories."""
        place = {"PACKAGE": f"{self.file}/chtbackup"}
        with mock.patch.multiple(programs, **place):
            command = programs.command("restore")
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd="/")
        self.assertEqual(done.returncode, 0, done.stderr)
        inside = self.run_file("seal", "--help", where="/chtbackup")
        self.assertEqual(inside.returncode, 0, inside.stderr)
        said = "import sys; sys.path[0] = sys.argv[1]; from chtbackup.base import programs; print(programs.PACKAGE)"
        where = subprocess.run([sys.executable, "-c", said, self.file], capture_output=True, text=True)
        self.assertEqual(where.stdout, f"{self.file}/chtbackup\n", where.stderr)

    def test_needs_nothing_but_the_standard_library_to_begin(self):
        """A machine that lacks a package of the distribution is told which."""
        done = subprocess.run(
            [sys.executable, "-I", "-S", self.file, "list", "--help"], capture_output=True, text=True, cwd="/"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        with (
            mock.patch("shutil.which", return_value=None),
            mock.patch("importlib.util.find_spec", return_value=None),
            self.assertRaisesRegex(archives.Refused, "first: apt-get install borgbackup python3-xxhash python3-b"),
        ):
            archives.require_programs("bucket")


class ThePaper(unittest.TestCase):
    def test_is_read_as_it_is_printed(self):
        known = paper.read(TEXT)
        for line in FACTS[1:]:
            name, _, value = line.partition(" ")
            self.assertEqual(known.earlier if name == "earlier-id" else known.of(name, no_terminal),
                             ["b6" * 32] if name == "earlier-id" else value)  # fmt: skip

    def test_is_read_however_it_was_typed_or_scanned(self):
        for text in (
            TEXT.replace("\n", "\r\n"),
            TEXT.replace("\n", "\n\n"),
            TEXT.rstrip("\n"),
            TEXT.replace("2222 cht-backup-prod", "2222 cht-backup-prod  ").replace("deployment", " deployment"),
            "\n".join([*FACTS, f"CHECK {paper.check_of(FACTS)}".lower()]),
        ):
            self.assertEqual(paper.read(text), paper.read(TEXT))

    def test_names_the_line_with_a_wrong_letter_and_no_secret(self):
        for number, line in enumerate(FACTS, 1):
            name = line.split(" ")[0]
            if number == 1:
                continue
            # A letter that leaves the form as it is.
            wrong = line[:-2] + ("1" if line[-2] != "1" else "2") + line[-1]
            with self.assertRaises(paper.Mistyped) as raised:
                paper.read(TEXT.replace(line, wrong))
            self.assertIn(f"line {number} (`{name}`)", str(raised.exception))
            for secret in ("r3ad", "*pass*"):
                self.assertNotIn(secret, str(raised.exception))

    def test_names_what_cannot_be_right(self):
        for text, reason in (
            (TEXT.replace(f"id {ID}", f"id {ID[:-1]}"), r"line 6 \(`id`\) can't be right; it must be 64 hexadecimal"),
            (TEXT.replace("deployment prod\n", ""), "line 2 .* isn't what the page has"),
            ("deployment prod\nfoo bar\n", r"line 2 \(`foo`\) begins as no line of the page does; known are"),
            ("deployment prod\ndeployment test\n", "line 2 .* is there twice"),
            (f"{TEXT}deployment prod\n", "comes after `check`"),
            (f"deployment prod\ncheck {paper.check_of(FACTS[1:3])}\n", "these are 1 lines, the check is of 2"),
        ):
            with self.assertRaisesRegex(paper.Mistyped, reason):
                paper.read(text)

    def test_lacks_what_is_asked_for_then(self):
        known = paper.read("deployment prod\n")
        self.assertEqual(known.of("passphrase", lambda name: f"typed {name}"), "typed passphrase")
        self.assertEqual(known.of("passphrase", no_terminal), "typed passphrase")
        with self.assertRaisesRegex(paper.Mistyped, "^the line `id` can't be right"):
            known.of("id", lambda name: "5a")

    def test_secrets_are_asked_for_without_an_echo_and_others_with_their_meaning(self):
        with mock.patch("getpass.getpass", return_value="secret") as hidden, mock.patch("builtins.input") as shown:
            self.assertEqual(archives.ask("passphrase"), "secret")
            archives.ask("reader")
            self.assertEqual((hidden.call_count, shown.call_count), (2, 0))
            archives.ask("id")
            self.assertIn("64 hexadecimal digits", shown.call_args[0][0])
        with mock.patch("builtins.input", side_effect=EOFError), self.assertRaisesRegex(archives.Refused, "`id`"):
            archives.ask("id")

    def test_knows_the_bucket(self):
        place = paper.read(TEXT).bucket(no_terminal, "2026-11-21T23:59:59Z")
        self.assertEqual(place["repositories"], [ID, "b6" * 32])
        self.assertEqual((place["endpoint"], place["pathStyle"], place["prefix"]),
                         ("https://s3.example.org", True, "prod/"))  # fmt: skip
        self.assertEqual((place["accessKeyId"], place["secretAccessKey"]), ("READER", "r3ad/er+secret="))
        aws = paper.read(f"bucket moh eu-west-1 auto AWS\nid {ID}\nreader A b").bucket(no_terminal, None)
        self.assertEqual((aws["endpoint"], aws["pathStyle"], aws["prefix"]), (None, False, ""))

    def test_in_a_file_that_others_may_read_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "kit")
            path.write_text(TEXT)
            path.chmod(0o644)
            with self.assertRaisesRegex(archives.Refused, f"others may read it: chmod 600 {path}"):
                archives.read_kit(str(path))
            path.chmod(0o600)
            self.assertEqual(archives.read_kit(str(path)), paper.read(TEXT))
            with self.assertRaisesRegex(archives.Refused, "there is no file"):
                archives.read_kit(f"{path}s")


class TheKey(unittest.TestCase):
    head = f"[repository]\nversion = 1\nappend_only = 1\nid = {ID}\n"

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.config = Path(scratch.name, "config")
        self.right = self.head + "key = " + "\n\t".join(KEY.split("\n")[1:-1]) + "\n"

    def put(self, text, wanted=None):
        key.put(str(self.config.parent), text, wanted or key.sum_of(KEY))

    def test_is_put_back_whatever_became_of_it(self):
        for damage in ("", "\n", f"key = {LINE}\n\t{LINE}\n\n", "key = x\rid = 00\n\n"):
            self.config.write_text(self.head + damage)
            self.config.chmod(0o640)
            self.put(KEY.replace("\n", " \r\n\n"))
            self.assertEqual(self.config.read_text(), self.right)
            self.assertEqual(self.config.stat().st_mode & 0o777, 0o640)
        self.assertEqual(os.listdir(self.config.parent), ["config"])

    def test_is_told_when_a_letter_is_wrong_and_nothing_changes(self):
        self.config.write_text(self.head)
        for text in (KEY.replace("A", "B"), KEY.replace(f"{LINE}\n", "", 1), "", f"BORG_KEY {ID}\n"):
            with self.assertRaisesRegex(key.WrongKey, "^this is not the key of the page"):
                self.put(text)
        self.assertEqual(self.config.read_text(), self.head)

    def test_goes_into_no_other_repository_and_through_no_link(self):
        self.config.write_text(self.head.replace("5a", "b6"))
        with self.assertRaisesRegex(key.WrongKey, "^this is another repository than the key's"):
            self.put(KEY)
        self.config.write_text("nothing")
        with self.assertRaisesRegex(key.WrongKey, "no id that can be read"):
            self.put(KEY)
        self.config.rename(self.config.with_name("other"))
        self.config.symlink_to(self.config.with_name("other"))
        with self.assertRaises(OSError):
            self.put(KEY)
        self.assertEqual(self.config.with_name("other").read_text(), "nothing")

    def test_is_read_from_standard_input(self):
        self.config.write_text(self.head)
        words = ["key", str(self.config.parent), key.sum_of(KEY)]
        with mock.patch("sys.stdin", io.StringIO(KEY)), contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(program.main(words), 0)
        self.assertIn("has its key again", said.getvalue())
        self.assertNotIn(LINE, said.getvalue())
        with mock.patch("sys.stdin", io.StringIO("x")), contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(program.main(words), 2)
        self.assertIn("not the key of the page", said.getvalue())


class TheWayToTheServer(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name, "a folder")
        self.repository = f"{self.folder}/repository"
        self.keys = self.folder / ".ssh" / "authorized_keys"

    def run_line(self, line):
        done = subprocess.run(["sh", "-c", f"umask 077; {line}"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_lets_the_new_machine_do_what_the_cht_machine_may_and_nothing_else_for_a_week(self):
        for blob in ("AAAAold", "AAAAnew"):
            self.run_line(access.let_in(self.repository, f"ssh-ed25519 {blob} cht-recovery"))
        serve = f"/usr/bin/borg serve --append-only --restrict-to-repository {self.repository}"
        line = rf'restrict,expiry-time="(\d{{8}})",command="{serve}" ssh-ed25519 AAAAnew cht-recovery\n'
        self.assertRegex(self.keys.read_text(), f"^{line}$")
        until = time.strftime("%Y%m%d", time.localtime(time.time() + access.KEPT * 86400))
        self.assertIn(f'expiry-time="{until}"', self.keys.read_text())
        # The account must read it, and nobody but root change it.
        self.assertEqual(self.keys.stat().st_mode & 0o777, 0o644)
        self.assertEqual(self.keys.parent.stat().st_mode & 0o777, 0o755)

    def test_leaves_the_cht_machines_key_and_goes_again(self):
        self.keys.parent.mkdir(parents=True)
        other = 'restrict,command="x" ssh-ed25519 AAAAcht cht-backup-prod\n'
        self.keys.write_text(other)
        self.run_line(access.let_in(self.repository, "ssh-ed25519 AAAAnew cht-recovery"))
        self.assertTrue(self.keys.read_text().startswith(other))
        self.run_line(access.shut_out(self.repository))
        self.assertEqual(self.keys.read_text(), other)

    def test_knows_the_server_by_its_host_key_alone_and_keeps_its_own_key(self):
        self.folder = self.folder.with_name("notes")
        host_key = FACTS[3].partition(" ")[2]
        place = access.place("10.0.0.2 2222 cht-backup-prod", None)
        config = access.prepare(str(self.folder), place, host_key)
        private = (self.folder / "ssh_key").read_text()
        again = access.place("10.0.0.2 2222 cht-backup-prod", "backup.example.org")
        self.assertEqual(access.prepare(str(self.folder), again, host_key), config)
        self.assertEqual((self.folder / "ssh_key").read_text(), private)
        self.assertEqual((self.folder / "ssh_key").stat().st_mode & 0o077, 0)
        self.assertEqual((self.folder / "known_hosts").read_text(), f"offsite {host_key}\n")
        asked = subprocess.run(["ssh", "-G", "-F", config, "offsite"], capture_output=True, text=True)
        for line in ("hostname backup.example.org", "port 2222", "user cht-backup-prod", "batchmode yes",
                     "stricthostkeychecking true", "identitiesonly yes"):  # fmt: skip
            self.assertIn(f"{line}\n", asked.stdout)

    def test_may_be_another_from_here(self):
        for elsewhere, expected in (
            (None, ("10.0.0.2", "2222")),
            ("b.example.org", ("b.example.org", "2222")),
            ("b.example.org:22", ("b.example.org", "22")),
            ("2001:db8::1", ("2001:db8::1", "2222")),
        ):
            self.assertEqual(access.place("10.0.0.2 2222 user", elsewhere)[:2], expected)
        for wrong in ("-oProxyCommand=x", "a b", "", "host:ssh"):
            with self.assertRaisesRegex(paper.Mistyped, "is no ADDRESS or ADDRESS:PORT"):
                access.place("10.0.0.2 2222 user", wrong)

    def refused(self, said):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "ssh_key.pub").write_text("ssh-ed25519 AAAAnew cht-recovery\n")
        done = mock.Mock(returncode=255, stderr=said)
        with mock.patch("subprocess.run", return_value=done), self.assertRaises(access.NoWayIn) as raised:
            access.try_out(f"{self.folder}/ssh_config", "/mnt/backup/prod/repository")
        return str(raised.exception)

    def test_is_told_with_what_would_be_right(self):
        denied = self.refused("user@10.0.0.2: Permission denied (publickey).\n")
        self.assertIn(access.let_in("/mnt/backup/prod/repository", "ssh-ed25519 AAAAnew cht-recovery"),
                      denied.split("\n"))  # fmt: skip
        for said, hint in (
            ("Host key verification failed.", "isn't the one that the page was made for"),
            ("ssh: Could not resolve hostname x", "--server ADDRESS"),
            ("connect to host x port 22: Connection timed out", "--server ADDRESS:PORT"),
            ("connect to host x port 22: Connection refused", "--server ADDRESS:PORT"),
            ("kex: Connection closed by remote host", "wait five minutes"),
            ("", "ssh said nothing"),
        ):
            self.assertIn(hint, self.refused(said))


class TheList(unittest.TestCase):
    def test_tells_finished_archives_from_those_that_nobody_must_use(self):
        finished = {"name": "prod-2026-11-21T02:00:05Z", "finished": True, "size": 2_100_000, "problems": []}
        for archive, lines in (
            ({**finished, "documents": {"medic": 1419, "users": 3}},
             ["prod-2026-11-21T02:00:05Z  1,422 documents, 2.1 MB"]),
            ({**finished, "documents": {}, "problems": ["no certificate"]},
             ["prod-2026-11-21T02:00:05Z  0 documents, 2.1 MB", "    incomplete: no certificate"]),
            ({**finished, "byHand": True}, ["prod-2026-11-21T02:00:05Z  2.1 MB, made by hand: nothing proves that it is"
                                            " whole; restored only by its name"]),
            ({"name": "x", "finished": False}, ["x  unfinished, don't use it"]),
            ({"name": "x", "finished": False, "damaged": "why"}, ["x  don't use it: why"]),
            ({"name": "x", "finished": False, "unreadable": "why"}, ["x  don't use it: why"]),
        ):  # fmt: skip
            self.assertEqual(archives.lines_of(archive), lines)

    def test_takes_a_day_for_its_end_in_utc(self):
        self.assertEqual(archives.time_of("2026-11-21", "--as-of"), "2026-11-21T23:59:59Z")
        self.assertEqual(archives.time_of("2026-11-21T14:00:00Z", "--as-of"), "2026-11-21T14:00:00Z")
        for wrong in ("yesterday", "2026-11-21T14:00", "2026-11-21 14:00:00Z"):
            with self.assertRaisesRegex(archives.Refused, "such as 2026-11-21 or"):
                archives.time_of(wrong, "--as-of")


class WhatItStarts(unittest.TestCase):
    def test_gets_the_request_by_a_pipe_and_ends_with_a_signal_to_this_one(self):
        script = (
            "import json, os, signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
            "request = json.loads(sys.stdin.readline())\n"
            "secret = request['passphrase'].encode()\n"
            "for name in ('cmdline', 'environ'): assert secret not in open(f'/proc/self/{name}', 'rb').read()\n"
            "print(request['what'], flush=True)\n"
            "os.kill(os.getppid(), signal.SIGTERM) if request['what'] == 'stop' else sys.exit(7)\n"
            "while True: time.sleep(0.05)\n"
        )
        before = signal.getsignal(signal.SIGTERM)
        with mock.patch.object(programs, "command", return_value=[sys.executable, "-c", script]):
            for what, code in (("go", 7), ("stop", 143)):
                request = {"passphrase": "correct horse", "what": what}
                self.assertEqual(archives.perform("list", request, "/x", take=True), (code, f"{what}\n"))
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)

    def test_is_not_begun_by_another_than_root(self):
        with mock.patch("os.getuid", return_value=1000), contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(program.main(["list"]), 2)
        self.assertEqual(said.getvalue(), "run it as root (sudo -i)\n")


if __name__ == "__main__":
    unittest.main()
