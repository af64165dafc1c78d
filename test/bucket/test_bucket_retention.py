"""Old copies are removed from a real S3 server, and what stays restores: also after kills, and beside locks."""

import random
import signal
import threading
import time

import retained
from botocore.exceptions import ClientError
from parts import LOCK_DAYS, PREFIX, kill, wait_for
from retained import Case, Operator, setUpModule  # noqa: F401

KILLS = 10


class Removal(Case):
    def test_takes_old_copies_and_their_files_and_the_newest_restores(self):
        self.make()
        held = self.history()
        before = self.versions()
        operator = Operator(self.made)
        self.assertEqual(operator.plan["doubts"], {})
        self.assertEqual([bool(of["why"]) for of in operator.plan["copies"]], [True, False, False, False])
        self.assertEqual(self.versions(), before, "a plan changed something")
        code, result, errors = operator.go().end()
        self.assertEqual(code, 0, errors)
        done = result["done"]
        self.assertEqual((done["copies"], done["problems"]), (3, []))
        self.assertEqual(done["versions"], operator.plan["going"]["versions"])
        self.assertEqual(done["bytes"], operator.plan["going"]["bytes"])
        self.assertEqual(len(before) - len(self.versions()), done["copies"] + done["versions"])
        self.assertGreater(done["readBack"], 0)
        self.assertEqual([of["key"] for of in result["whole"]], [operator.plan["copies"][0]["key"]])
        self.assert_whole(1)
        self.assertEqual(self.made.restore("a3"), held)
        # And the next copy finds its way.
        held = self.made.backup("later", 1)
        self.copy()
        self.assert_whole(2)
        self.assertEqual(self.made.restore("later"), held)
        self.assertEqual(self.made.copies()[-1]["number"], 5)

    def test_is_not_begun_where_nobody_gives_the_word(self):
        self.make()
        self.history(2)
        before = self.versions()
        operator = Operator(self.made)
        code, result, errors = operator.end()
        self.assertEqual((code, result), (0, None), errors)
        self.assertEqual(self.versions(), before)

    def test_of_what_is_young_is_left_for_later(self):
        self.make()
        self.history(2)
        operator = Operator(self.made, keepDays=1)
        self.assertEqual(operator.plan["going"], {"copies": 0, "versions": 0, "bytes": 0})
        self.assertEqual(operator.plan["copies"][0]["why"], ["last 1 days"])
        operator.end()

    def test_takes_delete_markers_and_what_no_copy_ever_named_and_nothing_beside_the_copies(self):
        self.make()
        where = {"Bucket": self.bucket, "Key": f"{PREFIX}repository/data/0/999"}
        retained.store.admin.put_object(**where, Body=b"left by a copy that was interrupted")
        for key in ("recover-0123456789ab.pyz", "other"):
            retained.store.admin.put_object(Bucket=self.bucket, Key=PREFIX + key, Body=b"x")
        retained.store.admin.put_object(Bucket=self.bucket, Key="another/repository/data/0/1", Body=b"x")
        held = self.history(1)
        config = f"{PREFIX}repository/config"
        retained.store.admin.delete_object(Bucket=self.bucket, Key=config)
        time.sleep(1.1)
        self.made.backup("a1", 1)
        self.copy()
        code, result, errors = Operator(self.made).go().end()
        self.assertEqual(code, 0, errors)
        self.assertEqual(result["done"]["problems"], [])
        keys = {key for key, _ in self.versions()}
        self.assertNotIn(where["Key"], keys)
        self.assertLessEqual({f"{PREFIX}{key}" for key in ("recover-0123456789ab.pyz", "other")}, keys)
        self.assertEqual(retained.store.admin.list_objects_v2(Bucket=self.bucket, Prefix="another/")["KeyCount"], 1)
        markers = retained.store.admin.list_object_versions(Bucket=self.bucket, Prefix=PREFIX).get("DeleteMarkers", [])
        self.assertEqual(markers, [])
        self.assertEqual(self.made.restore("a0"), held)

    def test_is_stopped_by_ctrl_c_or_a_closed_window_and_goes_on(self):
        self.make()
        held = self.history()

        def slowly(headers, content):
            time.sleep(0.2)
            return headers, content

        for stop in (lambda of: of.send_signal(signal.SIGINT), lambda of: of.stdin.close()):
            deleted = threading.Event()
            self.proxy.answer = lambda method, _path, of=deleted: of.set() if method == "DELETE" else None
            quickly, self.proxy.change = self.proxy.change, slowly
            operator = Operator(self.made, self.proxy.endpoint).go()
            self.assertTrue(deleted.wait(60))
            stop(operator.process)
            self.proxy.change = quickly
            code, _, errors = operator.end()
            self.assertEqual(code, 130, errors)
            self.assertIn("run it again", errors)
        code, result, errors = Operator(self.made).go().end()
        self.assertEqual((code, result["done"]["problems"]), (0, []), errors)
        self.assert_whole(1)
        self.assertEqual(self.made.restore("a3"), held)

    def kill_one_after(self, limit, **request):
        """Kill a run when it has sent so many deletions, or all of them."""
        sent = []
        self.proxy.answer = lambda method, path: sent.append(path) if method == "DELETE" else None
        operator = Operator(self.made, self.proxy.endpoint, **request)
        self.assertEqual(operator.plan["doubts"], {})
        operator.go()
        wait_for(lambda: len(sent) >= limit or operator.process.poll() is not None, what="a deletion")
        kill(operator.process)

    def test_killed_at_any_moment_leaves_every_listed_copy_whole_and_is_finished_by_the_next_run(self):
        self.make()
        # Of a repository that came before this one, so that the numbers of borg's transactions don't matter.
        former, now = "cd" * 32, self.made.borg("config", self.made.repository, "id").stdout.strip()
        chance = random.Random(5)
        self.put_copy(1, 20, former)
        for number in range(KILLS):
            self.put_copy(2 + number, 20, former)
            with self.subTest(number=number):
                self.kill_one_after(chance.randrange(1, 24), repositories=[former])
                copies = self.made.copies()
                self.assertTrue(copies and all(of["whole"] for of in copies), copies)
        held = self.made.backup("last", 1)
        self.copy()
        code, result, errors = Operator(self.made, repositories=[now, former]).go().end()
        self.assertEqual((code, result["done"]["problems"]), (0, []), errors)
        # The newest of each of the two repositories, and no file that neither names.
        self.assert_whole(2)
        self.assertEqual(len(self.versions("repository/")), sum(of["files"] for of in self.made.copies()))
        self.assertEqual(self.made.restore("last"), held)


class Locked(Case):
    def unlock(self, versions):
        """Let locks end soon, as whoever may go around them in governance mode can. SeaweedFS takes a change of a lock
        for one of the version, which looks young then; AWS doesn't."""
        last = max(self.shorten(key, version) for key, version in sorted(versions))
        time.sleep(max(0, last - time.time()) + 1)

    def shorten(self, key, version):
        """Let a lock end soon, and return when that is."""
        seconds = 1
        while True:
            until = time.time() + seconds
            try:
                retained.store.admin.put_object_retention(
                    Bucket=self.bucket, Key=key, VersionId=version, BypassGovernanceRetention=True,
                    Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
                )  # fmt: skip
                return until
            except ClientError:
                # No lock may end in the past, which this one does when the request took longer than that.
                if time.time() < until:
                    raise
                seconds *= 2

    def test_versions_stay_are_counted_and_go_when_their_locks_have_ended(self):
        self.make(lock=True, mode="GOVERNANCE")
        self.history()
        before = self.versions()
        code, result, errors = Operator(self.made).go().end()
        self.assertEqual(code, 0, errors)
        done = result["done"]
        self.assertEqual((done["copies"], done["versions"], done["locked"]["copies"]), (0, 0, 3), done)
        self.assertAlmostEqual(done["locked"]["until"], time.time() + LOCK_DAYS * 86400, delta=3600)
        self.assertEqual(self.versions(), before)

        # The locks of indexes end first: their copies go, their files stay.
        self.unlock(self.versions("index/"))
        done = Operator(self.made).go().end()[1]["done"]
        self.assertEqual((done["copies"], done["versions"], done["locked"]["copies"]), (3, 0, 0), done)
        self.assertGreater(done["locked"]["versions"], 0)
        self.assertGreater(done["locked"]["bytes"], 3_000_000)
        self.assert_whole(1)

        self.unlock(self.versions("repository/"))
        held = self.made.backup("later", 1)
        self.copy()
        done = Operator(self.made).go().end()[1]["done"]
        self.assertGreater(done["bytes"], 3_000_000)
        self.assertEqual(done["locked"]["versions"], 0)
        self.assertEqual(self.made.restore("later"), held)

    def test_index_keeps_the_files_of_its_copy_although_their_locks_have_ended(self):
        self.make(lock=True, mode="GOVERNANCE")
        self.history(2)
        self.unlock(self.versions("repository/"))
        done = Operator(self.made).go().end()[1]["done"]
        self.assertEqual((done["copies"], done["locked"]["copies"], done["versions"]), (0, 1, 0), done)
        self.assert_whole(2)
