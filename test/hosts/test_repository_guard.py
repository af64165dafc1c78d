"""What guard.py, seal.py, audit.py and segment_log.py decide, without borg. With borg: test/guard."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture

from chtbackup.base import pack
from chtbackup.repository import files, findings, ledger, recover_program, seal, seals, segment_log
from chtbackup.repository import transactions as transaction_log
from chtbackup.repository.segment_log import COMMIT, DELETE, MANIFEST, PUT, Damaged, Entry

# The guard takes all variables from its own process, so it is loaded where that does no harm.
with mock.patch.dict(os.environ):
    from chtbackup.repository import guard

NOW = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, 0))
A, B, C = (letter.encode() * 32 for letter in "abc")


class WhatTheGuardLets(unittest.TestCase):
    def test_work_is_a_borg_that_it_was_tried_with(self):
        for version in guard.VERSIONS:
            self.assertIsNone(guard.wrong_version(version))
        for version in ("1.2.4", "1.2.7", "1.4.6", "1.4", "2.0.0", "1.4.0+dirty", ""):
            self.assertIn(f"borg {version} isn't known", guard.wrong_version(version))
        self.assertIn("isn't installed", guard.wrong_version(None))

    def test_work_is_a_borg_with_the_calls_that_were_looked_at(self):
        known = (*guard.CALLS, *guard.REFUSED)
        self.assertIsNone(guard.wrong_calls(known))
        self.assertIn("put_many", guard.wrong_calls((*known, "put_many")))
        self.assertIn("destroy", guard.wrong_calls(tuple(name for name in known if name != "destroy")))
        self.assertEqual(guard.CALLS.keys() & guard.REFUSED.keys(), set())

    def test_be_reserved_lies_above_the_counter_and_not_far(self):
        def wrong(free, following):
            return guard.wrong_reservation(free, following, NOW)

        today = int(NOW) * guard.BLOCKS_PER_SECOND
        self.assertIsNone(wrong(None, 1))
        self.assertIsNone(wrong(0, 1 << 28))
        self.assertIsNone(wrong(None, today + (1 << 28)))
        self.assertIsNone(wrong(today * 2, today * 2 + guard.MAX_RESERVATION))
        for free, following in ((5, 5), (5, 4), (5, -1), (None, 0), (5, True), (5, 6.0), (5, None), (5, "6")):
            self.assertIn("above the counter", wrong(free, following))
        for free, following in (
            (None, 2**64 - 1),
            (0, today * 2),
            (today * 2, today * 2 + guard.MAX_RESERVATION + 1),
        ):
            self.assertIn("too large", wrong(free, following))

    def test_commit_is_a_client_with_fewer_transactions_in_the_last_day(self):
        def line(number, ago):
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW - ago))
            return f"transaction {number}, UTC time {moment}.123456\n"

        old = "".join(line(number, 90_000) for number in range(50))
        new = "".join(line(number, 3600) for number in range(50, 53))
        self.assertFalse(guard.too_many_commits("", 1, NOW))
        self.assertFalse(guard.too_many_commits(old, 1, NOW))
        self.assertFalse(guard.too_many_commits(old + new, 4, NOW))
        self.assertTrue(guard.too_many_commits(old + new, 3, NOW))
        # The beginning of what was read may be half a line.
        self.assertTrue(guard.too_many_commits((old + new)[-170:], 2, NOW))

    def test_be_a_key_is_base64_in_lines(self):
        for key in (b"QUJD", b"QUJD\nQUJD\n", b"a" * guard.MAX_KEY):
            self.assertTrue(guard.is_key(key))
        for key in (b"", b"\n", b"QUJD\r\n", b"QU JD", b"x\nid = 5", b"[a]", b"a" * (guard.MAX_KEY + 1),
                    b"QUJD\n\n", "QUJD", None, b"QUJD\x85", b"\xff"):  # fmt: skip
            self.assertFalse(guard.is_key(key), key)

    def test_be_read_is_the_end_of_a_file(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            self.assertEqual(guard.tail(file.name, 4), "6789")
            self.assertEqual(guard.tail(file.name, 40), "0123456789")
        self.assertEqual(guard.tail("/nowhere", 4), "")

    def test_a_missing_borg_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            command = [f"{folder}/bin/python", "-I", str(fixture.ROOT / "hosts" / "chtbackup"), "guard", "--check"]
            done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("borg isn't installed", done.stderr)


def segment(*entries, magic=segment_log.MAGIC):
    """A segment's bytes: entries are (tag, id, data)."""
    parts = [magic]
    for tag, id, data in entries:
        body = id + data
        parts.append(struct.pack("<IIB", 0, 9 + len(body), tag) + body)
    return b"".join(parts)


class ASegment(unittest.TestCase):
    def write(self, content):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "1")
        path.write_bytes(content)
        return str(path)

    def test_is_read_entry_by_entry(self):
        path = self.write(segment((PUT, A, b"x" * 500), (DELETE, B, b""), (COMMIT, b"", b"")))
        found = list(segment_log.entries(path))
        self.assertEqual([(of.tag, of.id) for of in found], [(PUT, A), (DELETE, B), (COMMIT, b"")])
        self.assertTrue(segment_log.is_committed(path))

    def test_is_finished_by_its_last_entry_alone(self):
        self.assertFalse(segment_log.is_committed(self.write(segment((COMMIT, b"", b""), (PUT, A, b"x")))))
        self.assertFalse(segment_log.is_committed(self.write(segment())))
        self.assertFalse(segment_log.is_committed(self.write(b"")))
        self.assertFalse(segment_log.is_committed("/nowhere"))

    def test_that_is_none_is_told(self):
        whole = segment((PUT, A, b"x" * 50), (COMMIT, b"", b""))
        contents = (b"", b"BORG", segment(magic=b"BORG_XXX"), whole[:-1], whole[:30],
                    whole + b"\0",
                        segment((PUT, b"short", b"")), segment((9, A, b"")),
                    segment((COMMIT, b"", b""))[:-9] + b"\0" * 9)  # fmt: skip
        for content in contents:
            with self.assertRaises(Damaged):
                list(segment_log.entries(self.write(content)))

    def test_that_is_a_link_is_not_followed(self):
        path = self.write(segment((COMMIT, b"", b"")))
        os.symlink(path, f"{path}-link")
        self.assertRaises(OSError, list, segment_log.entries(f"{path}-link"))

    def test_has_its_place_by_its_number(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("data/0/9", "data/0/10", "data/1/1000", "data/x/5", "data/0/tmp"):
                Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, name).touch()
            self.assertEqual(list(segment_log.segments(folder)), [9, 10, 1000])
            self.assertIsNone(segment_log.newest_index(folder))
            for name, content in (
                ("index.7", "x"),
                ("index.12", "x"),
                ("index.13", ""),
                ("index.x", "x"),
                ("hints.20", "x"),
            ):
                Path(folder, name).write_text(content)
            self.assertEqual(segment_log.newest_index(folder), 12)


class WhatTheAuditFinds(unittest.TestCase):
    def read(self, *transactions):
        """The findings of each transaction; one is a list of entries before its COMMIT."""
        known, previous, found, content = {}, None, [], None
        log = transaction_log.Log(known.get, lambda _segment, entry: f"manifest {entry.size}")
        for number, entries in enumerate(transactions):
            for tag, id, *size in entries:
                self.assertIsNone(log.take(Entry(tag, id, 8, *size), number))
            of = log.take(Entry(COMMIT, b""), number)
            found.append([what for what, _count in transaction_log.findings_of(of, previous, known.get, content)])
            content = of.content or content
            for id in of.taken:
                known.pop(id, None)
            known |= dict.fromkeys(of.added, number)
            previous = number
            self.archives = [*getattr(self, "archives", []), of.archive]
        return found

    def test_is_nothing_in_what_an_honest_client_writes(self):
        init = [(PUT, MANIFEST)]
        backup = [(PUT, A), (PUT, B), (DELETE, MANIFEST), (PUT, MANIFEST)]
        after_checkpoint = [(DELETE, B), (PUT, C), (DELETE, MANIFEST), (PUT, MANIFEST)]
        self.assertEqual(self.read(init, backup, after_checkpoint), [[], [], []])
        self.assertEqual(self.archives, [None, B, C])
        self.assertEqual(self.read([(PUT, A)], [(DELETE, A), (PUT, A), (DELETE, A)]), [[], []])

    def test_is_a_delete_of_what_is_older_than_the_transaction_before(self):
        (*_, found) = self.read([(PUT, A)], [(PUT, B)], [(DELETE, A)])
        self.assertIn("deleted", found[0])

    def test_is_a_delete_of_what_nobody_knows(self):
        (*_, found) = self.read([(PUT, A)], [(DELETE, C)])
        self.assertIn("deleted", found[0])

    def test_is_an_object_that_is_written_twice(self):
        for twice in ([[(PUT, A)], [(PUT, A)]], [[(PUT, A), (PUT, A)]]):
            (*_, found) = self.read(*twice)
            self.assertIn("written over", found[0])

    def test_is_a_list_of_archives_that_does_not_come_back(self):
        (*_, found) = self.read([(PUT, MANIFEST)], [(DELETE, MANIFEST)])
        self.assertIn("manifest", found[0])

    def test_is_a_list_of_archives_that_changes_without_a_new_archive(self):
        backup = [(PUT, A), (DELETE, MANIFEST), (PUT, MANIFEST, 100)]
        with_lock = [(DELETE, MANIFEST), (PUT, MANIFEST, 100)]  # borg's own, which changes nothing
        false = [(DELETE, MANIFEST), (PUT, MANIFEST, 50)]
        found = self.read([(PUT, MANIFEST)], backup, with_lock, false)
        self.assertEqual(found[:3], [[], [], []])
        self.assertIn("without a new archive", found[3][0])

    def test_is_a_counter_that_went_back_or_is_near_its_end(self):
        today = int(NOW) * findings.BLOCKS_PER_SECOND
        self.assertIsNone(findings.wrong_counter(5, 5, NOW))
        self.assertIsNone(findings.wrong_counter(0, today, NOW))
        self.assertIn("went back", findings.wrong_counter(6, 5, NOW))
        self.assertIn("near its end", findings.wrong_counter(0, 2**64 - 1, NOW))

    def test_is_told_once_for_each_kind_with_how_often_and_when(self):
        found = [
            (86400, "x", 2, 5),
            (0, "x", 1, 4),
            (0, "y", 1, None),
            *((7, "x", 1, number) for number in range(10, 16)),
        ]
        first, second = findings.told(found)
        self.assertEqual(
            first,
            "x (9 ×, in transaction 4, 5, 10, 11, 12 and 3 more; 1970-01-01T00:00:00Z to 1970-01-02T00:00:00Z)",
        )
        self.assertEqual(second, "y (1 ×; 1970-01-01T00:00:00Z)")


class TheProgramForARecovery(unittest.TestCase):
    """It is kept beside the repository, where its disk goes."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.home = Path(scratch.name)
        settings = {"repository": f"{self.home}/repository", "state": f"{self.home}/state", "user": "root"}
        self.repository = seals.Repository(settings)
        self.program = pack.program()
        self.file = self.home / "recovery" / self.program.name

    @unittest.skipUnless(os.getuid() == 0, "it is root's")
    def test_is_named_by_its_sum_and_everybody_may_read_it(self):
        self.assertEqual(recover_program.look(self.repository.path), [])
        with mock.patch("os.umask", return_value=0o077):
            recover_program.keep(self.repository.path)
        self.assertEqual(self.file.name, f"recover-{self.program.sha256[:12]}.pyz")
        self.assertEqual(hashlib.sha256(self.file.read_bytes()).hexdigest(), self.program.sha256)
        self.assertEqual((self.file.stat().st_mode & 0o7777, self.file.parent.stat().st_mode & 0o7777), (0o644, 0o755))
        self.assertEqual(recover_program.look(self.repository.path), [self.program.sha256])

    @unittest.skipUnless(os.getuid() == 0, "it is root's")
    def test_is_put_there_again_when_it_was_changed_and_earlier_ones_stay(self):
        recover_program.keep(self.repository.path)
        earlier = self.file.with_name("recover-0123456789ab.pyz")
        earlier.write_text("of an earlier kit")
        for change in (
            lambda: self.file.write_text("changed"),
            lambda: self.file.chmod(0o666),
            lambda: os.chown(self.file, 5, 5),
            lambda: self.file.parent.chmod(0o777),
        ):
            change()
            self.assertEqual(recover_program.look(self.repository.path), [])
            recover_program.keep(self.repository.path)
            self.assertEqual(recover_program.look(self.repository.path), [self.program.sha256])
        self.assertEqual(earlier.read_text(), "of an earlier kit")


@unittest.skipUnless(os.getuid() == 0, "seals are root's")
class Sealing(unittest.TestCase):
    """Of a repository in which transaction 1 is finished and sealed. The account is root here, too."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.home = Path(scratch.name)
        self.path, self.state = self.home / "repository", self.home / "state" / "moh"
        self.settings = {"repository": str(self.path), "state": str(self.state), "user": "root"}
        (self.path / "data" / "0").mkdir(parents=True)
        self.state.mkdir(parents=True)
        (self.path / "config").write_text("[repository]\nid = 00\nkey = QUJD\n")
        self.commit(1)
        self.index(1)
        self.act("seal")

    def commit(self, number):
        (self.path / "data" / "0" / str(number)).write_bytes(segment((COMMIT, b"", b"")))

    def index(self, number):
        for path in self.path.glob("index.*"):
            path.unlink()
        (self.path / f"index.{number}").write_text("x")

    def lock(self, process):
        (self.path / "lock.exclusive").mkdir()
        (self.path / "lock.exclusive" / f"host@1.{process}-0").touch()

    def sealed(self, number):
        return (self.path / "data" / "0" / str(number)).stat().st_mode & 0o7777 == seals.SEALED_FILE

    def act(self, action):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(seal.act(action, self.settings), 0)
        return said.getvalue()

    def unsealed(self):
        return json.loads(self.act("look"))["unsealed"]

    def meanwhile(self, *steps):
        """What happens while a program waits: a step each time. It may not wait more often."""
        left = list(steps)

        def wait(_seconds):
            left.pop(0)()

        self.addCleanup(lambda: self.assertEqual(left, []))
        return mock.patch("time.sleep", wait)

    def test_waits_for_the_index_that_borg_is_writing(self):
        self.commit(2)
        self.lock(os.getpid())
        self.assertFalse(self.sealed(2))
        with self.meanwhile(lambda: None, lambda: self.index(2)):
            self.act("seal")
        self.assertTrue(self.sealed(2))
        self.assertEqual((self.state / "sealed").read_text(), "2\n")

    def test_leaves_to_the_next_session_what_a_borg_that_was_killed_has_not_finished(self):
        self.commit(2)
        with self.meanwhile():
            self.act("seal")
            self.lock(1 << 30)  # no process has this number
            self.act("seal")
        self.assertFalse(self.sealed(2))

    def test_waits_for_no_borg_for_ever(self):
        self.commit(2)
        self.lock(os.getpid())
        clock = iter(range(0, 10**6, seal.FINISHING // 2))
        with mock.patch("time.monotonic", lambda: next(clock)), self.meanwhile(lambda: None):
            self.act("seal")
        self.assertFalse(self.sealed(2))

    def test_that_is_under_way_is_no_drift(self):
        self.commit(2)
        self.index(2)
        with self.meanwhile(lambda: None, lambda: self.act("seal")):
            self.assertEqual(self.unsealed(), "")

    def test_that_does_not_come_is_drift_after_a_while(self):
        self.commit(2)
        self.index(2)
        clock = iter(range(0, 10**6, seals.LATE // 2))
        with mock.patch("time.monotonic", lambda: next(clock)), self.meanwhile(lambda: None, lambda: None):
            self.assertEqual(self.unsealed(), "data/0/2")

    def test_of_what_was_sealed_before_is_missing_at_once(self):
        self.commit(2)
        self.index(2)
        (self.path / "data" / "0" / "1").chmod(0o600)
        with self.meanwhile():
            self.assertEqual(self.unsealed(), "data/0/1, data/0/2")

    def test_is_waited_for_by_nobody_while_it_is_open_for_maintenance(self):
        self.commit(2)
        self.index(2)
        (self.state / "open").touch()
        with self.meanwhile():
            self.assertEqual(self.unsealed(), "data/0/2")

    def test_and_opening_come_one_after_another(self):
        def alone(*_arguments, **_named):
            with open(self.state / "seal.lock") as lock, self.assertRaises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return seals.Seals(1)

        for action, method in (("seal", "seal"), ("open", "open"), ("close", "seal")):
            with self.subTest(action), mock.patch.object(seals.Repository, method, side_effect=alone) as called:
                self.act(action)
                self.assertTrue(called.called)
        with open(self.state / "seal.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertEqual(self.unsealed(), "")  # who only looks waits for nobody


class WhatTheAuditRemembers(unittest.TestCase):
    def test_is_waited_for_while_another_run_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            of = ledger.Ledger(f"{folder}/audit.sqlite")
            self.addCleanup(of.database.close)
            (milliseconds,) = of.database.execute("PRAGMA busy_timeout").fetchone()
        self.assertEqual(milliseconds, ledger.PATIENCE * 1000)


class WhatIsSealed(unittest.TestCase):
    def test_is_named_in_few_words(self):
        self.assertEqual(seals.named(["a", "b"]), "a, b")
        self.assertEqual(seals.named(["a", "b", "c", "d", "e"]), "a, b, c and 2 more")
        told = {"transaction": 5, "unsealed": "", "recover": ["5a"]}
        self.assertEqual(json.loads(json.dumps(seal.seen(seals.Seals(5), ["5a"]))), told)

    def test_is_a_config_that_can_be_read(self):
        good = "[repository]\nid = 00\nkey = QUJD\n\tQUJD\n"
        self.assertTrue(seals.readable_config(good))
        for text in (
            "",
            "[repository]\nid = 00\n",
            "[repository]\nid = 00\nkey =\n",
            "id = 0",
            good + "id = 01\n",
            "\0",
        ):
            self.assertFalse(seals.readable_config(text), text)

    def test_is_a_counter_of_sixteen_digits(self):
        self.assertEqual(seals.counter_of("00000000000000ff\n"), 255)
        for text in ("", "ff", "x" * 16, "0" * 17, "-00000000000000f"[:15]):
            self.assertEqual(seals.counter_of(text), 0)

    def test_is_written_as_a_whole_and_not_over_a_link(self):
        with tempfile.TemporaryDirectory() as folder:
            path, other = f"{folder}/a", Path(folder, "b")
            other.write_text("b")
            os.symlink(other, f"{path}.new")
            files.write(path, "text", 0o640, os.getgid())
            self.assertEqual((Path(path).read_text(), other.read_text()), ("text", "b"))
            os.remove(path)
            os.symlink(other, path)
            self.assertEqual(files.read(path), "")


if __name__ == "__main__":
    unittest.main()
