import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import fixture

from chtbackup.alert import describe as alert_describe
from chtbackup.base.errors import Stopped
from chtbackup.bucket import access as bucket_access
from chtbackup.bucket import (
    borg_index,
    credentials,
    errors,
    locks,
    pace,
    parallel,
    present,
    reasons,
    report,
    snapshot,
    upload,
    with_lock,
)
from chtbackup.bucket import choose as bucket_choose
from chtbackup.bucket import copies as bucket_copies
from chtbackup.bucket import copy as bucket_copy
from chtbackup.bucket import fetch as bucket_fetch
from chtbackup.bucket import index as bucket_index
from chtbackup.bucket import memory as copy_memory
from chtbackup.bucket import plan as copy_plan
from chtbackup.bucket.index import Index, Listing, Stored, Version
from chtbackup.bucket.plan import DAY, Held, Known

SHA = "a" * 64
SETTINGS = {
    "deployment": "moh",
    "repository": "/srv/cht-backup/moh/repository",
    "snapshot": "/srv/cht-backup/moh/snapshot",
    "state": "/var/lib/cht-backup/moh",
    "endpoint": None,
    "region": "eu-west-1",
    "bucket": "copies",
    "prefix": "moh/",
    "pathStyle": False,
    "credentials": None,
    "mode": "COMPLIANCE",
    "keepDays": 90,
    "lockDays": 120,
    "lockWait": 600,
    "leastInterval": 0,
    "maxAge": 48,
    "uploadRate": 0,
    "storageClass": "GLACIER_IR",
    "readBack": 20,
}


def version(path="data/0/1", id_="v1", size=5, etag="e1", modified=100.0, latest=True):
    return Version(path, id_, size, etag, modified, latest)


def index(**changes):
    objects = {name: Stored("v", 5, SHA) for name in ("config", "index.7", "data/0/7")}
    made = "2026-11-22T03:00:00Z"
    content = {"deployment": "moh", "repository": "ab" * 32, "transaction": 7, "number": 1, "made": made}
    return Index(**{**content, "objects": objects, **changes})


class Settings(unittest.TestCase):
    def read(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "bucket.json")
            Path(path).write_text(text)
            return copy_plan.read_settings(path)

    def test_are_read(self):
        self.assertEqual(self.read(json.dumps(SETTINGS)), SETTINGS)

    def test_that_are_wrong_are_told_by_name_and_by_what_is_right(self):
        wrong = {
            "deployment": "Moh",
            "repository": "repository",
            "endpoint": "s3.example.org",
            "bucket": "",
            "prefix": "moh",
            "pathStyle": "yes",
            "mode": "compliance",
            "keepDays": True,
            "lockDays": 0,
            "leastInterval": -1,
            "uploadRate": -1,
            "storageClass": "DEEP_ARCHIVE",
            "readBack": "some",
        }
        for name, value in wrong.items():
            with (
                self.subTest(name),
                self.assertRaisesRegex(copy_plan.NoCopy, f"bucket.json: {name} must be "),
            ):
                self.read(json.dumps({**SETTINGS, name: value}))
            left = {other: of for other, of in SETTINGS.items() if other != name}
            with self.subTest(name), self.assertRaisesRegex(copy_plan.NoCopy, f"{name} must be "):
                self.read(json.dumps(left))
        with self.assertRaisesRegex(copy_plan.NoCopy, "there is no setting keepdays"):
            self.read(json.dumps({**SETTINGS, "keepdays": 1}))
        with self.assertRaisesRegex(copy_plan.NoCopy, "lockDays must be more than keepDays"):
            self.read(json.dumps({**SETTINGS, "lockDays": 90}))
        for text in ("{", "[]"):
            with self.assertRaisesRegex(copy_plan.NoCopy, "bucket.json: "):
                self.read(text)

    def test_credentials_are_read_as_the_aws_tools_have_them_and_never_quoted(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "credentials")
            Path(path).write_text("[default]\naws_access_key_id = A\naws_secret_access_key = s3cr%t\n")
            expected = {"aws_access_key_id": "A", "aws_secret_access_key": "s3cr%t"}
            self.assertEqual(credentials.read_credentials(path), expected)
            for text in ("s3cret", "[default]\ns3cret", "[other]\naws_secret_access_key=s3cret", b"\xff"):
                Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
                with self.assertRaises(errors.BucketError) as caught:
                    credentials.read_credentials(path)
                self.assertNotIn("s3cret", str(caught.exception))


class WhatTheBucketHas(unittest.TestCase):
    known = Known(5, 0, 0, SHA, "e1")

    def test_is_known_by_size_and_checksum_or_as_the_last_copys_version(self):
        right = version()
        self.assertIs(copy_plan.find_version(self.known, None, [version(id_="v2", etag="other"), right], None), right)
        self.assertIsNone(copy_plan.find_version(self.known, None, [version(size=6)], None))
        held = Held("v9", 5, SHA, None)
        shown_otherwise = version(id_="v9", etag="kms")
        found = copy_plan.find_version(self.known, held, [version(id_="v10"), shown_otherwise], None)
        self.assertIs(found, shown_otherwise)

    def test_is_not_the_last_copys_version_when_the_file_is_another(self):
        held = Held("v9", 5, "b" * 64, None)
        self.assertIsNone(copy_plan.find_version(self.known, held, [version(id_="v9", etag="other")], None))

    def test_is_the_oldest_version_with_these_bytes_whoever_puts_them_there_again(self):
        again, original = (
            version(id_="again", modified=200.0),
            version(id_="original", modified=100.0, latest=False),
        )
        self.assertIs(copy_plan.find_version(self.known, None, [again, original], None), original)
        contents = {"again": SHA, "original": SHA}
        shown_otherwise = [
            version(id_=of.id, etag="kms", modified=of.modified, latest=of.latest) for of in (again, original)
        ]
        found = copy_plan.find_version(self.known, None, shown_otherwise, lambda of: contents[of.id])
        self.assertEqual(found.id, "original")

    def test_is_read_back_where_the_bucket_shows_another_kind_of_checksum(self):
        candidates = [version(id_=str(number), etag="kms") for number in range(9)]
        for right in (0, 8):
            found = copy_plan.find_version(
                self.known, None, candidates, lambda of, right=right: SHA if of.id == str(right) else "b" * 64
            )
            self.assertIs(found, candidates[right])

    def test_does_not_cost_a_reading_for_each_version_that_somebody_planted(self):
        asked = []
        many = [version(id_=str(number), etag="kms") for number in range(50)]
        self.assertIsNone(copy_plan.find_version(self.known, None, many, lambda of: asked.append(of) or "x"))
        self.assertLessEqual(len(asked), 4)
        asked.clear()
        copy_plan.find_version(self.known, None, many[:3], lambda of: asked.append(of) or "x")
        self.assertEqual(len(asked), 3)

    def reader_back(self, versions, encryptions, held=None):
        """What a run makes of a bucket; `encryptions` has what HEAD says, None for a refusal."""

        def head(_path, id_):
            if encryptions[id_] is None:
                raise errors.ObjectRefused("the bucket: refused")
            return {"encryption": encryptions[id_]}

        there = SimpleNamespace(head=head, checksum=mock.Mock(side_effect=errors.ObjectRefused("refused")))
        listing = Listing({"data/0/1": versions}, set())
        return present.reader_back(there, {"data/0/1": self.known}, held or {}, listing)

    def test_is_judged_by_the_last_copys_versions_not_by_what_somebody_put_over_them(self):
        md5 = "0" * 32
        own, planted = version(etag=md5), version(id_="planted", etag=md5, modified=200.0)
        held = {"data/0/1": Held("v1", 5, SHA, None)}
        for of in (None, "aws:kms"):
            self.assertIsNone(self.reader_back([planted, own], {"v1": "AES256", "planted": of}, held))
        self.assertIsNotNone(self.reader_back([planted, own], {"v1": "aws:kms", "planted": "AES256"}, held))

    def test_that_cannot_be_read_is_not_the_same_and_stops_nothing(self):
        planted = version(id_="planted", etag="0" * 32)
        self.assertIsNone(self.reader_back([planted, version(etag="1" * 32)], {"v1": "", "planted": None}))
        read = self.reader_back([planted], {"planted": None})
        self.assertNotEqual(read(planted), SHA)
        self.assertIsNone(self.reader_back([], {}))

    def test_of_more_files_than_an_index_can_name_nothing_is_uploaded_and_many_are_told_of_long_before(self):
        def check(count, version=32):
            paths = [f"data/{number // 1000}/{number}" for number in range(count)]
            return copy_plan.check_count(paths, {"config": Held("v" * version, 5, SHA, None)})

        self.assertIsNone(check(30_000))
        self.assertRegex(check(70_000), r"has 70000 files, and no copy can be made of more than \d{6} or so")
        with self.assertRaisesRegex(copy_plan.NoCopy, "has 210000 files, more than .*; nothing was uploaded"):
            check(210_000)
        with tempfile.TemporaryDirectory() as state:
            run = bucket_copy.Copy({**SETTINGS, "state": state})
            paths = [f"data/{number // 1000}/{number}" for number in range(250_000)]
            with (
                mock.patch.object(bucket_copy, "files_of", return_value=paths),
                self.assertRaisesRegex(copy_plan.NoCopy, "nothing was uploaded"),
            ):
                run.copy(None, {})  # there is no bucket to ask
        # Some storages have longer names for versions.
        with self.assertRaises(copy_plan.NoCopy):
            check(150_000, version=100)

    def test_segments_go_first_by_number_and_the_files_that_change_last(self):
        sizes = {"index.7": 10**6, "data/0/10": 10**6, "data/0/9": 10**6, "config": 900, "data/0/11": 17}
        files = {path: Known(size, 0, 0, SHA, "") for path, size in sizes.items()}
        segments, small, rest = copy_plan.batches(files, list(files))
        self.assertEqual((segments, small, rest), (["data/0/9", "data/0/10"], ["data/0/11"], ["config", "index.7"]))

    def test_checksums_are_those_that_the_bucket_shows(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x")
            content = os.urandom(100)
            Path(path).write_bytes(content)
            read = []
            digests = copy_plan.checksums(path, read.append)
            expected = (hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest())
            self.assertEqual((digests, sum(read)), (expected, 100))
            with open(path, "wb") as file:
                file.truncate(copy_plan.WHOLE + 1)
            zeros = hashlib.md5(bytes(copy_plan.PART)).digest() * (copy_plan.WHOLE // copy_plan.PART)
            parts = hashlib.md5(zeros + hashlib.md5(b"\0").digest()).hexdigest()
            self.assertEqual(copy_plan.checksums(path, read.append)[1], f"{parts}-5")


class LocksAndSettings(unittest.TestCase):
    def test_a_lock_is_lengthened_when_it_ends_before_the_copy_may(self):
        now = 1e9
        self.assertTrue(copy_plan.due(None, now, 90))
        self.assertTrue(copy_plan.due(now + 89.9 * DAY, now, 90))
        self.assertFalse(copy_plan.due(now + 90.1 * DAY, now, 90))

    def test_a_lock_in_compliance_mode_is_lengthened_in_that_whatever_is_wanted(self):
        for wanted, has, default, expected in (
            ("GOVERNANCE", "COMPLIANCE", "GOVERNANCE", "COMPLIANCE"),
            ("GOVERNANCE", None, "COMPLIANCE", "COMPLIANCE"),
            ("GOVERNANCE", "GOVERNANCE", "COMPLIANCE", "GOVERNANCE"),
            ("GOVERNANCE", None, None, "GOVERNANCE"),
            ("COMPLIANCE", "GOVERNANCE", "GOVERNANCE", "COMPLIANCE"),
        ):
            with self.subTest(f"{wanted} {has} {default}"):
                self.assertEqual(copy_plan.lock_mode(wanted, has, default), expected)

    def locked(self, versions, locks, held=None):
        """What a copy of one file believes of its version; `locks` has what HEAD says."""
        lengthened = []
        there = SimpleNamespace(
            head=lambda _path, id_: {"mode": "COMPLIANCE", "until": locks[id_], "encryption": None},
            lengthen=lambda _path, id_, _mode, until: lengthened.append((id_, until)),
        )
        known, held = Known(5, 0, 0, SHA, "e1"), held or {}
        found, missing = copy_plan.match({"data/0/1": known}, held, Listing({"data/0/1": versions}, set()), None)
        self.assertEqual(missing, [])
        return self.locks().hold(there, {"data/0/1": known}, found, held, {})["data/0/1"], lengthened

    def locks(self):
        of = locks.Locks(SETTINGS, [])
        of.default = {"mode": "COMPLIANCE", "days": 120}
        return of

    def test_are_looked_up_for_every_version_that_no_earlier_copy_names(self):
        now = time.time()
        fresh = version(modified=now + 60)  # as if it came during this run
        of, lengthened = self.locked([fresh], {"v1": now + DAY})
        self.assertEqual([id_ for id_, _until in lengthened], ["v1"])
        self.assertGreater(of.until, now + 119 * DAY)
        of, lengthened = self.locked([fresh], {"v1": now + 100 * DAY})
        self.assertEqual((of.until, lengthened), (now + 100 * DAY, []))

    def uploaded(self, takes_locks=True):
        """What a run puts of a small file, and what it believes of it."""
        puts = []

        def send(path, body, md5, how):
            puts.append((path, body.read(), md5, how))
            if "ObjectLockMode" in how and not takes_locks:
                raise errors.ObjectRefused("refused")
            return f"version of {path}"

        with tempfile.TemporaryDirectory() as state:
            Path(state, "nonce").write_bytes(bytes(8))
            files = {"nonce": Known(8, 0, 0, SHA, hashlib.md5(bytes(8)).hexdigest())}
            run = upload.Upload(SETTINGS, state, self.locks())
            return puts, run.run(SimpleNamespace(send=send), files, ["nonce"], {})["nonce"]

    def test_are_set_as_files_are_uploaded_and_need_no_look(self):
        [(path, content, md5, how)], held = self.uploaded()
        self.assertEqual((path, content, md5), ("repository/nonce", bytes(8), hashlib.md5(bytes(8)).digest()))
        self.assertEqual(how["ObjectLockMode"], "COMPLIANCE")
        self.assertAlmostEqual(how["ObjectLockRetainUntilDate"].timestamp(), time.time() + 120 * DAY, delta=60)
        self.assertAlmostEqual(held.until, how["ObjectLockRetainUntilDate"].timestamp(), delta=1)
        self.assertEqual((held.version, held.mode), ("version of repository/nonce", "COMPLIANCE"))

    def test_that_the_bucket_does_not_let_anybody_set_cost_no_copy(self):
        (*_refused, (_path, content, _md5, how)), held = self.uploaded(takes_locks=False)
        self.assertEqual((content, how), (bytes(8), {}))
        # So the one that the bucket set itself is looked up.
        self.assertEqual((held.version, held.until, held.mode), ("version of repository/nonce", None, None))

    def test_are_not_looked_up_for_what_the_last_copy_names(self):
        held = {"data/0/1": Held("v1", 5, SHA, time.time() + 100 * DAY, "COMPLIANCE")}
        self.assertEqual(self.locked([version()], {}, held)[0], held["data/0/1"])

    def test_are_looked_up_again_when_another_mode_is_wanted(self):
        with tempfile.TemporaryDirectory() as state:
            settings = {**SETTINGS, "state": state, "mode": "GOVERNANCE"}
            memory = copy_memory.Memory(settings)
            memory.held = {"config": Held("v1", 5, SHA, 100.0, "GOVERNANCE")}
            memory.copy = {"key": "index/x", "until": 100.0, "mode": "GOVERNANCE"}
            memory.save()
            same = copy_memory.Memory(settings)
            self.assertEqual((same.held, same.copy), (memory.held, memory.copy))
            other = copy_memory.Memory({**settings, "mode": "COMPLIANCE"})
            self.assertEqual(other.held, {"config": Held("v1", 5, SHA, None)})
            self.assertEqual(other.copy, {"key": "index/x", "until": None, "mode": None})

    def test_what_weakens_a_bucket_is_told(self):
        block = dict.fromkeys(("BlockPublicAcls", "BlockPublicPolicy"), True)
        good = {"versioning": True, "lock": {"mode": "COMPLIANCE", "days": 120}, "publicAccessBlock": block}

        def problems(**changes):
            return copy_plan.bucket_problems({**good, **changes}, SETTINGS)

        self.assertEqual(problems(), [])
        self.assertEqual(problems(publicAccessBlock=None), [])
        self.assertEqual(problems(lock={"mode": "COMPLIANCE", "days": 365}), [])
        cases = [
            ({"lock": None}, "has no object lock"),
            ({"lock": {"mode": None, "days": None}}, "no default retention: it should be 120 days"),
            ({"lock": {"mode": "COMPLIANCE", "days": 30}}, "locks for 30 days"),
            ({"lock": {"mode": "GOVERNANCE", "days": 120}}, "in GOVERNANCE mode by default"),
            ({"publicAccessBlock": {**block, "BlockPublicPolicy": False}}, "BlockPublicPolicy is off"),
        ]
        for changes, words in cases:
            with self.subTest(words):
                self.assertEqual(len(found := problems(**changes)), 1)
                self.assertIn(words, found[0])


class Indexes(unittest.TestCase):
    def test_are_what_was_packed(self):
        self.assertEqual(bucket_index.unpack_index(bucket_index.pack_index(index())), index())
        self.assertTrue(bucket_index.INDEX_KEY.fullmatch(bucket_index.index_key("2026-11-22T03:00:00Z", 7)))

    def refused(self, change, words):
        content = json.loads(gzip.decompress(bucket_index.pack_index(index())))
        change(content)
        with self.assertRaisesRegex(ValueError, words):
            bucket_index.unpack_index(gzip.compress(json.dumps(content).encode()))

    def test_that_are_forged_write_nowhere_else(self):
        for path in (
            "../../etc/passwd",
            "/etc/passwd",
            "data/0/../../x",
            "lock.exclusive",
            "data/0/1\n",
            "config/x",
            "",
        ):
            with self.subTest(path):
                self.refused(
                    lambda of, path=path: of["objects"].update({path: of["objects"]["config"]}),
                    "no file of a",
                )

    def test_that_lack_something_are_refused(self):
        self.refused(lambda of: of.update(format=2), "format 1")
        self.refused(lambda of: of.update(transaction="7"), "transaction is missing or of another kind")
        self.refused(lambda of: of.update(number=True), "number is missing or of another kind")
        self.refused(lambda of: of.pop("objects"), "objects are missing")
        self.refused(lambda of: of["objects"].pop("config"), "lacks files")
        self.refused(lambda of: of.update(transaction=8), "lacks files")
        self.refused(lambda of: of["objects"]["config"].update(size=-1), "entry for config is wrong")
        self.refused(lambda of: of["objects"]["config"].update(sha256="x"), "entry for config is wrong")
        self.refused(lambda of: of["objects"].update(config=[]), "entry for config is wrong")

    def test_that_are_no_json_or_cut_off_are_refused(self):
        packed = bucket_index.pack_index(index())
        for content in (
            b"",
            b"{}",
            packed[:-9],
            gzip.compress(b"\xff"),
            gzip.compress(b"[]"),
            gzip.compress(b"{"),
        ):
            with self.assertRaises(ValueError):
                bucket_index.unpack_index(content)

    def test_that_would_print_or_reckon_with_anything_are_refused(self):
        self.refused(lambda of: of.update(repository="\ud800x"), r"repository is '\\ud800x'")
        self.refused(lambda of: of.update(deployment="\x1b[2J"), "deployment is ")
        self.refused(lambda of: of.update(made="yesterday"), "made is 'yesterday'")
        self.refused(lambda of: of.update(made="2026-99-99T00:00:00Z"), "does not match")
        self.refused(lambda of: of.update(number=2**63), "number is out of range")
        self.refused(lambda of: of.update(transaction=-1), "transaction is out of range")
        self.refused(lambda of: of["objects"]["config"].update(size=10**300), "entry for config is wrong")

    def test_that_are_bombs_are_refused(self):
        for text in (b"[" * 200_000, b" " * (bucket_index.LARGEST_INDEX + 1)):
            with self.assertRaises(ValueError):
                bucket_index.unpack_index(gzip.compress(text))
        with self.assertRaisesRegex(ValueError, "too large"):
            bucket_copies.read_index(None, version(size=bucket_index.LARGEST_INDEX + 1))

    def test_are_no_larger_than_was_reckoned_and_hardly_smaller(self):
        for count, length in ((3, 32), (5000, 32), (5000, 110)):
            paths = ["config", "index.7", *(f"data/{number // 1000}/{number}" for number in range(count))]
            objects = {path: Stored("v" * length, 10**12 - 1, SHA) for path in paths}
            size = len(gzip.decompress(bucket_index.pack_index(index(objects=objects))))
            reckoned = bucket_index.index_size(paths, length)
            self.assertLessEqual(size, reckoned)
            self.assertLess(reckoned, size * 1.1 + 400)

    def test_too_large_to_be_read_again_are_not_written(self):
        with (
            mock.patch("chtbackup.bucket.index.LARGEST_INDEX", 100),
            self.assertRaisesRegex(errors.BucketError, "run borg compact"),
        ):
            bucket_index.pack_index(index())

    def test_that_name_what_is_not_there_or_has_another_size_are_not_whole(self):
        listing = Listing({path: [version(path, "v")] for path in index().objects}, set())
        self.assertEqual(bucket_index.absent(index(), listing), [])
        listing.versions["config"] = [version("config", "v2")]
        listing.versions["index.7"] = [version("index.7", "v", 6)]
        self.assertEqual(bucket_index.absent(index(), listing), ["config", "index.7"])


class Choosing(unittest.TestCase):
    copies = [
        version("20310101T000000Z-9.json.gz", "forged", modified=300.0),
        version("19700101T000200Z-7.json.gz", "written over", modified=250.0),
        version("19700101T000200Z-7.json.gz", "two", modified=200.0, latest=False),
        version("19700101T000100Z-5.json.gz", "one", modified=100.0),
    ]

    def chosen(self, as_of=None, key=None):
        return [of.id for of in bucket_choose.eligible(self.copies, as_of, key)]

    def test_goes_by_the_buckets_clock_not_by_names(self):
        self.assertEqual(self.chosen(), ["forged", "written over", "two", "one"])
        self.assertEqual(self.chosen("1970-01-01T00:03:20Z"), ["two", "one"])
        self.assertEqual(self.chosen("1970-01-01T00:03:19Z"), ["one"])

    def test_by_name_takes_the_first_that_had_it(self):
        self.assertEqual(self.chosen(key="index/19700101T000200Z-7.json.gz"), ["two", "written over"])

    def doubts(self, of, *earlier):
        before = [(version(modified=at), its) for at, its in earlier]
        return bucket_choose.doubts(version(modified=of[0]), of[1], before)

    def test_an_old_index_that_is_put_there_again_is_told_of_with_the_way_to_the_other(self):
        at = bucket_index.made_at(index().made)
        older, newer = index(made="2026-11-21T03:00:00Z"), index(number=2, transaction=9)
        self.assertEqual(self.doubts((at + 60, newer), (at - DAY, older)), [])
        self.assertEqual(self.doubts((at + 60, newer)), [])
        replayed = self.doubts((at + 60, older), (at, newer), (at - DAY, older))
        self.assertEqual(len(replayed), 2)
        self.assertRegex(replayed[0], "made at 2026-11-21T03:00:00Z: .*--copy-as-of 2026-11-22T03:00:00Z$")
        self.assertRegex(replayed[1], "number 2, transaction 9.*--copy-as-of 2026-11-22T03:00:00Z$")
        set_back = self.doubts((at, index(number=3)), (at - 60, index(number=2, transaction=9)))
        self.assertRegex(set_back[0], "is number 3, transaction 7, and an earlier one is newer")

    def test_what_is_not_there_is_said(self):
        for arguments, words in (
            (("1970-01-01T00:00:10Z", None), "the oldest is of 1970-01-01T00:01:40Z"),
            ((None, "index/x"), "there is no copy index/x"),
            (("yesterday", None), "yesterday is no time such as"),
        ):
            with self.subTest(words), self.assertRaisesRegex(bucket_fetch.Refused, words):
                self.chosen(*arguments)
        with self.assertRaisesRegex(bucket_fetch.Refused, "no finished copy"):
            bucket_choose.eligible([], None, None)


class Snapshots(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.repository, self.target = os.path.join(scratch.name, "r"), os.path.join(scratch.name, "s")
        self.write("config", "[repository]\nid = abc\n")
        for name in ("README", "nonce", "transactions", "index.7", "hints.7", "integrity.7", "index.9.tmp"):
            self.write(name, name)
        for segment in ("5", "7", "8", "9"):
            self.write(f"data/0/{segment}", segment)
        self.write("data/0/6", "")
        self.write("lock.roster", "{}")

    def write(self, path, text):
        full = Path(self.repository, path)
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)

    def test_hold_the_committed_state_and_no_lock(self):
        taken = snapshot.take_snapshot(self.repository, self.target)
        self.assertEqual(taken, {"transaction": 7, "settled": 10})
        files = {os.path.relpath(path, self.target) for path in Path(self.target).rglob("*") if path.is_file()}
        small = {"config", "README", "nonce", "transactions"}
        self.assertEqual(files, {*small, "index.7", "hints.7", "integrity.7", "data/0/5", "data/0/7"})
        self.assertTrue(all(bucket_index.PATH.fullmatch(path) for path in files))
        for path in files:
            linked = os.stat(os.path.join(self.target, path)).st_nlink == 2
            self.assertEqual(linked, path not in small, path)
        self.assertEqual(snapshot.repository_id(f"{self.target}/config"), "abc")
        self.assertEqual(snapshot.newest_segment(self.repository), 9)

    def test_of_no_repository_or_one_without_a_transaction_say_so(self):
        os.remove(f"{self.repository}/index.7")
        self.write("index.9", "")
        for change, words in (
            (lambda: None, "no finished transaction"),
            (lambda: os.remove(f"{self.repository}/config"), "is no borg repository"),
            (lambda: os.rename(self.repository, f"{self.repository}x"), "can't be read"),
        ):
            change()
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                self.assertEqual(snapshot.main([self.repository, self.target]), 2)
            self.assertRegex(printed.getvalue(), f"^snapshot: .*{words}")


class Errors(unittest.TestCase):
    def answer(self, code, message="said", status=400):
        response = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }
        return SimpleNamespace(response=response, operation_name="PutObject")

    def test_are_explained_with_the_servers_code(self):
        self.assertEqual(
            reasons.explain(self.answer("SlowDown", status=503)),
            "it asks to slow down, and still does after several attempts (PutObject: SlowDown, HTTP 503)",
        )
        self.assertEqual(reasons.explain(self.answer("New")), "said (PutObject: New, HTTP 400)")
        self.assertEqual(reasons.explain(OSError("first\nsecond")), "first")

    def test_about_one_object_are_told_from_those_about_all(self):
        for code, status, expected in (
            ("InvalidRequest", 400, True),  # encrypted with a key of the customer's
            ("InvalidObjectState", 403, True),
            ("AccessDenied", 403, True),  # encrypted by a foreign KMS key
            ("NoSuchVersion", 404, True),
            ("SignatureDoesNotMatch", 403, False),
            ("RequestTimeTooSkewed", 403, False),
            ("SlowDown", 429, False),
            ("InternalError", 500, False),
        ):
            with self.subTest(code):
                self.assertEqual(reasons.is_about_object(self.answer(code, status=status)), expected)
        self.assertFalse(reasons.is_about_object(OSError("the network")))

    def test_of_an_upload_are_told_in_the_same_words(self):
        said = reasons.explain(self.answer("SlowDown", status=503))
        there = SimpleNamespace(
            where="copies at AWS",
            send=mock.Mock(side_effect=errors.BucketError(f"the bucket copies at AWS: {said}")),
            versions=lambda _folder, _keep: Listing({}, set()),
        )
        with tempfile.TemporaryDirectory() as state:
            names = [f"data/0/{number}" for number in range(20)]
            for path in (Path(state, name) for name in names):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(8))
            files = {name: Known(8, 0, 0, SHA, "0" * 32) for name in names}
            with self.assertRaises(copy_plan.NoCopy) as caught:
                upload.Upload(SETTINGS, state, locks.Locks(SETTINGS, [])).run(there, files, names, {})
        self.assertEqual(
            str(caught.exception),
            f"the bucket copies at AWS: 20 files didn't arrive, data/0/0 for one: {said}. What arrived is kept;"
            " the next run goes on",
        )
        # Where the network is cut, each costs minutes.
        self.assertLess(there.send.call_count, upload.MANY_FAILURES + parallel.THREADS)


class Sending(unittest.TestCase):
    def outgoing(self, size=100_000, rate=0):
        progress = report.Progress("uploaded", size)
        return pace.Outgoing(io.BytesIO(bytes(size)), pace.Pace(rate, progress)), progress

    def test_only_what_is_sent_counts_not_what_is_read_to_sign_it_nor_an_attempt_that_failed(self):
        body, progress = self.outgoing()
        body.read()
        self.assertEqual(progress.done, 0)
        for _attempt in range(2):
            body.seek(0)
            body.begin()
            while body.read(16384):
                pass
            self.assertEqual(progress.done, 100_000)

    def test_all_uploads_together_keep_to_the_rate(self):
        began = time.monotonic()
        body, _progress = self.outgoing(300_000, 1000)
        body.begin()
        while body.read(16384):
            pass
        # On a busy machine it takes longer; without a rate it takes no time.
        self.assertGreater(time.monotonic() - began, 300_000 / 1024_000 - 0.05)

    def test_it_ends_at_once_when_it_is_told_to_stop(self):
        body, _progress = self.outgoing(300_000, 1)
        body.begin()
        threading.Timer(0.1, body.pace.stop.set).start()
        with self.assertRaises(Stopped):
            body.read(16384)

    def attempt(self, body, now, size):
        """One at sending the body, which breaks off after so many bytes."""
        with mock.patch.object(pace.time, "monotonic", return_value=now):
            body.begin()
            body.read(size)
            body.seek(0)

    def test_an_upload_that_gets_no_further_is_given_up(self):
        body, _progress = self.outgoing()
        for now in (0.0, 100.0, 200.0, 300.0):
            self.attempt(body, now, 16384)
        with self.assertRaisesRegex(errors.BucketError, "nothing has moved for 301 s"):
            self.attempt(body, 301.0, 16384)

    def test_an_upload_that_gets_further_is_not_given_up(self):
        body, _progress = self.outgoing()
        for now in (0.0, 200.0, 400.0, 600.0):
            self.attempt(body, now, 16384 + int(now))


class BorgsIndex(unittest.TestCase):
    """Whoever has the writer's key can forge a copy; borg reads its files as root."""

    def header(self, entries=5, buckets=10, key=32, value=8, magic=b"BORG_IDX", size=18 + 10 * 40):
        packed = borg_index.INDEX_HEADER.pack(magic, entries, buckets, key, value)
        return borg_index.mistaken_header(packed, size)

    def test_that_may_be_one_is_taken(self):
        self.assertIsNone(self.header())
        self.assertIsNone(self.header(entries=0, buckets=1, size=58))
        self.assertIsNone(self.header(entries=10))

    def test_that_lies_is_refused_with_what_is_wrong(self):
        for wrong, words in (
            ({"key": 4}, "keys have 4 bytes"),
            ({"key": -32}, "keys have -32 bytes"),
            ({"value": 127}, "values 127"),
            ({"value": 0}, "values 0"),
            ({"entries": -5}, "-5 of 10 places"),
            ({"entries": 11}, "11 of 10 places"),
            ({"entries": 0, "buckets": 0, "size": 18}, "0 of 0 places"),
            ({"buckets": -1, "entries": 0}, "0 of -1 places"),
            ({"size": 419}, "419 bytes"),
            ({"magic": b"BORG2IDX"}, "begin"),
        ):
            with self.subTest(str(wrong)):
                self.assertIn(words, self.header(**wrong))
        self.assertEqual(borg_index.mistaken_header(b"BORG_IDX", 8), "it is cut off")


class AnInterval(unittest.TestCase):
    def test_is_kept_between_copies_and_a_clock_that_was_set_keeps_nothing_waiting(self):
        self.assertEqual(copy_plan.wait_for(None, 1000, 600), 0)
        self.assertEqual(copy_plan.wait_for(900, 1000, 600), 500)
        self.assertEqual(copy_plan.wait_for(400, 1000, 600), 0)
        self.assertEqual(copy_plan.wait_for(900, 1000, 0), 0)
        self.assertEqual(copy_plan.wait_for(1001, 1000, 600), 0)


class Settling(unittest.TestCase):
    def waited(self, age, settle, lock_wait=1):
        with tempfile.TemporaryDirectory() as repository:
            then = time.time() - age
            os.utime(repository, (then, then))
            began = time.monotonic()
            with_lock.wait_until_settled({"repository": repository, "lockWait": lock_wait}, settle)
            return time.monotonic() - began

    def test_a_repository_that_was_just_used_is_left_to_its_client_for_a_moment(self):
        self.assertGreaterEqual(self.waited(age=0, settle=1, lock_wait=9), 0.9)
        self.assertLess(self.waited(age=500, settle=60, lock_wait=99), 30)
        self.assertLess(self.waited(age=0, settle=0, lock_wait=99), 30)

    def test_one_that_is_used_all_the_time_and_a_clock_set_back_keep_no_copy_from_being_made(self):
        self.assertLess(self.waited(age=0, settle=60, lock_wait=1), 30)
        self.assertLess(self.waited(age=-3600, settle=60, lock_wait=99), 30)


class Alert(unittest.TestCase):
    COPY, CHECK = "cht-bucket-copy-moh.service", "cht-bucket-check-moh.service"

    def describe(self, units, **reports):
        return alert_describe.describe_bucket("moh", "server", reports, units, 1000)

    def failed(self, at, result="exit-code"):
        began = str((at - 1000) * 1_000_000)
        return {"ActiveState": "failed", "Result": result, "ExecMainStartTimestampMonotonic": began}

    def report(self, at, *problems):
        return {"problems": list(problems), "finished": "then", "finishedAt": at, "lastSuccessAt": None}

    def test_it_says_what_the_report_says(self):
        title, text = self.describe({self.COPY: self.failed(2000)}, copy=self.report(2010, "no space"))
        self.assertEqual(title, "Copy of the backups to the bucket failed: moh on server")
        self.assertEqual(text, "(then) no space. None has succeeded so far.")

    def test_it_is_about_what_failed_last(self):
        units = {self.COPY: self.failed(2000), self.CHECK: self.failed(3000)}
        check = {**self.report(3010, "2 files are gone"), "lastSuccessAt": 86400}
        title, text = self.describe(units, copy=self.report(2010, "no space"), check=check)
        self.assertEqual(title, "Check of the bucket found problems: moh on server")
        self.assertEqual(text, "(then) 2 files are gone. The last good one ended at 1970-01-02T00:00:00Z.")

    def test_an_older_report_is_not_taken_for_that_of_a_run_that_was_killed(self):
        text = self.describe({self.COPY: self.failed(2000, "signal")}, copy=self.report(1500, "old"))[1]
        self.assertIn("ended with signal", text)
        self.assertIn("journalctl -u cht-bucket-copy-moh", text)
        self.assertNotIn("old", text)


class HandedOver(unittest.TestCase):
    """systemd hands the bucket's key to the unit, which can't read the file itself."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.key = self.folder / "key"
        self.key.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = hunter2\n")
        self.settings = {"deployment": "moh", "credentials": str(self.key)}
        (self.folder / "bucket").write_text("none")  # SetCredential=
        environment = mock.patch.dict(os.environ, CREDENTIALS_DIRECTORY=scratch.name, INVOCATION_ID="1")
        environment.start()
        self.addCleanup(environment.stop)

    def reason(self, *drop_ins):
        done = subprocess.CompletedProcess([], 0, stdout=" ".join(map(str, drop_ins)) + "\n")
        with mock.patch("subprocess.run", return_value=done), self.assertRaises(copy_plan.NoCopy) as caught:
            bucket_access.credentials_path(self.settings)
        self.assertNotIn("hunter2", str(caught.exception))
        return str(caught.exception)

    def drop_in(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_the_key_is_taken_where_it_arrived(self):
        (self.folder / "bucket").write_text(self.key.read_text())
        self.assertEqual(bucket_access.credentials_path(self.settings), str(self.folder / "bucket"))

    def test_a_drop_in_for_all_units_that_takes_the_key_away_is_named(self):
        other = self.drop_in("10-limits.conf", "[Service]\nLimitNOFILE=1024\n")
        lxc = self.drop_in("zzz-lxc-service.conf", "[Service]\nProcSubset=all\nLoadCredential=\n")
        reason = self.reason(other, lxc)
        self.assertIn(f"LoadCredential= is taken away again in {lxc} (LXC", reason)
        self.assertNotIn("10-limits", reason)

    def test_it_is_named_where_the_stand_in_was_taken_away_too(self):
        lxc = self.drop_in("zzz-lxc-service.conf", "[Service]\nLoadCredential =\nSetCredential=\n")
        with mock.patch.dict(os.environ), mock.patch("os.access", return_value=False):
            del os.environ["CREDENTIALS_DIRECTORY"]
            self.assertIn(str(lxc), self.reason(lxc))

    def test_without_such_a_drop_in_it_says_what_the_unit_must_have(self):
        self.assertIn("must show LoadCredential=bucket:", self.reason())

    def test_a_file_that_is_missing_is_named_as_such(self):
        self.key.unlink()
        self.assertRegex(self.reason(), "the file is missing; `npm run pulumi -- up` writes it")

    def test_the_units_stand_in_is_the_word_that_is_looked_for(self):
        for what in ("copy", "check"):
            unit = (fixture.ROOT / f"hosts/server/cht-bucket-{what}.service").read_text()
            self.assertIn(f"\nSetCredential=bucket:{bucket_access.STAND_IN.decode()}\n", unit)


if __name__ == "__main__":
    unittest.main()
