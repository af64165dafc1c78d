import base64
import configparser
import contextlib
import io
import os
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import borg_repository_config as program
import fixture  # noqa: F401  (puts the scripts on the path)

ID = "5a" * 32
KEY = base64.b64encode(bytes(range(150))).decode()
OTHER = base64.b64encode(bytes(150)).decode()


def lines(key):
    return "\n\t".join(key[at : at + 70] for at in range(0, len(key), 70))


# As borg 1.4.5 writes it at `init`, but for the id and the key.
BEFORE = (
    "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 0\n"
    f"storage_quota = 0\nadditional_free_space = 0\nid = {ID}\nkey = {lines(KEY)}\n\n"
)
AFTER = BEFORE.replace("append_only = 0", "append_only = 1").replace("free_space = 0", "free_space = 500M")


class Repository(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="cht-backup-test-")
        self.addCleanup(scratch.cleanup)
        self.path = Path(scratch.name) / "repository"
        (self.path / "data").mkdir(parents=True)
        self.config = self.path / "config"
        self.config.write_text(BEFORE)
        self.config.chmod(0o600)

    def configure(self, key=""):
        """As the shell function does it: the program as an argument, the key on standard input."""
        text = Path(program.__file__).read_text()
        return subprocess.run(
            [sys.executable, "-I", "-c", text, str(self.path), ID, "500M"],
            input=key,
            capture_output=True,
            text=True,
        )

    def configured(self, key=""):
        done = self.configure(key)
        self.assertEqual((done.returncode, done.stderr, done.stdout), (0, "", ""))
        self.assertEqual(sorted(os.listdir(self.path)), ["config", "data"])
        return self.config.read_text()

    def refused(self, key=""):
        before = self.config.read_bytes()
        done = self.configure(key)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.config.read_bytes(), before, "something was changed")
        self.assertEqual(len(done.stderr.splitlines()), 1)
        return done.stderr


class Whole(Repository):
    def test_gets_its_flags_and_keeps_the_rest(self):
        self.assertEqual(self.configured(), AFTER)

    def test_gets_another_key_in_borgs_lines(self):
        self.assertEqual(self.configured(OTHER), AFTER.replace(lines(KEY), lines(OTHER)))

    def test_keeps_what_an_administrator_chose(self):
        self.config.write_text(
            BEFORE.replace("524288000", "100M")
            .replace("= 1000", "= 500")
            .replace("storage_quota = 0", "storage_quota = 2T")
            .replace(f"id = {ID}\n", f"id = {ID}\nlast_segment_checked = 17\n")
        )
        after = self.configured()
        for line in ("max_segment_size = 100M", "segments_per_dir = 500", "storage_quota = 2T"):
            self.assertIn(f"\n{line}\n", after)
        self.assertIn("\nlast_segment_checked = 17\n", after)

    def test_is_left_alone_when_it_is_right(self):
        self.config.write_text(AFTER)
        before = os.stat(self.config)
        self.assertEqual(self.configured(KEY), AFTER)
        self.assertEqual(os.stat(self.config).st_ino, before.st_ino)

    def test_is_never_seen_half_written(self):
        opened = open(self.config)
        self.addCleanup(opened.close)
        self.configured(OTHER)
        self.assertEqual(opened.read(), BEFORE, "the file that a session has open was written over")

    def test_what_a_killed_run_left_is_no_hindrance(self):
        (self.path / "config.new").write_text("half")
        self.assertEqual(self.configured(), AFTER)

    def test_keeps_owner_and_mode_where_it_isnt_sealed(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        os.chown(self.config, 12345, 12346)
        self.configured(OTHER)
        of = os.stat(self.config)
        self.assertEqual((of.st_uid, of.st_gid, stat.S_IMODE(of.st_mode)), (12345, 12346, 0o600))

    def test_stays_roots_and_readable_to_the_account_where_it_is_sealed(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        os.chown(self.path, 0, 12346)
        self.config.chmod(0o600)
        for damage in (BEFORE, None):
            if damage is None:
                self.config.unlink()
            self.configured(OTHER)
            of = os.stat(self.config)
            self.assertEqual((of.st_uid, of.st_gid, stat.S_IMODE(of.st_mode)), (0, 12346, 0o640))


class Damaged(Repository):
    def built(self, text, **expected):
        """What is built from the pieces when the stack gives the key."""
        self.config.write_bytes(text if isinstance(text, bytes) else text.encode())
        after = self.configured(OTHER)
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(after)
        values = dict(parser["repository"])
        self.assertEqual(values.pop("key").replace("\n", ""), OTHER)
        self.assertEqual(
            values,
            {
                "version": "1",
                "segments_per_dir": "1000",
                "max_segment_size": "524288000",
                "append_only": "1",
                "storage_quota": "0",
                "additional_free_space": "500M",
                "id": ID,
                **expected,
            },
        )

    def test_by_a_carriage_return_in_the_key_is_mended_and_nothing_comes_in_with_it(self):
        head = BEFORE[: BEFORE.index("key = ")]
        self.built(f"{head}key = x\rid = {'00' * 32}\n\n")
        self.built(f"{head}key = x\rstorage_quota = 1\rsegments_per_dir = 7\n\n")

    def test_by_being_cut_off_anywhere_is_mended(self):
        for at in range(0, len(BEFORE), 17):
            with self.subTest(at=at):
                self.built(BEFORE[:at])

    def test_by_another_program_is_mended(self):
        for text in (
            "",
            "\0" * 700,
            b"\xff\xfe" * 300,
            "[other]\n",
            BEFORE.replace("[repository]\n", ""),
            "id = \n",
        ):
            with self.subTest(text=text[:20]):
                self.built(text)

    def test_with_settings_that_borg_doesnt_read_gets_borgs_own(self):
        self.built(BEFORE.replace("= 1000", "= many").replace("524288000", "-1").replace("quota = 0", "quota = full"))

    def test_by_saying_things_twice_keeps_the_first(self):
        self.built(BEFORE.replace("append_only = 0", "append_only = 0\nsegments_per_dir = 7"))

    def test_that_is_lost_or_no_file_is_built(self):
        self.config.unlink()
        after = self.configured(OTHER)
        self.assertEqual(after, AFTER.replace(lines(KEY), lines(OTHER)))
        elsewhere = self.path.parent / "elsewhere"
        elsewhere.write_text(BEFORE)
        self.config.unlink()
        self.config.symlink_to(elsewhere)
        self.configured(OTHER)
        self.assertFalse(self.config.is_symlink())
        self.assertEqual(elsewhere.read_text(), BEFORE, "a link was followed")
        self.config.unlink()
        os.mkfifo(self.config)
        self.configured(OTHER)


class Refused(Repository):
    def test_another_repository(self):
        self.config.write_text(BEFORE.replace(ID, "b6" * 32))
        self.assertIn("it is another repository now: b6b6b6b6b6b6b6b6…", self.refused(KEY))

    def test_a_format_that_isnt_known(self):
        self.config.write_text(BEFORE.replace("version = 1", "version = 3"))
        self.assertIn("its format is 3", self.refused(KEY))

    def test_no_key_at_all_or_none_that_could_be_one(self):
        for key in ("AAAA", "no key", "x\rid = 00", "A" * 30000):
            self.assertIn("its key is missing or damaged", self.refused(key))
        self.config.write_text(BEFORE[: BEFORE.index("key = ")])
        self.assertIn("its key is missing or damaged", self.refused())

    def test_a_directory_without_a_repository(self):
        with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stderr(io.StringIO()) as words:
            with mock.patch("sys.stdin", io.StringIO(KEY)):
                self.assertEqual(program.main(empty, ID, "500M"), 1)
            self.assertIn("can't be written", words.getvalue())
            self.assertEqual(os.listdir(empty), [])

    def test_no_error_holds_a_key(self):
        self.config.write_text(BEFORE.replace(ID, "b6" * 32))
        self.assertNotIn(OTHER[:20], self.refused(OTHER))


if __name__ == "__main__":
    unittest.main()
