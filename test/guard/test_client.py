"""The CHT host's side with a real borg: how a backup gives borg its list, what it makes of borg's answers, and how it
gets over a cache that is lost or damaged. The repository is a directory here."""

import contextlib
import errno
import importlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hosts"))
sys.dont_write_bytecode = True
# Reads CouchDB's headers, which no test here does, and isn't in borg's environment.
sys.modules.setdefault("xxhash", types.ModuleType("xxhash"))

backup, store = (importlib.import_module(f"chtbackup.backup.{name}") for name in ("program", "store"))
meaning, idle, start, writer = (
    importlib.import_module(f"chtbackup.borg.{name}") for name in ("meaning", "idle", "start", "writer")
)

BORG = os.path.join(os.path.dirname(sys.executable), "borg")

SETTINGS = {
    "deployment": "lab",
    "chtHome": "/h",
    "composeProject": "cht",
    "couchdbData": [],
    "compression": "auto,zstd,3",
    "chunker": "fixed,4096",
    "uploadRate": 0,
    "lockWait": 2,
    "checkpointInterval": 300,
}


class WithBorg(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="cht-backup-client-")
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.source = self.folder / "source"
        self.source.mkdir()
        for number in range(5):
            (self.source / f"file{number}").write_bytes(random.randbytes(30_000))
        self.repository = str(self.folder / "repository")
        self.base = str(self.folder / "state/borg")
        (self.folder / "passphrase").write_text("right\n")
        path = f"{os.path.dirname(BORG)}:{os.environ['PATH']}"
        for patched in (
            mock.patch.object(writer, "STOP_TIMEOUT", 2),
            mock.patch.dict(os.environ, {"PATH": path}),
        ):
            patched.start()
            self.addCleanup(patched.stop)
        self.borg("init", "--encryption=repokey-blake2", self.repository)

    def borg(self, *words):
        own = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8"}
        return subprocess.run(
            [BORG, *words], check=True, capture_output=True, text=True,
            env={**own, "BORG_BASE_DIR": self.base, "BORG_PASSPHRASE": "right"},
        ).stdout  # fmt: skip

    def run_(self, number, **options):
        """A run that has collected its files, about to give them to borg."""
        made = backup.Backup({**SETTINGS, "repository": self.repository}, False)
        made.run.state = str(self.folder / "state")
        made.store.borg.repository.base_directory = self.base
        made.store.borg.repository.passphrase_file = str(self.folder / "passphrase")
        made.run.scratch = str(self.folder / "scratch")
        os.makedirs(made.run.scratch, exist_ok=True)
        made.run.archive = f"lab-{number}"
        contents = made.collection.contents
        contents.paths = [str(path) for path in sorted(self.source.iterdir())]
        contents.sizes = {path: os.stat(path).st_size for path in contents.paths}
        made.collection.places = {
            part: f"{made.run.scratch}/manifest-{part[8:].lower()}.json" for part in ("manifestBefore", "manifestAfter")
        }
        made.collection.collect = lambda: None
        made.description.before = lambda: {"part": "before"}
        made.description.after = options.get("manifest_after", lambda: {"part": "after"})
        return made

    def backup(self, number, **options):
        run = self.run_(number, **options)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            result = backup.attempt(run)
        self.said = said.getvalue()
        return result

    def archived(self, number):
        return self.borg("list", "--format", "{path}{NL}", f"{self.repository}::lab-{number}").splitlines()

    def archives(self):
        return self.borg("list", "--format", "{archive}{NL}", self.repository).split()


class AList(WithBorg):
    def test_is_stored_in_its_order_and_the_second_manifest_is_made_last_without_inotify(self):
        """As on a host whose Docker has taken all of inotify's instances."""
        store = self.folder / "repository/data"

        def stored():
            return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())

        seen = []

        def manifest_after():
            seen.append(stored())
            return {"part": "after"}

        large = self.source / "zlarge"
        large.write_bytes(random.randbytes(30_000_000))
        empty = stored()
        result = self.backup(1, manifest_after=manifest_after)
        self.assertEqual((result["exitCode"], result["problems"], result["files"]), (0, [], 8))
        names = [os.path.basename(path) for path in self.archived(1)]
        files = [f"file{number}" for number in range(5)]
        self.assertEqual(names, [*files, "zlarge", "manifest-before.json", "manifest-after.json"])
        self.assertGreater(seen[0] - empty, 20_000_000)  # borg had read it, and sent all but its last segment
        self.assertFalse(hasattr(store, "watch_opening"))

    def test_that_cant_be_given_ends_the_run_at_once_and_makes_no_archive(self):
        for error in (OSError(errno.EMFILE, "Too many open files"), ValueError("a fault")):
            with mock.patch.object(store, "unread", side_effect=error):
                result = self.backup(1)
            self.assertIn(result["exitCode"], (2, 70))
            self.assertIn(str(error.args[-1]), result["problems"][0])
            self.assertEqual(self.archives(), [])

    def test_that_ends_without_its_last_path_leads_borg_to_nothing_else(self):
        """The last path is begun before it can be ended: what there is of it must not be the root directory."""

        def fails():
            raise OSError(errno.ENOSPC, "No space left on device")

        result = self.backup(1, manifest_after=fails)
        self.assertEqual(result["exitCode"], 1)
        self.assertEqual(
            result["problems"],
            [
                "the manifest's second part can't be made: [Errno 28] No space left on device",
                "the archive holds 6 files instead of 7",
            ],
        )
        names = [os.path.basename(path) for path in self.archived(1)]
        self.assertEqual(names, [*(f"file{number}" for number in range(5)), "manifest-before.json"])

    def test_for_a_borg_that_does_nothing_isnt_kept_for_ever(self):
        self.backup(0)
        slow = self.folder / "bin/borg"
        slow.parent.mkdir()
        slow.write_text("#!/bin/sh\nexec sleep 600\n")
        slow.chmod(0o755)
        path = {"PATH": f"{slow.parent}:{os.environ['PATH']}"}
        with mock.patch.object(idle, "IDLE_LIMIT", 2), mock.patch.dict(os.environ, path):
            result = self.backup(1)
        self.assertEqual(result["exitCode"], 2)
        self.assertIn("borg and its ssh did nothing", result["problems"][0])

    def test_is_for_our_repository_whatever_another_borgs_environment_says(self):
        foreign = {"BORG_PASSPHRASE": "other", "BORG_REPO": "/nowhere", "BORG_LOGGING_CONF": "/nowhere"}
        with mock.patch.dict(os.environ, foreign):
            result = self.backup(1)
            self.assertEqual((result["exitCode"], result["problems"]), (0, []))
            self.assertTrue(start.borg_version())


class ALostCache(WithBorg):
    def damaged(self, change):
        cache = next(Path(self.base, ".cache/borg").glob("[0-9a-f]*"))
        change(cache)

    def test_is_made_anew_in_the_same_run_and_said(self):
        self.assertEqual(self.backup(1)["exitCode"], 0)
        security = Path(self.base, ".config/borg/security")
        kept = {path.name: path.read_text() for path in security.rglob("location")}
        changes = {
            "chunks lost": lambda cache: (cache / "chunks").unlink(),
            "chunks cut": lambda cache: os.truncate(cache / "chunks", 20_000),
            "chunks are something else": lambda cache: (cache / "chunks").write_bytes(random.randbytes(20_000)),
            "config empty": lambda cache: os.truncate(cache / "config", 0),
            "config is something else": lambda cache: (cache / "config").write_bytes(random.randbytes(2_000)),
            "files cut": lambda cache: [os.truncate(path, 100) for path in cache.glob("files*")],
            "all lost": shutil.rmtree,
        }
        for number, (what, change) in enumerate(changes.items(), 2):
            with self.subTest(what):
                self.damaged(change)
                result = self.backup(number)
                self.assertEqual((result["exitCode"], result["problems"]), (0, []))
                self.assertEqual(result["files"], 7)
                for note in result["notes"]:
                    self.assertNotIn("SSH_ORIGINAL_COMMAND", note)
        self.assertEqual({path.name: path.read_text() for path in security.rglob("location")}, kept)

    def test_is_told_in_the_words_of_the_exception(self):
        self.backup(1)
        self.damaged(lambda cache: os.truncate(cache / "config", 0))
        self.assertIn("does not look like a Borg cache", self.backup(2)["notes"][0])

    def test_whose_lock_is_taken_isnt_told_as_the_repositorys(self):
        self.backup(1)
        self.damaged(lambda cache: (cache / "lock.exclusive/other@1.1-1").parent.mkdir())
        self.damaged(lambda cache: (cache / "lock.exclusive/other@1.1-1").touch())
        result = self.backup(2)
        self.assertEqual(result["exitCode"], 2)
        self.assertTrue(result["problems"][0].startswith("another borg on this machine"), result["problems"])

    def test_keeps_what_protects_from_a_repository_that_was_set_back(self):
        self.backup(1)
        shutil.copytree(self.folder / "repository", self.folder / "older")
        self.backup(2)
        shutil.rmtree(self.folder / "repository")
        (self.folder / "older").rename(self.folder / "repository")
        cache = Path(self.base, ".cache/borg")
        before = sorted(path.name for path in cache.rglob("*"))
        result = self.backup(3)
        self.assertEqual(result["exitCode"], 2)
        self.assertIn("set back to an older state", result["problems"][0])
        self.assertEqual(sorted(path.name for path in cache.rglob("*")), before)

    def test_that_holds_the_counter_no_more_counts_on_beyond_all_it_used(self):
        self.backup(1)
        nonce = next(Path(self.base, ".config/borg/security").rglob("nonce"))
        for content in (b"", b"xxx\n"):
            used = meaning.first_counter(0)
            nonce.write_bytes(content)
            result = self.backup(f"counter-{len(content)}")
            self.assertEqual(result["exitCode"], 0, result)
            self.assertGreater(nonce.read_text(), used)


class AnArchive(WithBorg):
    def test_that_only_cant_be_looked_up_afterwards_is_told_as_made(self):
        for how in ("raise SystemExit(81)", "print('x')"):
            real = writer.Writer.start

            def once(client, action, *words, how=how, real=real, **options):
                if action != "list":
                    return real(client, action, *words, **options)
                client.child = subprocess.Popen(
                    [sys.executable, "-c", how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )

            name = f"after-{len(how)}"
            with mock.patch.object(store, "LOOK_UP_PAUSE", 0), mock.patch.object(writer.Writer, "start", once):
                result = self.backup(name)
            self.assertEqual((result["ok"], result["archive"], result["exitCode"]), (True, f"lab-{name}", 0))
            self.assertRegex(result["archiveId"], "^[0-9a-f]{64}$")
            self.assertIn("couldn't be looked up afterwards", result["notes"][0])

    def test_that_was_made_is_told_when_the_program_fails_after_it(self):
        with mock.patch.object(store.Store, "among", side_effect=TypeError("a fault")):
            result = self.backup(1)
        self.assertEqual((result["archive"], result["ok"], result["exitCode"]), ("lab-1", False, 70))
        self.assertIn("a fault of the backup program itself: TypeError: a fault", result["problems"])


if __name__ == "__main__":
    unittest.main()
