"""The bucket copy against real parts: borg, and an S3 server that honours versioning, locks and policies.

Needs borg on the path, and test/bucket/requirements.txt; root for the test of the full disk. Run by
`npm test -- --only "bucket copy"`, or: python -m unittest discover -s test/bucket
"""

import collections
import datetime
import gzip
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from botocore.exceptions import ClientError
from parts import KEEP_DAYS, KEYS, LOCK_DAYS, PREFIX, Deployment, Proxy, Store, kill, wait_for

from chtbackup.base import pack
from chtbackup.bucket import client as bucket
from chtbackup.bucket import copies as bucket_copies
from chtbackup.bucket import credentials, errors
from chtbackup.bucket import index as bucket_index

store = None


def setUpModule():
    global store
    store = Store()
    unittest.addModuleCleanup(store.stop)


class Case(unittest.TestCase):
    number = 0

    def make(self, proxy=False, repository=None, account=None, **bucket_options):
        Case.number += 1
        name = f"copy-{Case.number}"
        store.make_bucket(name, **bucket_options)
        endpoint = None
        if proxy:
            self.proxy = Proxy(store.port)
            self.addCleanup(self.proxy.stop)
            endpoint = self.proxy.endpoint
        made = Deployment(store, name, endpoint, repository, account)
        self.addCleanup(made.remove)
        return made

    def hold(self, method, part):
        """Let no request by this method with this in its path on to the bucket. Returns an event that is set when one
        has come, and one with which they go on."""
        came, goes_on = threading.Event(), threading.Event()
        self.addCleanup(goes_on.set)

        def answer(*request):
            if request[0] == method and part in request[1]:
                came.set()
                goes_on.wait()

        self.proxy.answer = answer
        return came, goes_on

    def succeeds(self, run):
        self.assertEqual(run.code, 0, run)
        return run

    def refused(self, action, **arguments):
        with self.assertRaises(ClientError) as caught:
            action(**arguments)
        return caught.exception.response["Error"]["Code"]

    def until(self, made, version):
        found = store.admin.head_object(Bucket=made.bucket, Key=PREFIX + version.path, VersionId=version.id)
        return found["ObjectLockRetainUntilDate"].timestamp()


class ACopy(Case):
    def test_is_whole_and_restores_what_was_backed_up(self):
        made = self.make()
        content = made.backup("one")
        run = self.succeeds(made.run())
        self.assertEqual(run.report["outcome"], "copied")
        self.assertTrue(run.report["ok"])
        self.assertEqual(made.restore("one"), content)
        self.assertEqual([of["whole"] for of in made.copies()], [True])
        self.succeeds(made.run("check", "--all"))
        self.assertEqual(list(made.snapshot.iterdir()), [])

    def test_leaves_the_repository_as_it_was_for_borg(self):
        made = self.make()
        made.backup("one")
        for name in ("two", "three"):
            self.succeeds(made.run())
            made.backup(name, 1)
        made.borg("check", "--verify-data", made.repository)
        config = (made.repository / "config").stat()
        self.assertEqual(config.st_nlink, 1)

    def test_moves_no_data_and_asks_little_when_nothing_is_new(self):
        made = self.make(proxy=True)
        made.backup("one")
        self.succeeds(made.run())
        first, sent = len(self.proxy.requests), self.proxy.sent
        self.proxy.requests.clear()
        run = self.succeeds(made.run())
        print(f"\nrequests: first copy {first} ({sent / 1e6:.1f} MB), nothing new {len(self.proxy.requests)}")
        self.assertEqual(run.report["outcome"], "unchanged")
        self.assertLessEqual(len(self.proxy.requests), 4)
        self.assertEqual({method for method, _path in self.proxy.requests} - {"GET", "HEAD"}, set())
        self.assertEqual(self.proxy.sent, sent)

    def test_of_a_small_change_moves_only_that(self):
        made = self.make(proxy=True)
        made.backup("one", 20)
        self.succeeds(made.run())
        sent = self.proxy.sent
        made.backup("two", 1)
        self.proxy.requests.clear()
        self.succeeds(made.run())
        print(f"\nrequests: 1 MB new {len(self.proxy.requests)} ({(self.proxy.sent - sent) / 1e6:.2f} MB)")
        self.assertLess(self.proxy.sent - sent, 1.5e6)

    def test_goes_on_without_what_the_machine_remembered(self):
        made = self.make()
        content = made.backup("one", 20)
        self.succeeds(made.run())
        (made.state / "bucket-state.json").unlink()
        run = self.succeeds(made.run())
        self.assertEqual(run.report["outcome"], "copied")
        self.assertEqual(run.report["copy"]["number"], 2)
        # The segments that the lock wrote, index, hints and integrity.
        self.assertLess(run.report["uploadedBytes"], 1e6)
        self.assertEqual(made.restore("one"), content)
        (made.state / "bucket-state.json").write_text('{"place": "somewhere el')
        self.succeeds(made.run())

    def test_of_large_segments_is_recognised_by_its_parts_checksums(self):
        made = self.make()
        made.borg("config", made.repository, "max_segment_size", "100000000")
        content = made.backup("one", 150)
        self.succeeds(made.run())
        self.assertTrue(any("-" in of.etag for of in self.segments(made)))
        (made.state / "bucket-state.json").unlink()
        self.assertLess(self.succeeds(made.run()).report["uploadedBytes"], 1e6)
        self.assertEqual(made.restore("one"), content)

    def test_is_compared_by_reading_where_the_bucket_encrypts_with_a_key_of_its_own(self):
        made = self.make(proxy=True)
        content = made.backup("one", 40)

        def encrypted(headers, content):
            # What AWS answers for SSE-KMS: checksums of what is stored, not of what was sent.
            headers = [(name, f'"{value[::-1]}' if name == "ETag" else value) for name, value in headers]
            content = re.sub(rb"<ETag>(&#34;|&quot;|\")?([0-9a-f]{32})", lambda of: b"<ETag>" + of[2][::-1], content)
            return [*headers, ("x-amz-server-side-encryption", "aws:kms")], content

        self.proxy.change = encrypted
        first = self.succeeds(made.run())
        self.assertGreater(first.report["requests"], first.report["files"])
        (made.state / "bucket-state.json").unlink()
        self.assertLess(self.succeeds(made.run()).report["uploadedBytes"], 1e6)
        made.backup("two", 1)
        # What is known already isn't read again.
        third = self.succeeds(made.run())
        self.assertLess(third.report["requests"], third.report["files"])
        self.assertEqual(made.restore("one"), content)

    def segments(self, made):
        there = bucket.Bucket(made.settings, credentials.read_credentials(made.settings["credentials"]))
        listing = there.versions("repository/")
        return [of for path, found in listing.versions.items() if path.startswith("data/") for of in found]


class Adversity(Case):
    def test_a_copy_killed_at_any_moment_is_finished_by_the_next_run(self):
        made = self.make()
        contents = {"start": made.backup("start", 4)}
        began = time.monotonic()
        self.succeeds(made.run())
        duration = max(time.monotonic() - began, 1)
        made.set(uploadRate=4000)
        kills = 0
        for number in range(10):
            name = f"backup-{number}"
            contents[name] = made.backup(name, 3)
            process = made.start()
            time.sleep(random.uniform(0.05, duration + 1))
            kills += process.poll() is None
            kill(process)
            wait_for(lambda: not children(made), 30, "the end of borg")
            # What is finished is whole, and what isn't doesn't show.
            self.assertTrue(all(of["whole"] for of in made.copies()))
        print(f"\n{kills} of 10 copies were killed before they ended")
        made.set(uploadRate=0)
        self.succeeds(made.run())
        self.assertEqual(list(made.snapshot.iterdir()), [])
        self.assertEqual(made.restore("backup-9"), contents["backup-9"])
        self.assertEqual(made.restore("start", copy=made.copies()[0]["copy"]), contents["start"])
        made.borg("check", made.repository)

    def test_a_copy_told_to_stop_leaves_nothing_running_and_says_so(self):
        made = self.make()
        made.backup("one", 20)
        made.set(uploadRate=10)
        process = made.start()
        upload_begins(process)
        process.send_signal(signal.SIGTERM)
        run = made.finish(process)
        self.assertEqual(run.code, 2)
        self.assertIn("stopped by SIGTERM; the next run goes on from here", run.errors)
        self.assertEqual(list(made.snapshot.iterdir()), [])
        self.assertEqual(children(made), [])
        self.assertEqual(made.copies(), [])

    def test_a_copy_told_to_stop_leaves_no_parts_of_a_large_file_that_somebody_would_pay_for(self):
        made = self.make(proxy=True)
        made.borg("config", made.repository, "max_segment_size", "100000000")
        content = made.backup("one", 90)
        made.set(uploadRate=1000)
        process = made.start()
        wait_for(lambda: any("partNumber" in path for _method, path in self.proxy.requests), 60, "the first part")
        process.send_signal(signal.SIGTERM)
        run = made.finish(process)
        self.assertEqual((run.code, len(run.errors.splitlines())), (2, 1), run)
        self.assertIn("stopped by SIGTERM; the next run goes on from here", run.errors)
        self.assertLess(self.proxy.sent, 80e6)
        self.assertEqual(store.admin.list_multipart_uploads(Bucket=made.bucket).get("Uploads", []), [])
        made.set(uploadRate=0)
        # Nor does one whose last request fails for good.
        self.proxy.answer = lambda method, path: (
            (403, "AccessDenied") if method == "POST" and "uploadId" in path else None
        )
        run = made.run()
        self.assertRegex(run.errors, "1 files didn't arrive, data/0/.* for one: the key is refused")
        self.assertEqual(store.admin.list_multipart_uploads(Bucket=made.bucket).get("Uploads", []), [])
        self.proxy.answer = lambda method, path: None
        self.succeeds(made.run())
        self.assertEqual(made.restore("one"), content)

    def test_a_backup_is_stored_while_a_long_copy_runs(self):
        made = self.make(proxy=True)
        made.backup("one", 20)
        came, goes_on = self.hold("PUT", "/repository/data/")
        process = made.start()
        wait_for(came.is_set, 60, "the upload")
        content = made.backup("two", 1)
        self.assertIsNone(process.poll())
        goes_on.set()
        # It is noticed at the end, and copied at once.
        run = self.succeeds(made.finish(process))
        self.assertEqual(run.report["copy"]["number"], 2)
        self.assertEqual(made.restore("two"), content)

    def test_a_repository_in_use_is_copied_another_time_and_only_a_lasting_lock_is_a_failure(self):
        made = self.make()
        made.backup("one", 1)
        made.set(lockWait=1)
        # `cat` ends with this test at the latest.
        holder = subprocess.Popen(
            ["borg", "with-lock", str(made.repository), "cat"],
            env=made.environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(holder.communicate)
        self.addCleanup(holder.kill)
        wait_for(lambda: (made.repository / "lock.exclusive").exists(), 30, "the lock")
        run = self.succeeds(made.run())
        self.assertEqual(run.report["outcome"], "busy")
        self.assertIsNone(run.report["lastSuccessAt"])
        os.utime(made.repository / "README", (1, 1))
        run = made.run()
        self.assertEqual(run.code, 2)
        self.assertIn("in use for 1 s, and there has been no copy for", run.errors)
        holder.terminate()
        holder.wait()
        made.set(lockWait=20)
        self.succeeds(made.run())

    def test_a_lock_left_by_a_killed_copy_does_not_stop_the_next_backup(self):
        made = self.make()
        made.backup("one", 1)
        process = made.start()
        wait_for(lambda: (made.repository / "lock.exclusive").exists() or process.poll() is not None, 30, "the lock")
        kill(process)
        wait_for(lambda: not children(made), 30, "the end of borg")
        made.backup("two", 1)
        self.succeeds(made.run())

    def test_a_segment_number_that_is_used_again_harms_no_copy(self):
        made = self.make()
        one = made.backup("one", 5)
        transaction = max(int(of.suffix[1:]) for of in made.repository.glob("index.*"))
        kept = {of: of.read_bytes() for of in made.repository.iterdir() if of.is_file()}
        two = made.backup("two", 5)
        self.succeeds(made.run())
        # An administrator rolls back, as borg's documentation on append-only tells.
        for segment in made.repository.glob("data/*/*"):
            if int(segment.name) > transaction:
                segment.unlink()
        for of in made.repository.iterdir():
            if of.is_file():
                of.unlink()
        for of, content in kept.items():
            of.write_bytes(content)
        (made.source / "two").unlink()
        made.environment["BORG_BASE_DIR"] += "-2"
        # borg refuses a nonce that goes back; here it is the client that is new.
        three = made.backup("three", 5)
        self.succeeds(made.run())
        first, second = made.copies()
        self.assertEqual(made.restore("two", copy=first["copy"]), two)
        self.assertEqual(made.restore("three", copy=second["copy"]), three)
        self.assertEqual(made.restore("one"), one)
        self.succeeds(made.run("check", "--all"))

    def test_segments_of_a_crashed_backup_are_not_copied_and_their_numbers_are_free(self):
        made = self.make()
        made.backup("one", 2)
        before = len(list(made.repository.glob("data/*/*")))
        made.source.joinpath("two").write_bytes(os.urandom(60_000_000))
        client = subprocess.Popen(
            ["borg", "create", "--compression", "none", f"{made.location}::two", "."],
            env=made.environment, cwd=made.source, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: len(list(made.repository.glob("data/*/*"))) > before + 3, 60, "segments of the backup")
        os.killpg(client.pid, signal.SIGKILL)
        client.wait()
        wait_for(lambda: not children(made), 30, "the end of borg")
        self.succeeds(made.run())
        content = made.backup("three", 3)
        self.succeeds(made.run())
        self.assertEqual(made.restore("three"), content)
        self.assertTrue(all(of["whole"] for of in made.copies()))

    def test_copies_before_and_after_a_hostile_delete_and_a_compaction_restore(self):
        made = self.make()
        one = made.backup("one")
        self.succeeds(made.run())
        made.borg("delete", f"{made.location}::one")
        self.succeeds(made.run())
        segments = set(made.repository.glob("data/*/*"))
        made.borg("compact", made.repository)
        self.assertTrue(segments - set(made.repository.glob("data/*/*")))
        (made.source / "one").unlink()
        two = made.backup("two")
        self.succeeds(made.run())
        copies = made.copies()
        self.assertEqual(len(copies), 3)
        self.assertEqual(made.restore("one", copy=copies[0]["copy"]), one)
        self.assertEqual(made.restore("two"), two)
        self.assertNotIn("one", made.restore("two"))

    def test_a_repository_begun_anew_in_its_place_is_told_of_once_and_harms_no_copy_of_the_former_one(self):
        made = self.make()
        one = made.backup("one", 1)
        self.succeeds(made.run())
        for remembers in (True, False):
            with self.subTest(remembers=remembers):
                shutil.rmtree(made.repository)
                made.repository.mkdir()
                if not remembers:  # as on a new server
                    shutil.rmtree(made.state)
                    made.state.mkdir()
                made.borg("init", "--encryption", "repokey-blake2", made.location)
                two = made.backup("two", 1)
                run = made.run()
                self.assertEqual((run.code, run.report["outcome"]), (1, "copied"), run)
                self.assertRegex(run.report["problems"][0], "are of another repository .*nothing lengthens")
                made.backup("three", 1)
                self.succeeds(made.run())
        copies = made.copies()
        self.assertEqual([of["whole"] for of in copies], [True] * 5)
        self.assertEqual(made.restore("one", copy=copies[0]["copy"]), one)
        self.assertEqual(made.restore("two", copy=copies[3]["copy"]), two)

    def test_a_bucket_that_asks_to_slow_down_now_and_then_gets_its_copy(self):
        made = self.make(proxy=True)
        content = made.backup("one", 15)
        self.proxy.answer = slow_at_first((500, "InternalError"), (503, "ServiceUnavailable"))
        self.succeeds(made.run())
        self.proxy.answer = lambda method, path: None
        self.assertEqual(made.restore("one"), content)

    def test_a_network_that_is_cut_costs_a_run_and_no_copy(self):
        made = self.make(proxy=True)
        contents = [made.backup("one", 4)]
        self.succeeds(made.run())
        contents.append(made.backup("two", 20))
        sent = self.proxy.sent

        def cut_after_some_uploads(_method, _path):
            self.proxy.down = self.proxy.sent > sent + 6e6

        self.proxy.answer = cut_after_some_uploads
        run = made.run()
        self.assertEqual(run.code, 2)
        self.assertRegex(run.errors, r"^problem: the bucket copy-\d+ at http://\S+: ")
        self.assertEqual(len(run.errors.splitlines()), 1)
        self.assertEqual(len(made.copies()), 1)
        self.proxy.answer = lambda method, path: None
        self.proxy.down = False
        sent = self.proxy.sent
        self.succeeds(made.run())
        self.assertLess(self.proxy.sent - sent, 20e6)  # what had arrived isn't sent again
        self.assertEqual(made.restore("two"), contents[1])
        self.assertEqual(made.restore("one", copy=made.copies()[0]["copy"]), contents[0])

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a small disk")
    def test_a_full_disk_costs_a_run_and_no_copy(self):
        with tempfile.TemporaryDirectory(prefix="cht-backup-disk-") as disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", disk], check=True)
            try:
                made = self.make(repository=f"{disk}/home/repository")
                made.set(state=f"{disk}/state")
                os.mkdir(f"{disk}/state")
                made.state = Path(disk, "state")
                one = made.backup("one", 4)
                self.succeeds(made.run())
                two = made.backup("two", 4)
                with open(f"{disk}/filler", "wb") as file, self.assertRaises(OSError):
                    while True:
                        file.write(bytes(65536))
                        file.flush()
                run = made.run()
                self.assertEqual(run.code, 2)
                self.assertIn("No space left on device", run.errors)
                self.assertNotIn("Traceback", run.errors)
                self.assertTrue(all(of["whole"] for of in made.copies()))
                os.remove(f"{disk}/filler")
                self.succeeds(made.run())
                self.assertEqual(made.restore("two"), two)
                self.assertEqual(made.restore("one", copy=made.copies()[0]["copy"]), one)
            finally:
                subprocess.run(["umount", "--lazy", disk], check=True)


class AnInterval(Case):
    """Between one copy and the next, whatever comes in meanwhile."""

    def recent(self, interval):
        made = self.make()
        made.backup("one", 1)
        self.succeeds(made.run())
        made.set(leastInterval=interval)
        return made

    def test_is_waited_for_and_ends_with_the_newest_state_in_the_bucket(self):
        made = self.recent(3600)
        first = json.loads((made.state / "last-copy.json").read_text())["copyAt"]
        made.backup("two", 1)
        began = time.time()
        process = made.start(by=[Path(__file__).with_name("patient.py"), made.folder])
        wait_for((made.folder / "asked").exists, 60, "the waiting")
        seconds = float((made.folder / "asked").read_text())
        self.assertTrue(first + 3600 - time.time() <= seconds <= first + 3600 - began, seconds)
        three = made.backup("three", 1)  # in good time, and without a copy of its own
        (made.folder / "over").touch()
        run = self.succeeds(made.finish(process))
        self.assertEqual((run.report["outcome"], run.report["copy"]["number"]), ("copied", 2))
        self.assertEqual(len(made.copies()), 2)
        self.assertEqual(made.restore("three"), three)

    def test_costs_no_time_where_nothing_is_new_and_keeps_locks_lengthened(self):
        made = self.recent(3600)
        made.set(keepDays=LOCK_DAYS + 5, lockDays=LOCK_DAYS + 6)
        run = made.run()
        self.assertEqual(run.report["outcome"], "unchanged")

    def test_waited_for_is_no_failure_when_it_is_told_to_stop_and_others_may_run_meanwhile(self):
        made = self.recent(3600)
        made.backup("two", 1)
        process = made.start()
        wait_for(lambda: "this one begins at" in (process.stdout.readline()), 60, "the waiting")
        made.set(leastInterval=0)
        other = self.succeeds(made.run())
        self.assertEqual((other.report["outcome"], other.report["copy"]["number"]), ("copied", 2))
        process.send_signal(signal.SIGTERM)
        run = self.succeeds(made.finish(process))
        self.assertEqual(run.report["outcome"], "waiting")
        self.assertTrue(run.report["ok"])
        self.assertEqual(run.report["lastSuccessAt"], other.report["finishedAt"])
        self.assertIn("stopped by SIGTERM while it waited, as the last copy is recent", run.report["notes"][0])


@unittest.skipUnless(os.geteuid() == 0, "only root can seal a repository")
class ASealedRepository(Case):
    """What is committed is root's, and both borg and the copy run as another account."""

    def sealed(self, **options):
        made = self.make(account=54321, **options)
        content = made.backup("one", 20)
        made.seal()
        return made, content

    def test_is_copied_whole_and_goes_on_taking_backups(self):
        made, content = self.sealed()
        run = self.succeeds(made.run("copy", "--settle", "1"))
        self.assertEqual(run.report["outcome"], "copied")
        self.assertEqual(list(made.snapshot.iterdir()), [])
        self.assertEqual(self.succeeds(made.run()).report["outcome"], "unchanged")
        two = made.backup("two", 3)
        run = self.succeeds(made.run())  # what is new isn't sealed yet
        self.assertLess(run.report["uploadedBytes"], 4e6)
        made.seal()
        three = made.backup("three", 1)
        made.seal()
        run = self.succeeds(made.run())
        # Nothing is read or sent anew because it was sealed meanwhile.
        self.assertLess(run.report["uploadedBytes"], 2e6)
        first, second, _third = made.copies()
        made.account = None  # who restores is root
        self.assertEqual(made.restore("one", copy=first["copy"]), content)
        self.assertEqual(made.restore("two", copy=second["copy"]), two)
        self.assertEqual(made.restore("three"), three)
        made.borg("check", "--verify-data", made.repository)

    def test_that_was_not_sealed_until_now_is_uploaded_only_once(self):
        made = self.make(account=54321)
        made.backup("one", 20)
        self.succeeds(made.run())
        made.seal()
        made.backup("two", 1)
        self.assertLess(self.succeeds(made.run()).report["uploadedBytes"], 2e6)

    def test_compacted_while_it_is_copied_costs_a_run_with_a_plain_reason(self):
        made, _content = self.sealed(proxy=True)
        # All files have been read when it asks what the bucket has, and none has been opened for its upload.
        came, goes_on = self.hold("GET", "?versions")
        process = made.start()
        wait_for(came.is_set, 60, "the look into the bucket")
        last = max(made.repository.glob("data/*/*"), key=lambda of: of.stat().st_size * int(of.name))
        content = last.read_bytes()
        last.unlink()
        goes_on.set()
        run = made.finish(process)
        self.assertEqual(run.code, 2, run)
        self.assertRegex(run.errors, r"data/0/\d+ left the repository while it was copied, .*the next run copies")
        self.assertEqual(len(run.errors.splitlines()), 1)
        self.assertEqual(made.copies(), [])
        # As retention does, which frees nothing that is still named.
        last.write_bytes(content)
        made.seal()
        self.succeeds(made.run())
        self.assertEqual([of["whole"] for of in made.copies()], [True])

    def test_is_copied_by_its_account_alone(self):
        made, _content = self.sealed()
        made.account = None
        run = made.run()
        self.assertEqual(run.code, 2)
        self.assertIn("must run as the user that owns", run.errors)
        self.assertIn("(user number 54321)", run.errors)
        made.account = 54321


class Attack(Case):
    """With the writer's key, as somebody has it who took over the server; and with every right that locks allow."""

    def setUp(self):
        self.made = self.make()
        self.contents = [self.made.backup("one", 4)]
        self.succeeds(self.made.run())
        self.contents.append(self.made.backup("two", 4))
        self.succeeds(self.made.run())
        self.finished = self.made.copies()
        self.writer, self.intruder = store.client("writer"), store.client("intruder")
        there = bucket.Bucket(self.made.settings, credentials.read_credentials(self.made.settings["credentials"]))
        self.versions = [of for found in there.versions("").versions.values() for of in found]
        self.there = there

    def all_restore(self):
        for name, content, copy in zip(("one", "two"), self.contents, self.finished, strict=True):
            self.assertEqual(self.made.restore(name, copy=copy["copy"]), content)
            self.assertEqual(self.made.restore(name, asOf=copy["finished"]), content)

    def test_the_writer_may_put_get_list_and_lengthen_and_nothing_else(self):
        of = self.versions[0]
        name, key = {"Bucket": self.made.bucket}, PREFIX + of.path
        one = {**name, "Key": key, "VersionId": of.id}
        now = datetime.datetime.now(datetime.timezone.utc)
        client = self.writer
        self.assertTrue(client.get_object(**one)["Body"].read())
        self.assertTrue(client.list_object_versions(**name, Prefix=PREFIX)["Versions"])
        client.put_object(**name, Key=f"{PREFIX}new", Body=b"x")
        longer = {"Mode": "COMPLIANCE", "RetainUntilDate": now + datetime.timedelta(days=LOCK_DAYS, hours=1)}
        client.put_object_retention(**name, Key=f"{PREFIX}new", Retention=longer)
        shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": now + datetime.timedelta(days=1)}
        weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": now + datetime.timedelta(days=LOCK_DAYS + 1)}
        default = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
        rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
        everybody = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": f"arn:aws:s3:::{self.made.bucket}/*",
        }
        new = {**name, "Key": f"{PREFIX}new", "Body": b"x"}
        own_key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}
        self.assertTrue(self.intruder.put_object(**new, **own_key)["VersionId"])
        for storage in ("STANDARD", "STANDARD_IA", "GLACIER_IR"):
            client.put_object(**new, StorageClass=storage)
        attempts = [
            (client.put_object, {**new, "StorageClass": "DEEP_ARCHIVE"}),
            (client.put_object, {**new, **own_key}),
            (client.create_multipart_upload, {**name, "Key": f"{PREFIX}new", "StorageClass": "DEEP_ARCHIVE"}),
            (client.delete_object, one),
            (client.delete_object, {**one, "BypassGovernanceRetention": True}),
            (client.delete_object, {**name, "Key": key}),
            (client.put_object_retention, {**one, "Retention": shorter}),
            (client.put_object_retention, {**one, "Retention": weaker}),
            (client.put_object_retention, {**one, "Retention": shorter, "BypassGovernanceRetention": True}),
            (client.put_object_legal_hold, {**one, "LegalHold": {"Status": "ON"}}),
            (client.put_object_lock_configuration, {**name, "ObjectLockConfiguration": default}),
            (client.put_bucket_versioning, {**name, "VersioningConfiguration": {"Status": "Suspended"}}),
            (client.put_bucket_lifecycle_configuration, {**name, "LifecycleConfiguration": {"Rules": [rule]}}),
            (
                client.put_bucket_policy,
                {**name, "Policy": json.dumps({"Version": "2012-10-17", "Statement": [everybody]})},
            ),
            (client.put_bucket_acl, {**name, "ACL": "public-read"}),
            (client.delete_bucket_policy, name),
            (client.delete_bucket, name),
            (client.put_object, {**name, "Key": "elsewhere/x", "Body": b"x"}),
            (client.get_object, {"Bucket": "copy-ready", "Key": "x"}),
            (client.create_bucket, {"Bucket": "another"}),
        ]
        for action, arguments in attempts:
            with self.subTest(action.__name__):
                code = self.refused(action, **arguments)
                self.assertIn(code, ("AccessDenied", "InvalidRequest", "NotImplemented"), arguments)
        self.assertLess(self.until(self.made, of), time.time() + (LOCK_DAYS + 0.1) * 86400)
        self.all_restore()

    def test_overwriting_everything_harms_no_finished_copy(self):
        for of in self.versions:
            self.writer.put_object(Bucket=self.made.bucket, Key=PREFIX + of.path, Body=os.urandom(of.size % 5000))
        self.all_restore()
        # The next copy isn't misled either, and the check tells.
        content = self.made.backup("three", 1)
        self.made.run()
        self.assertEqual(self.made.restore("three"), content)

    def test_the_same_bytes_put_there_with_a_short_lock_before_or_after_the_copy_are_in_no_copy_with_it(self):
        content = self.made.backup("three", 1)
        tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)

        def put(segments):
            for of in segments:
                self.writer.put_object(
                    Bucket=self.made.bucket, Key=f"{PREFIX}repository/{of.relative_to(self.made.repository)}",
                    Body=of.read_bytes(), ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=tomorrow,
                )  # fmt: skip

        put(self.made.repository.glob("data/*/*"))
        (self.made.state / "bucket-state.json").unlink()
        self.succeeds(self.made.run())
        newest = self.versions_of_index()[0]
        index = bucket_copies.read_index(self.there, newest)
        originals = {(of.path, of.id) for of in self.versions}
        known = {path for path, _id in originals}
        for path, of in index.objects.items():
            until = self.there.head(f"repository/{path}", of.version)["until"]
            self.assertGreater(until, time.time() + KEEP_DAYS * 86400, path)
            if path.startswith("data/") and f"repository/{path}" in known:
                self.assertIn((f"repository/{path}", of.version), originals)
        self.assertEqual(self.made.restore("three"), content)

    def test_locked_versions_cannot_be_deleted_by_anybody_and_delete_markers_hide_nothing_from_a_restore(self):
        for of in self.versions:
            where = {"Bucket": self.made.bucket, "Key": PREFIX + of.path}
            self.assertEqual(self.refused(self.intruder.delete_object, **where, VersionId=of.id), "AccessDenied")
            bypass = {"VersionId": of.id, "BypassGovernanceRetention": True}
            self.assertEqual(self.refused(self.intruder.delete_object, **where, **bypass), "AccessDenied")
        for key in {PREFIX + of.path for of in self.versions}:
            self.assertTrue(self.intruder.delete_object(Bucket=self.made.bucket, Key=key)["DeleteMarker"])
        self.all_restore()
        run = self.made.run("check")
        self.assertEqual(run.code, 1)
        self.assertIn("hidden by delete markers", run.errors)

    def test_a_forged_index_is_told_of_and_an_earlier_copy_is_a_word_away(self):
        newest = self.versions_of_index()[0]
        index = bucket_index.unpack_index(b"".join(self.there.read(f"index/{newest.path}", newest.id)))
        forged = dict(index.objects)
        forged["config"] = bucket_index.Stored(forged["config"].version, forged["config"].size, "0" * 64)
        time.sleep(1.1)  # the bucket's clock counts seconds
        lie = bucket_index.Index(
            index.deployment, index.repository, index.transaction, 99, "2031-01-01T00:00:00Z", forged
        )
        self.there.put("index/20310101T000000Z-99.json.gz", bucket_index.pack_index(lie))
        time.sleep(1.1)
        self.there.put(f"index/{newest.path}", b"not an index")
        run = self.made.run("check")
        self.assertEqual(run.code, 1, run)
        self.assertIn("was not written by this machine", run.errors)
        with tempfile.TemporaryDirectory() as folder:
            fetched = self.made.fetch("fetch", f"{folder}/repository")
        self.assertEqual(fetched.returncode, 2)
        self.assertIn("is passed over, it is no index", fetched.stdout)
        self.assertIn("config in the bucket isn't what the copy's index says", fetched.stderr)
        self.all_restore()

    def test_a_file_of_a_forged_copy_that_would_crash_borg_is_never_given_to_it(self):
        newest = self.versions_of_index()[0]
        index = bucket_copies.read_index(self.there, newest)
        path = f"index.{index.transaction}"
        for number, (name, content, words) in enumerate(
            (
                (path, b"BORG_IDX" + struct.pack("<iibb", 1, 100, 4, 8) + bytes(1200), "keys have 4 bytes"),
                (path, b"BORG_IDX" + struct.pack("<iibb", -5, 2000, 32, 8) + bytes(80000), "-5 of 2000 places"),
                (f"integrity.{index.transaction}", b"\x91" * (2 << 20), "too large to be borg's"),
            )
        ):
            with self.subTest(words):
                version = self.there.put(f"repository/{name}", content)
                stored = bucket_index.Stored(version, len(content), hashlib.sha256(content).hexdigest())
                made = f"2031-01-01T00:00:0{number}Z"
                lie = bucket_index.Index(
                    index.deployment, index.repository, index.transaction, 99, made, {**index.objects, name: stored}
                )
                time.sleep(1.1)  # the bucket's clock counts seconds
                self.there.put(bucket_index.index_key(made, index.transaction), bucket_index.pack_index(lie))
                with tempfile.TemporaryDirectory() as folder:
                    fetched = self.made.fetch("fetch", f"{folder}/repository")
                    self.assertFalse(Path(folder, "repository", path).exists() and name == path)
                    self.assertEqual(list(Path(folder).glob("repository/data/*/*")), [])
                self.assertEqual(fetched.returncode, 2)
                self.assertIn(words, fetched.stderr)
                self.assertIn("--copy-as-of", fetched.stderr)
        self.all_restore()

    def test_an_index_of_what_is_not_there_is_passed_over(self):
        newest = self.versions_of_index()[0]
        index = bucket_index.unpack_index(b"".join(self.there.read(f"index/{newest.path}", newest.id)))
        gone = {path: bucket_index.Stored("nothing", of.size, of.sha256) for path, of in index.objects.items()}
        time.sleep(1.1)
        lie = bucket_index.Index(index.deployment, index.repository, index.transaction, 99, index.made, gone)
        self.there.put("index/20310101T000000Z-99.json.gz", bucket_index.pack_index(lie))
        self.assertEqual(self.made.restore("two"), self.contents[1])

    def test_an_old_index_put_there_again_is_told_of_by_a_restore(self):
        oldest = self.versions_of_index()[-1]
        content = b"".join(self.there.read(f"index/{oldest.path}", oldest.id))
        time.sleep(1.1)
        self.there.put("index/20310101T000000Z-99.json.gz", content)
        with tempfile.TemporaryDirectory() as folder:
            fetched = self.made.fetch("fetch", f"{folder}/repository")
            self.assertEqual(fetched.returncode, 0, fetched.stderr)
            warned = re.search(r"^WARNING: .* --copy-as-of (\S+)$", fetched.stdout, re.M)
            self.assertIsNotNone(warned, fetched.stdout)
            other = self.made.fetch("fetch", f"{folder}/repository", asOf=warned[1])
        self.assertNotIn("WARNING", other.stdout)
        self.assertIn(f"copy {len(self.contents)}, index/", other.stdout)

    def test_indexes_that_cannot_be_read_stop_no_restore_and_no_list(self):
        time.sleep(1.1)
        names = iter(f"20310101T00000{number}Z-99.json.gz" for number in range(10))
        for content in (gzip.compress(b"[" * 200_000), gzip.compress(bytes(64 << 20)), b""):
            self.there.put(f"index/{next(names)}", content)
        foreign = next(names)
        self.intruder.put_object(
            Bucket=self.made.bucket, Key=f"{PREFIX}index/{foreign}", Body=b"x",
            SSECustomerAlgorithm="AES256", SSECustomerKey=b"k" * 32,
        )  # fmt: skip
        copies = self.made.copies()
        self.assertEqual([of["whole"] for of in copies], [True] * len(self.contents) + [False] * 4)
        self.assertIn("it can't be read: the bucket", copies[-1]["problem"])
        with tempfile.TemporaryDirectory() as folder:
            fetched = self.made.fetch("fetch", f"{folder}/repository")
        self.assertEqual((fetched.returncode, fetched.stderr), (0, ""))
        self.assertIn(f"note: index/{foreign} of ", fetched.stdout)

    def test_objects_that_cannot_be_read_stop_no_copy(self):
        for name in ("zzz", self.versions[0].path.removeprefix("repository/")):
            self.intruder.put_object(
                Bucket=self.made.bucket, Key=f"{PREFIX}repository/{name}", Body=b"x",
                SSECustomerAlgorithm="AES256", SSECustomerKey=b"k" * 32,
            )  # fmt: skip
        content = self.made.backup("three", 1)
        self.succeeds(self.made.run())
        self.assertEqual(self.made.restore("three"), content)

    def test_a_bucket_that_fails_is_not_taken_for_one_without_copies(self):
        proxy = Proxy(store.port)
        self.addCleanup(proxy.stop)
        proxy.answer = lambda method, path: (403, "RequestTimeTooSkewed") if "/integrity." in path else None
        with tempfile.TemporaryDirectory() as folder:
            fetched = self.made.fetch("fetch", f"{folder}/repository", proxy.endpoint)
        self.assertEqual(fetched.returncode, 2)
        self.assertIn("clock is wrong", fetched.stderr)
        self.assertNotIn("passed over", fetched.stdout)

    def versions_of_index(self):
        return bucket_copies.copies_in(self.there)


class TheProgramForARecovery(Case):
    """It lies beside the copies, under a name that carries its sum."""

    def test_is_put_there_once_and_locked_and_earlier_ones_stay(self):
        made = self.make(proxy=True)
        made.backup("one", 1)
        self.succeeds(made.run())
        program = pack.program()
        puts = [path for method, path in self.proxy.requests if method == "PUT" and ".pyz" in path]
        self.assertEqual(len(puts), 1)
        found = store.client("reader").get_object(Bucket=made.bucket, Key=f"{PREFIX}{program.name}")
        self.assertEqual(hashlib.sha256(found["Body"].read()).hexdigest(), program.sha256)
        there = bucket.Bucket(made.settings, credentials.read_credentials(made.settings["credentials"]))
        lock = there.head(program.name, found["VersionId"])
        self.assertEqual(lock["mode"], "COMPLIANCE")
        self.assertGreater(lock["until"], time.time() + (LOCK_DAYS - 0.1) * 86400)
        # Another one, as of a later version of this project, whose copy has to remember both.
        state = made.state / "bucket-state.json"
        known = json.loads(state.read_text())
        earlier = f"recover-{'0' * 12}.pyz"
        known["programs"] = {earlier: known["programs"][program.name]}
        state.write_text(json.dumps(known))
        self.succeeds(made.run())
        self.assertEqual(set(json.loads(state.read_text())["programs"]), {earlier, program.name})
        self.proxy.requests.clear()
        self.succeeds(made.run())
        self.assertEqual([path for _method, path in self.proxy.requests if ".pyz" in path], [])
        self.succeeds(made.run("check"))

    def test_that_cannot_be_put_there_is_a_problem_and_the_copy_is_made(self):
        made = self.make(proxy=True)
        made.backup("one", 1)
        self.proxy.answer = lambda method, path: (403, "AccessDenied") if ".pyz" in path else None
        run = made.run()
        self.assertEqual((run.code, run.report["outcome"]), (1, "copied"), run)
        self.assertIn("the program for a recovery can't be put into the bucket", run.report["problems"][0])
        self.proxy.answer = lambda method, path: None
        self.succeeds(made.run())


class Locks(Case):
    def test_are_lengthened_before_they_run_out_and_only_then(self):
        made = self.make(proxy=True, default=10)
        made.set(keepDays=5, lockDays=10)
        made.backup("one", 4)
        self.succeeds(made.run())
        self.proxy.requests.clear()
        # Time goes by: what was far enough in the future isn't any more.
        made.set(keepDays=15, lockDays=25)
        run = made.run()
        self.assertIn("locks for 10 days", run.errors)
        files = run.report["files"]
        self.assertEqual(run.report["extended"], files)
        puts = [path for method, path in self.proxy.requests if method == "PUT" and "retention" in path]
        self.assertEqual(len(puts), files + 2)  # and the index, and the program for a recovery
        there = bucket.Bucket(made.settings, credentials.read_credentials(made.settings["credentials"]))
        newest = bucket_copies.copies_in(there)[0]
        index = bucket_index.unpack_index(b"".join(there.read(f"index/{newest.path}", newest.id)))
        for path, of in index.objects.items():
            self.assertGreater(there.head(f"repository/{path}", of.version)["until"], time.time() + 24.9 * 86400)
        self.proxy.requests.clear()
        self.assertEqual(made.run().report["extended"], 0)
        self.assertEqual({method for method, _path in self.proxy.requests} - {"GET", "HEAD"}, set())

    def test_of_older_segments_are_lengthened_when_a_new_copy_names_them(self):
        made = self.make(default=10)
        made.set(keepDays=5, lockDays=10)
        made.backup("one", 4)
        self.succeeds(made.run())
        made.set(keepDays=9, lockDays=30)
        made.backup("two", 2)
        # The bucket's own default covers what is new.
        made.run("extend")
        run = made.run("check")
        self.assertNotIn("aren't locked", run.errors)

    def test_go_on_being_lengthened_when_the_repository_is_gone(self):
        made = self.make(default=10)
        made.set(keepDays=5, lockDays=10)
        made.backup("one", 4)
        self.succeeds(made.run())
        made.repository.rename(made.home / "lost")
        made.set(keepDays=8, lockDays=25)
        run = made.run()
        self.assertEqual((run.code, run.report["extended"]), (2, 0), run)
        made.set(keepDays=12, lockDays=25)
        run = made.run()
        self.assertEqual(run.code, 2)
        self.assertGreater(run.report["extended"], 5)
        self.assertRegex(run.errors, "repository .* can't be read: No such file")

    def test_of_a_bucket_stricter_than_asked_for_are_lengthened_all_the_same(self):
        made = self.make(default=10)  # in compliance mode
        made.set(mode="GOVERNANCE", keepDays=5, lockDays=10)
        made.backup("one", 2)
        self.succeeds(made.run())
        made.set(keepDays=15, lockDays=25)
        run = made.run()
        self.assertNotIn("can't be lengthened", run.errors)
        self.assertEqual(run.report["extended"], run.report["files"])
        (made.state / "bucket-state.json").unlink()
        made.set(keepDays=26, lockDays=29)
        made.backup("two", 1)
        run = made.run()
        self.assertNotIn("can't be lengthened", run.errors)
        self.assertNotIn("aren't locked", made.run("check", "--all").errors)

    def test_of_another_mode_are_told_of_and_do_not_run_out_once_compliance_is_asked_for(self):
        made = self.make(mode="GOVERNANCE", default=10)
        made.set(mode="GOVERNANCE", keepDays=5, lockDays=10)
        made.backup("one", 2)
        self.succeeds(made.run())
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": LOCK_DAYS}}
        store.admin.put_object_lock_configuration(
            Bucket=made.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        made.set(mode="COMPLIANCE", keepDays=KEEP_DAYS, lockDays=LOCK_DAYS)
        run = made.run()
        self.assertEqual(run.code, 1)
        self.assertIn("they are in governance mode, in which they were lengthened", run.errors)
        there = bucket.Bucket(made.settings, credentials.read_credentials(made.settings["credentials"]))
        for path, found in there.versions("repository/").versions.items():
            self.assertGreater(there.head(f"repository/{path}", found[0].id)["until"], time.time() + KEEP_DAYS * 86400)
        # What comes from now on is as asked for.
        made.set(prefix="moh/anew/")
        made.backup("two", 1)
        self.succeeds(made.run())
        self.succeeds(made.run("check", "--all"))

    def test_that_are_too_short_are_told_of_by_the_check(self):
        made = self.make(default=10)
        made.set(keepDays=5, lockDays=10)
        made.backup("one", 2)
        self.succeeds(made.run())
        made.set(keepDays=40, lockDays=50)
        run = made.run("check")
        self.assertEqual(run.code, 1)
        self.assertRegex(run.errors, "aren't locked in COMPLIANCE mode for 40 days")


class Checking(Case):
    """What a check says of a bucket in which nothing is wrong, or nothing but the connection."""

    def at_the_index(self, happens):
        """Do something once the bucket has taken an index, before the copy hears of it."""
        done = []

        def change(headers, content):
            writes = [path for method, path in self.proxy.requests if method == "PUT" and "/index/" in path]
            if writes and "retention" not in writes[-1] and not done:
                done.append(True)
                happens()
            return headers, content

        self.proxy.requests.clear()
        self.proxy.change = change

    def nothing_is_wrong(self, check):
        self.assertEqual((check.code, check.errors), (0, ""), check)
        self.assertEqual(check.report["problems"], [])

    def one_whose_copy_was_killed_as_it_finished(self):
        made = self.make(proxy=True)
        made.backup("one", 2)
        self.succeeds(made.run())
        made.backup("two", 2)
        self.at_the_index(lambda: kill(copy))
        copy = made.start()
        wait_for(lambda: copy.poll() is not None)
        return made

    def test_while_a_copy_finishes_says_nothing_of_a_stolen_key(self):
        made = self.make(proxy=True)
        made.backup("one", 2)
        self.succeeds(made.run())
        made.backup("two", 2)
        checks = []
        self.at_the_index(lambda: checks.append(made.run("check")))
        copy = self.succeeds(made.run())
        self.nothing_is_wrong(checks[0])
        self.assertEqual(checks[0].report["copy"], copy.report["copy"]["key"])

    def test_after_a_copy_that_was_killed_as_it_finished_says_nothing_of_a_stolen_key(self):
        made = self.one_whose_copy_was_killed_as_it_finished()
        self.nothing_is_wrong(made.run("check"))
        self.succeeds(made.run())
        self.nothing_is_wrong(made.run("check"))

    def test_says_that_somebody_has_the_key_when_an_index_isnt_what_this_machine_wrote(self):
        made = self.one_whose_copy_was_killed_as_it_finished()
        written = json.loads((made.state / "bucket-state.json").read_text())["written"]
        store.client("writer").put_object(
            Bucket=made.bucket, Key=f"{PREFIX}{written['key']}", Body=b"other", ContentMD5="eV8yArF8trw9S3cdjGyerw=="
        )
        check = made.run("check")
        self.assertIn("somebody else has the writer's key", check.errors)

    def test_goes_on_where_a_connection_broke_and_gives_an_object_up_only_after_several(self):
        made = self.make(proxy=True)
        made.backup("one", 6)
        self.succeeds(made.run())
        broke = {}

        def cut(method, path):
            if method != "GET" or "/repository/data/" not in path:
                return None
            broke[path] = broke.get(path, 0) + 1
            return 300_000 if broke[path] <= 2 else None

        self.proxy.cut = cut
        self.nothing_is_wrong(made.run("check", "--all"))
        self.assertEqual(max(broke.values()), 3)
        self.proxy.cut = lambda method, path: 1000 if method == "GET" and "/repository/data/" in path else None
        there = bucket.Bucket(made.settings, credentials.read_credentials(made.settings["credentials"]))
        [path, [version]] = next(iter(there.versions("repository/", lambda of: of.size > 1e6).versions.items()))
        self.proxy.requests.clear()
        with mock.patch("time.sleep") as slept, self.assertRaisesRegex(errors.BucketError, f"{path} broke off"):
            there.checksum(f"repository/{path}", version.id)
        self.assertEqual(len(self.proxy.requests), bucket.ATTEMPTS)
        self.assertLess(sum(of.args[0] for of in slept.call_args_list), 60)


class Mistakes(Case):
    """One line each, exit code 2, nothing in the bucket."""

    def says(self, made, words, code=2, action="copy"):
        run = made.run(action)
        self.assertEqual(run.code, code, run)
        self.assertRegex(run.errors, words)
        self.assertNotIn("Traceback", run.errors)
        self.assertLessEqual(len(run.errors.splitlines()), 2, run)
        for _key, secret in KEYS.values():
            self.assertNotIn(secret, run.errors + run.output)

    def test_are_told_in_a_line(self):
        made = self.make(proxy=True)
        made.backup("one", 1)
        credentials = Path(made.settings["credentials"])
        right = credentials.read_text()
        good = dict(made.settings)

        made.set(bucket="nothing-here")
        self.says(made, "the bucket nothing-here at http://.*the key is refused: .* or the bucket's name is wrong")
        made.set(**good)
        credentials.write_text(right.replace("WRITER", "NOBODY"))
        self.says(made, "the access key is not known there")
        credentials.write_text(right.replace("writer-secret", "wrong"))
        self.says(made, "the secret key doesn't belong to the access key")
        credentials.write_text("aws_secret_access_key = writer-secret\n")
        self.says(made, r"credentials: must have \[default\] with aws_access_key_id")
        credentials.unlink()
        self.says(made, "the bucket's credentials .* can't be read: No such file")
        credentials.write_text(right)
        self.proxy.answer = lambda method, path: (403, "RequestTimeTooSkewed")
        self.says(made, "clock is wrong")
        self.proxy.answer = lambda method, path: (403, "AccessDenied") if method == "PUT" else None
        self.says(made, r"\d+ files didn't arrive, .*the key is refused")
        self.proxy.answer = lambda method, path: None
        made.set(repository="/nowhere/at/all")
        self.says(made, "/nowhere/at/all can't be read: No such file")
        made.set(repository=str(made.source))
        self.says(made, "is no borg repository")
        made.set(**{**good, "keepDays": 40})
        self.says(made, "lockDays must be more than keepDays")
        self.assertEqual(made.copies(), [])

    def test_a_bucket_without_versioning_is_refused_and_one_without_locks_gets_a_copy_and_a_warning(self):
        made = self.make(lock=False)
        made.backup("one", 1)
        self.says(made, "has no versioning")
        store.admin.put_bucket_versioning(Bucket=made.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.says(made, "has no object lock", 1)
        self.assertEqual(len(made.copies()), 1)

    def test_a_bucket_that_stays_out_of_service_is_told_of(self):
        made = self.make(proxy=True)
        made.backup("one", 1)
        self.proxy.answer = lambda method, path: (503, "ServiceUnavailable")
        self.says(made, "out of service, and still is after several attempts")

    def test_two_at_once_do_not_get_into_each_others_way(self):
        made = self.make()
        made.backup("one", 8)
        made.set(uploadRate=10)
        first = made.start()
        upload_begins(first)
        self.says(made, "another copy for moh is running")
        made.set(uploadRate=0)
        kill(first)

    def test_no_secret_is_in_a_command_line_or_an_environment(self):
        made = self.make()
        made.backup("one", 8)
        made.set(uploadRate=10)
        process = made.start()
        upload_begins(process)
        for name in ("cmdline", "environ"):
            self.assertNotIn(b"writer-secret", Path(f"/proc/{process.pid}/{name}").read_bytes())
        kill(process)

    def test_describe_tells_the_buckets_protection(self):
        made = self.make()
        described = json.loads(made.run("describe").output)
        lock = {"mode": "COMPLIANCE", "days": LOCK_DAYS}
        self.assertEqual(described, {"versioning": True, "lock": lock, "publicAccessBlock": None, "problems": []})
        self.assertGreater(LOCK_DAYS, KEEP_DAYS)


class Fetching(Case):
    def test_goes_on_where_it_was_interrupted_and_fetches_what_is_damaged_again(self):
        made = self.make(proxy=True)
        made.backup("one", 20)
        self.succeeds(made.run())
        with tempfile.TemporaryDirectory() as folder:
            target = f"{folder}/repository"
            # The last ones are refused: as good as an interruption.
            self.proxy.answer = lambda method, path: (403, "AccessDenied") if "/integrity." in path else None
            first = made.fetch("fetch", target, self.proxy.endpoint)
            self.assertEqual(first.returncode, 2)
            self.proxy.answer = lambda method, path: None
            segment = next(Path(target).glob("data/0/*"))
            segment.write_bytes(bytes(segment.stat().st_size))
            self.proxy.requests.clear()
            second = made.fetch("fetch", target, self.proxy.endpoint)
            self.assertEqual(second.returncode, 0, second.stderr)
            self.assertIn("are here already", second.stdout)
            gets = [path for method, path in self.proxy.requests if method == "GET" and "repository/" in path]
            self.assertLess(len([path for path in gets if "versionId" in path]), 8)
            made.environment["BORG_BASE_DIR"] += "-2"
            made.borg("check", target)
            third = made.fetch("fetch", target)
            self.assertEqual(third.returncode, 0, third.stderr)

    def test_never_writes_into_a_directory_with_something_else(self):
        made = self.make()
        made.backup("one", 1)
        self.succeeds(made.run())
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "mine").write_text("x")
            done = made.fetch("fetch", folder)
            self.assertEqual(done.returncode, 2)
            self.assertIn("isn't empty; nothing was changed", done.stderr)
            self.assertEqual(os.listdir(folder), ["mine"])

    def test_survives_a_bucket_that_answers_with_errors_now_and_then(self):
        made = self.make(proxy=True)
        made.backup("one", 10)
        self.succeeds(made.run())
        self.proxy.answer = slow_at_first((503, "SlowDown"))
        with tempfile.TemporaryDirectory() as folder:
            done = made.fetch("fetch", f"{folder}/repository", self.proxy.endpoint)
            self.assertEqual(done.returncode, 0, done.stderr)


def processes():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = Path("/proc", name, "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            yield int(name), words


def children(made):
    """Borg, and what it runs, that work on a deployment's repository."""
    found = [(pid, words) for pid, words in processes() if any(str(made.home) in of for of in words)]
    return [pid for pid, words in found if pid != os.getpid()]


def slow_at_first(*errors):
    """An answer of the proxy's: whoever asks for something is to slow down, gets one of the errors in turn when he asks
    again, and what he wants after that."""
    asked, in_turn = collections.Counter(), itertools.cycle(errors)

    def answer(*request):
        asked[request] += 1
        if asked[request] == 1:
            return 503, "SlowDown"
        return next(in_turn) if asked[request] == 2 else None

    return answer


def upload_begins(process):
    """Wait until a copy says that it uploads."""
    wait_for(lambda: "files are new" in process.stdout.readline(), 60, "the upload")


if __name__ == "__main__":
    unittest.main()
