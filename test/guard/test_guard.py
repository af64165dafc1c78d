"""What a client that speaks borg's protocol by hand can do to a repository behind the guard: nothing but add to it.

Run by `npm test -- --only "guard and seals"`.
"""

import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from unittest import mock

from parts import HOSTS, LIMIT, MANIFEST, NEGOTIATE, Case, Ended, Refused, machine, wait_for, with_each_borg

NEW = b"\x01" * 32
RESERVED = 1 << 20


class OnArchives(Case):
    """Attacks on what was stored. Each ends with `holds`: nothing is lost, backups go on, the alarm was raised or
    wasn't."""

    def old(self, session):
        """The id of an object that was there before."""
        return next(id for id in session.call("list", limit=1000, marker=None) if id != MANIFEST)

    def test_a_session_that_asked_to_create_the_repository_cannot_destroy_it(self):
        session = self.made.session()
        path = str(self.made.repository)
        self.refused(session.call, "open", path=path, create=True, append_only=False, lock=True, exclusive=True)
        self.assertIn("destroy is refused", self.refused(session.call, "destroy"))
        session.call("open", path=path, lock=True, exclusive=True)
        self.refused(session.call, "destroy")
        session.close()
        self.holds("destroy is refused")

    def test_a_session_opens_once(self):
        session = self.made.opened(exclusive=False)
        again = dict(path=str(self.made.repository), lock=True, exclusive=True)
        self.assertIn("once", self.refused(session.call, "open", **again))
        self.refused(session.call, "put", id=NEW, data=b"x")
        session.close()
        self.holds("once")

    def test_no_session_is_prepared_today_to_remove_later_what_comes_after_it(self):
        path = str(self.made.repository)
        reader = self.made.opened(exclusive=False)
        for exclusive in (True, False):  # without a lock it gets one for reading, and nothing more
            writer = self.made.session()
            writer.call("open", path=path, lock=False, exclusive=exclusive, lock_wait=1)
            self.refused(writer.call, "put", id=NEW, data=b"zz")
            writer.close()
        for exclusive, lock in ((None, True), (None, False), (1, True), ("x", True), (True, None), (True, 0)):
            writer = self.made.session()
            self.refused(writer.call, "open", path=path, lock=lock, exclusive=exclusive, lock_wait=1)
            self.refused(writer.call, "put", id=NEW, data=b"zz")
            writer.close()
        left_out = self.made.session()
        self.refused(left_out.call, "open", path=path)
        left_out.close()
        reader.close()
        self.holds("for reading or for writing")

    def test_a_reader_writes_nothing(self):
        session = self.made.opened(exclusive=False)
        old = self.old(session)
        for method, arguments in {
            "put": dict(id=NEW, data=b"x"),
            "delete": dict(id=old),
            "commit": {},
            "save_key": dict(keydata=b"AAAA"),
            "get_free_nonce": {},
            "commit_nonce_reservation": dict(next_unreserved=1 << 40, start_nonce=None),
        }.items():
            with self.subTest(method):
                self.assertIn("reading only", self.refused(session.call, method, **arguments))
        session.call("rollback")
        session.close()
        self.holds("reading only")

    def test_the_counter_for_encryption_goes_neither_back_nor_to_its_end(self):
        session = self.made.opened()
        free = session.call("get_free_nonce")
        wrong = (2**64 - 1, free - 1, free, 0, -1, -(2**63), True, None, "1", b"1", 1.5, float("nan"), [], 2**63)
        for following in wrong:
            with self.subTest(following):
                self.refused(session.call, "commit_nonce_reservation", next_unreserved=following, start_nonce=free)
        self.refused(session.call, "commit_nonce_reservation", next_unreserved=free + RESERVED, start_nonce=None)
        self.refused(session.call, "commit_nonce_reservation", next_unreserved=free + RESERVED, start_nonce=free - 1)
        self.assertEqual(session.call("get_free_nonce"), free)
        session.call("commit_nonce_reservation", next_unreserved=free + RESERVED, start_nonce=free)
        self.assertEqual(session.call("get_free_nonce"), free + RESERVED)
        session.close()
        self.holds("reservation")

    def test_commits_end_at_the_limit_for_a_day(self):
        self.made.set(commitsPerDay=12)
        session, done = self.made.opened(), 0
        with self.assertRaises(Refused) as caught:
            for number in range(1, 100):
                session.call("put", id=bytes([number]) * 32, data=b"x")
                session.call("commit")
                done += 1
        session.close()
        self.assertIn("12 transactions", caught.exception.text)
        self.assertLess(done, 12)
        self.assertRegex("\n".join(self.made.audit()), "12 transactions within a day")
        self.made.set()  # the operator, who raises it
        self.holds("12 transactions within a day")

    def test_the_key_stays_what_it_is(self):
        config = (self.made.repository / "config").read_bytes()
        session = self.made.opened()
        for key in (b"x\rid = " + b"00" * 32, b"x\nid = 00", b"QUJD" * 500_000, b"QUJD", b"", b"\xff", "QUJD", None, 5):
            with self.subTest(str(key)[:20]):
                self.refused(session.call, "save_key", keydata=key)
        session.close()
        self.assertEqual((self.made.repository / "config").read_bytes(), config)
        self.holds("key isn't exchanged")

    def test_what_was_there_before_is_not_deleted(self):
        session = self.made.opened()
        old = self.old(session)
        for id in (old, MANIFEST):
            self.assertIn("was there before", self.refused(session.call, "delete", id=id))
        manifest = session.call("get", id=MANIFEST)
        session.call("put", id=MANIFEST, data=manifest)
        self.refused(session.call, "delete", id=MANIFEST)
        session.call("put", id=NEW, data=b"x")
        session.call("commit")
        self.refused(session.call, "delete", id=MANIFEST)
        self.refused(session.call, "delete", id=old)
        session.call("delete", id=NEW)  # its own
        session.call("commit")
        session.close()
        self.holds("asked to delete what was there before")

    def test_what_was_there_before_is_not_written_over(self):
        session = self.made.opened()
        ids = [id for id in session.call("list", limit=1000, marker=None) if id != MANIFEST]
        for id in ids:
            session.call("put", id=id, data=b"rubbish")
        session.call("put", id=NEW, data=b"x")
        session.call("commit")
        for id in ids:
            session.call("put", id=id, data=b"more rubbish")
        session.call("put", id=b"\x02" * 32, data=b"x")
        session.call("commit")
        session.close()
        self.holds()

    def test_what_was_given_up_is_not_finished_behind_the_back_of_borgs_index(self):
        for id in (MANIFEST, NEW):
            session = self.made.opened()
            old = self.old(session)
            session.call("put", id=id, data=b"rubbish")
            for _ in range(2):
                session.call("rollback")
                session.call("get", id=MANIFEST)  # loads the index again
                self.refused(session.call, "commit")
                self.refused(session.call, "put", id=NEW, data=b"x")
                self.refused(session.call, "delete", id=old)
            session.close()
        session = self.made.opened()
        session.call("get", id=MANIFEST)
        self.assertIn("nothing to commit", self.refused(session.call, "commit"))
        session.close()
        for path in self.made.repository.iterdir():
            if path.name.split(".")[0] in ("index", "hints", "integrity"):
                path.unlink()  # borg builds them anew, from the log
        self.holds("for reading only")

    def test_the_lock_of_another_session_is_not_broken(self):
        writer, other = self.made.opened(), self.made.session()
        self.assertIn("break_lock is refused", self.refused(other.call, "break_lock"))
        self.refused(other.call, "open", path=str(self.made.repository), lock=True, exclusive=True, lock_wait=0.3)
        self.refused(other.call, "break_lock")
        other.close()
        writer.call("put", id=NEW, data=b"x")
        writer.call("commit")
        writer.close()
        self.holds("break_lock is refused")


@with_each_borg
class AHostileClientWhereNothingIsSealed(OnArchives):
    """The guard alone."""

    sealed = False


@with_each_borg
class AHostileClient(OnArchives):
    """Guard and seals, and whatever is no matter of seals."""

    @property
    def writing(self):
        """Arguments of `open` for a session that writes."""
        return {"path": str(self.made.repository), "lock": True, "exclusive": True, "lock_wait": 20}

    def test_checks_and_repairs_are_not_the_clients(self):
        session = self.made.opened()
        for method, arguments in (("check", dict(repair=True)), ("check", {}), ("scan", {}), ("inject_exception", {})):
            self.refused(session.call, method, **arguments)
        session.close()
        self.holds()

    def test_only_calls_of_the_list_are_there(self):
        session = self.made.opened()
        names = ("close", "refuse", "serve", "repository", "put_down", "get_many", "compact_segments", "save_config")
        for method in (*names, "__class__", "__init__", "_rollback", "", "open\0", "x" * 100_000):
            with self.subTest(method[:20]):
                self.refused(session.call, method, path="/", text="x")
        session.close()
        self.holds()

    def test_no_other_path_is_opened(self):
        made = self.made
        other = made.live / "server" / "other"
        subprocess.run(["cp", "-a", str(made.repository), str(other)], check=True)
        link = made.live / "server" / "link"
        link.symlink_to(other)
        up = str(made.repository / "..")
        paths = [str(other), str(link), up, f"{up}/other", "server/other", "/~/other", "~", "/~root", "/", "", ".",
                 "\0", os.fsencode(other), b"\xff\xfe", 5, -1, None, True, 1.5, [str(made.repository)], {},
                 "x" * 70_000, f"{made.repository}/data", f"{made.repository}-2", "/proc/self/cwd"]  # fmt: skip
        for path in paths:
            session = made.session()
            try:
                for create in (False, True):
                    self.refused(session.call, "open", path=path, create=create, lock=True, exclusive=True)
                    self.refused(session.call, "put", id=NEW, data=b"x")
            except Ended as ended:  # the answer can't be written, as the path in it is no text
                self.assertEqual(
                    (path, ended.args[0]), (b"\xff\xfe", "cht-backup: the session was ended by PackException\n")
                )
            session.close()
        self.assertEqual(
            sorted(path.name for path in (made.live / "server").iterdir()), ["link", "other", "repository"]
        )
        self.holds("path is a text")

    def test_the_protocol_of_old_clients_ends_the_session(self):
        for form in (
            (1, 1, "open", (str(self.made.repository), False, 1, True)),
            (1, 2, "destroy", ()),
            (1, 3, "put", ()),
        ):
            session = self.made.session(negotiate=False)
            session.send("", {}, form=form)
            self.assertRaises(Ended, session.answer)
            self.assertIn("cht-backup: the session was ended", session.said())
            session.close()
        session = self.made.session(negotiate=False)
        self.assertIn("too old", self.refused(session.call, "negotiate", client_data=2))
        for version in ({}, {"client_version": "1.4"}, {"client_version": None}, None, [], "x"):
            self.refused(session.call, "negotiate", client_data=version)
        session.close()
        self.holds()

    def test_bytes_that_are_no_call_end_the_session(self):
        deep, blob = b"\x91" * 200_000, b"\xc6" + (60_000_000).to_bytes(4, "big") + bytes(60_000_000)
        each = (b"\xc1", b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\x93\x01\x02\x03", b"\x81\xa1i\x01", deep,
                b"\xdf\xff\xff\xff\xff", blob, b"\xdd\xff\xff\xff\xff\x00", b"\x83\xa1i\x01\xa1m\xa3put")  # fmt: skip
        for data in each:
            with self.subTest(data[:20]):
                session = self.made.session()
                try:
                    session.write(data)
                    session.send("get", {"id": MANIFEST})
                    session.answer(0.5)  # none comes where the server takes it for a part of what went before
                except (Ended, Refused):
                    pass
                self.assertLess(memory(session.process.pid), 300e6)
                session.close()
        self.holds()

    def test_half_a_call_does_nothing(self):
        session = self.made.opened()
        session.write(b"\x83\xa1i\x05\xa1m\xa3put\xa1a\x82\xa2id\xc4\x20" + NEW[:7])
        session.close()
        self.holds()

    def test_a_client_cannot_have_the_server_fill_its_memory(self):
        session = self.made.opened()
        for limit in (0, -1, 1 << 62, "x", 1.5, True):
            if limit != 1 << 62:
                self.refused(session.call, "list", limit=limit, marker=None)
        self.assertLess(len(session.call("list", limit=1 << 62, marker=None)), 1000)
        with self.assertRaises((Refused, Ended)):
            session.call("put", id=NEW, data=bytes(30 << 20))
        self.assertLess(memory(session.process.pid), 400e6)
        session.close()
        self.holds("a limit is a number")

    def test_arguments_of_the_wrong_kind_are_refused(self):
        session = self.made.opened()
        for id in (None, b"", b"\0" * 31, b"\0" * 33, 5, -1, True, [MANIFEST], {"id": MANIFEST}, "x" * 33):
            for method, more in (("get", {}), ("put", dict(data=b"x")), ("delete", {}), ("list", dict(limit=5))):
                with self.subTest(f"{method} {id}"):
                    if method == "list" and id is None:
                        continue
                    name = "marker" if method == "list" else "id"
                    self.assertIn("32 bytes", self.refused(session.call, method, **{name: id}, **more))
        for data in (None, 5, [], {}, True):
            self.assertIn("bytes", self.refused(session.call, "put", id=NEW, data=data))
        for method in ("get", "put", "delete", "save_key", "commit_nonce_reservation"):
            self.refused(session.call, method)
        session.close()
        self.holds("32 bytes")

    def test_nothing_is_done_before_a_repository_is_open(self):
        session = self.made.session()
        for method in ("get", "put", "delete", "list", "commit", "rollback", "load_key", "__len__", "get_free_nonce"):
            self.refused(session.call, method, **({"id": NEW} if method in ("get", "delete") else {}))
        session.close()
        self.holds()

    def test_a_deployment_fills_no_more_than_its_quota_whatever_it_takes_back(self):
        made = self.made
        size = sum(path.stat().st_size for path in (made.repository / "data").rglob("*") if path.is_file())
        made.set(quotaGibibytes=(size + 300_000) / 2**30)
        session = made.opened()
        for number in range(2):
            session.call("put", id=bytes([number + 1]) * 32, data=os.urandom(100_000))
            session.call("delete", id=bytes([number + 1]) * 32)
        said = self.refused(session.call, "put", id=NEW, data=os.urandom(100_000))
        self.assertIn("the repository has its fill", said)
        session.close()
        # What broke off counts no more: a backup that fits in works.
        made.backup("fits", size=100_000)
        # Where it is full from the beginning not even a session begins; reading goes on.
        made.set(quotaGibibytes=(size - 1) / 2**30)
        session = made.session()
        self.assertIn("npm run retention", self.refused(session.call, "open", **self.writing))
        session.close()
        made.set()
        made.backup("with-room-again")
        self.holds()

    def test_a_session_that_says_nothing_ends_and_gives_its_lock_back(self):
        self.made.set(idleHours=1 / 3600)
        session = self.made.session(negotiate=False, LOOKS=0.5)
        calls = {"negotiate": NEGOTIATE, "open": self.writing, "put": {"id": NEW, "data": b"x"}}
        # In one go, as a second may pass between two.
        session.write(b"".join(session.packed(method, arguments) for method, arguments in calls.items()))
        for _ in calls:
            session.answer()
        self.assertEqual(session.process.wait(), 0)
        session.close()
        self.made.set()
        self.holds()

    def test_a_session_ends_at_its_limit_however_much_it_says(self):
        self.made.set(sessionDays=2 / 86400)
        session = self.made.session(negotiate=False, LOOKS=0.5)
        deadline = time.monotonic() + LIMIT
        with self.assertRaises(Ended):
            session.negotiate()
            session.call("open", **self.writing)
            while time.monotonic() < deadline:
                session.call("__len__")
        session.close()
        self.made.set()
        self.holds()

    def test_a_client_that_takes_no_answers_is_ended(self):
        self.made.set(idleHours=0)
        session = self.made.opened(LOOKS=3600, GRACE=1)
        os.set_blocking(session.to_server, False)
        call = b"\x83\xa1i\x01\xa1m\xa3get\xa1a\x81\xa2id\xda\x00\x20" + MANIFEST
        answers = os.open(f"/proc/self/fd/{session.from_server}", os.O_WRONLY)

        def blocked():
            """Whether it sleeps though there is something to read: it can't write."""
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(session.to_server, call)
            full = not select.select([], [session.to_server, answers], [], 0)[1]
            return full and Path(f"/proc/{session.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

        wait_for(blocked, what="a full pipe")
        os.close(answers)
        os.kill(session.process.pid, signal.SIGALRM)  # it looks at the clock
        self.assertNotEqual(session.process.wait(), 0)
        session.close()
        self.made.set()
        self.holds()

    def test_a_session_that_gets_its_lock_in_the_middle_of_maintenance_gives_it_back_and_waits_for_the_end(self):
        made = self.made
        first, second = made.opened(), made.session()
        second.send("open", self.writing)
        waiting = "lock.exclusive.*.tmp"  # what borg makes of its lock when it is free
        wait_for(lambda: list(made.repository.glob(waiting)), what="the wait for a lock")
        with made.opened_by_operator():
            first.close()
            wait_for(lambda: not list(made.repository.glob(waiting)), what="the second session's lock")
            own = {"BORG_BASE_DIR": str(made.operator)}
            made.borg("check", "--repository-only", made.repository, user="account", environment=own)
            self.assertIsNone(second.answer(0))
        self.assertIsNotNone(second.answer())
        second.call("put", id=NEW, data=b"x")
        second.call("commit")
        second.close()
        self.holds()

    def test_a_second_writer_waits_for_the_first(self):
        first, second = self.made.opened(), self.made.session()
        self.refused(second.call, "open", **{**self.writing, "lock_wait": 0.3})
        first.call("put", id=NEW, data=b"x")
        second.send("open", self.writing)
        self.assertIsNone(second.answer(0.5))
        first.call("commit")
        first.close()
        self.assertIsNotNone(second.answer())
        self.assertEqual(second.call("get", id=NEW), b"x")
        self.refused(second.call, "delete", id=NEW)
        second.close()
        self.holds("asked to delete")

    def test_sessions_that_race_each_write_what_they_have(self):
        failed = []

        def write(number):
            try:
                session = self.made.opened()
                for part in range(3):
                    session.call("put", id=bytes([number, part]) * 16, data=bytes([number, part]))
                session.call("commit")
                session.close()
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        session = self.made.opened(exclusive=False)
        for number, part in itertools.product(range(1, 4), range(3)):
            self.assertEqual(session.call("get", id=bytes([number, part]) * 16), bytes([number, part]))
        session.close()
        self.holds()

    def test_a_server_that_loses_its_power_in_a_transaction_goes_on_with_the_next(self):
        for delay in (None, 0, 0.001, 0.003, 0.01, 0.03):
            session = self.made.opened()
            for number in range(4):
                session.call("put", id=bytes([9, number]) * 16, data=os.urandom(60_000))
            session.send("put", {"id": NEW, "data": os.urandom(200_000)})
            if delay is not None:
                session.answer()
                session.send("commit", {})
                time.sleep(delay)  # another moment of the commit each time
            session.kill()
        self.holds()

    def test_a_false_list_of_archives_is_undone_by_the_operator(self):
        session = self.made.opened()
        session.call("put", id=MANIFEST, data=b"rubbish")
        session.call("commit")
        session.close()
        self.assertEqual(self.made.lost(), [])
        self.assertNotEqual(self.made.borg("list", self.made.location, check=False).code, 0)
        self.assertRegex("\n".join(self.made.audit()), "without a new archive")
        self.made.roll_back()
        self.made.approve()
        self.holds()

    # ---- what sshd has a part in --------------------------------------------------------------------------

    def test_nothing_is_run_but_the_guard_whatever_the_client_asks_sshd_for(self):
        ssh = ["ssh", "-F", str(self.made.ssh_config()), "offsite"]
        options = "--exclude-from /dev/zero --umask=077 --restrict-to-path /"
        for asked in ([f"borg serve {options}"], ["borg serve"], []):
            done = subprocess.run([*ssh, *asked], input=b"", capture_output=True, timeout=60)
            self.assertIn(b"connection close before repository was opened", done.stdout, done.stderr)
        for asked in (["rm -rf ."], ["x --check"], ["sh -c 'borg serve'"]):
            done = subprocess.run(
                [*ssh[:-1], *asked[:-1], ssh[-1], asked[-1]], input=b"", capture_output=True, timeout=60
            )
            self.assertIn(b"for backups only", done.stdout + done.stderr, asked)
        done = subprocess.run([*ssh[:-1], "-s", ssh[-1], "sftp"], input=b"", capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        done = subprocess.run([*ssh[:-1], "-tt", ssh[-1]], input=b"", capture_output=True, timeout=60)
        self.assertIn(b"PTY allocation request failed", done.stderr)
        self.holds(over_sshd=True)

    def test_a_variable_of_the_clients_cannot_name_code_to_run(self):
        marker, settings = machine().home / "ran", machine().folder / "logging.conf"
        settings.write_text(
            "[loggers]\nkeys=root\n[handlers]\nkeys=x\n[formatters]\nkeys=\n[logger_root]\nhandlers=x\n"
            f"[handler_x]\nclass=StreamHandler\nargs=(open('{marker}', 'w'),)\n"
        )
        marker.unlink(missing_ok=True)
        command = ["ssh", "-F", str(self.made.ssh_config()), "-o", f"SetEnv=BORG_LOGGING_CONF={settings}", "offsite"]
        for guarded in (True, False):
            self.made.guarded = guarded
            self.made.ssh_config("AcceptEnv *")
            done = subprocess.run(command, input=b"", capture_output=True, timeout=60)
            # Without the guard it does run: the test sees what it looks for.
            self.assertEqual(marker.exists(), not guarded, done.stderr)
        self.made.guarded = True
        self.holds(over_sshd=True)

    def test_sshd_forwards_nothing(self):
        forward = ["ssh", "-F", str(self.made.ssh_config()), "-o", "ExitOnForwardFailure=yes"]
        forward += ["-R", "0:127.0.0.1:1", "offsite"]
        self.assertNotEqual(subprocess.run(forward, input=b"", capture_output=True, timeout=60).returncode, 0)
        self.holds(over_sshd=True)


@with_each_borg
class ANewRepository(Case):
    def setUp(self):
        super().setUp()
        made = self.made
        with made.sealing:
            subprocess.run(["rm", "-rf", str(made.repository), str(made.state), str(made.base)], check=True)
            for folder in (made.repository, made.state, made.base):
                folder.mkdir()
        machine().own(made.repository)
        made.program("seal", "adopt")
        made.archives = {}

    def test_gets_one_key_of_the_right_form(self):
        session = self.made.session()
        session.call("open", path=str(self.made.repository), create=True, append_only=False, lock=True, exclusive=True)
        for key in (b"x\rid = " + b"00" * 32, b"QUJD\n\nid = 00", b"QUJD" * 2000, b"[repository]", "QUJD\r", None):
            self.assertIn("base64", self.refused(session.call, "save_key", keydata=key))
        self.assertEqual(session.call("load_key"), b"")
        session.call("save_key", keydata=b"QUJD\nQUJD\n")
        self.assertIn("exchanged", self.refused(session.call, "save_key", keydata=b"QUJE"))
        self.refused(session.call, "destroy")
        session.close()
        session = self.made.opened()
        self.assertIn("exchanged", self.refused(session.call, "save_key", keydata=b"QUJE"))
        session.close()

    def test_is_begun_over_sshd_and_takes_the_first_backups(self):
        made = self.made
        made.borg("init", "--encryption", "repokey-blake2", made.location, over_sshd=True)
        made.backup("first", over_sshd=True)
        made.backup("second", over_sshd=True)
        made.mark()
        self.holds(over_sshd=True)


@with_each_borg
class ABorgThatTheGuardDoesNotKnow(Case):
    def test_is_refused_and_the_message_names_it(self):
        made, folder = self.made, machine().folder / f"unknown-{self.version}"
        subprocess.run(["cp", "-a", str(made.python.parents[1]), str(folder)], check=True)
        (metadata,) = folder.glob("lib/python3*/site-packages/borgbackup-*.dist-info/METADATA")
        metadata.write_text(metadata.read_text().replace(f"\nVersion: {self.version}\n", "\nVersion: 1.4.99\n"))
        for words in ("--check", str(made.settings_file)):
            command = [str(folder / "bin" / "python"), "-I", str(machine().programs / "chtbackup"), "guard", words]
            done = subprocess.run(command, input=b"", capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"borg 1.4.99 isn't known to this guard", done.stderr)

    def test_is_the_distributions_where_that_is_another(self):
        program = "from importlib.metadata import version; print(version('borgbackup'))"
        asked = subprocess.run(["/usr/bin/python3", "-I", "-c", program], capture_output=True, text=True)
        done = subprocess.run(
            ["/usr/bin/python3", "-I", str(HOSTS / "chtbackup"), "guard", "--check"], capture_output=True, text=True
        )
        version = asked.stdout.strip()
        with mock.patch.dict(os.environ):  # which the guard empties
            from chtbackup.repository import guard
        if version in guard.VERSIONS:
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        else:
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"borg {version} isn't known" if version else "borg isn't installed", done.stderr)

    def test_counts_no_more_where_one_was_built_beside_the_guard(self):
        folder = machine().folder / f"built-{self.version}"
        folder.mkdir()
        shutil.copytree(HOSTS / "chtbackup", folder / "chtbackup")
        subprocess.run(["cp", "-a", str(self.made.python.parents[1]), str(folder / "borg")], check=True)
        command = ["/usr/bin/python3", "-I", str(folder / "chtbackup"), "guard", "--check"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        (metadata,) = folder.glob("borg/lib/python3*/site-packages/borgbackup-*.dist-info/METADATA")
        metadata.write_text(metadata.read_text().replace(f"\nVersion: {self.version}\n", "\nVersion: 1.4.99\n"))
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertIn("borg 1.4.99 isn't known", done.stderr)

    def test_is_none_of_those_that_are_tried_here(self):
        command = [str(self.made.python), "-I", str(HOSTS / "chtbackup"), "guard", "--check"]
        self.assertEqual(subprocess.run(command, capture_output=True).returncode, 0)


def memory(pid):
    """Bytes that a process had at most; 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0
