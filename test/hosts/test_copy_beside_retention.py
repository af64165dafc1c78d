"""A copy that is made while somebody removes old ones, or after that."""

import time
import unittest
from types import SimpleNamespace
from unittest import mock

import fixture  # noqa: F401

from chtbackup.bucket import locks, write_index
from chtbackup.bucket.errors import Gone, ObjectRefused
from chtbackup.bucket.index import LARGEST_NUMBER, Version
from chtbackup.bucket.plan import Held, Known, NoCopy

SETTINGS = {"mode": "COMPLIANCE", "keepDays": 90, "lockDays": 120}


class ACopy(unittest.TestCase):
    def hold(self, error):
        def head(_path, _version):
            raise error

        of = locks.Locks(SETTINGS, [])
        of.default = {"mode": "COMPLIANCE", "days": 120}
        files = {"config": Known(5, 0, 0, "a" * 64, "e1")}
        found = {"config": Version("config", "v1", 5, "e1", time.time(), True)}
        return of, lambda: of.hold(SimpleNamespace(head=head), files, found, {}, {})

    def test_names_nothing_that_was_removed_after_it_had_found_it_there(self):
        _, hold = self.hold(Gone("this version isn't there"))
        with self.assertRaisesRegex(NoCopy, "config was removed from the bucket meanwhile; the next run"):
            hold()

    def test_is_made_although_the_bucket_refuses_a_lock_and_says_so(self):
        of, hold = self.hold(ObjectRefused("refused"))
        self.assertEqual(hold()["config"], Held("v1", 5, "a" * 64, None, None))
        self.assertEqual(len(of.problems), 1)


class TheNumberOfACopy(unittest.TestCase):
    def number(self, copies=3, last=7, **memory):
        listed = [Version(f"x{of}", "v", 5, "e", 100.0 - of, True) for of in range(copies)]
        read = mock.Mock(return_value=SimpleNamespace(number=last))
        if isinstance(last, Exception):
            read.side_effect = last
        with mock.patch.multiple(write_index, copies_in=lambda _there: listed, read_index=read):
            return write_index.next_number(None, SimpleNamespace(**{"copy": None, "written": None, **memory}))

    def test_is_one_more_than_the_last_ones(self):
        self.assertEqual(self.number(copy={"number": 9}), 10)

    def test_is_none_that_a_run_may_have_given_which_was_killed_as_it_finished(self):
        self.assertEqual(self.number(copy={"number": 9}, written={"key": "index/x"}), 11)

    def test_goes_on_from_the_newest_index_where_the_machine_remembers_nothing_and_old_ones_were_removed(self):
        self.assertEqual(self.number(), 8)
        self.assertEqual(self.number(copies=0), 1)

    def test_is_no_wonder_where_the_newest_index_is_forged(self):
        self.assertEqual(self.number(last=LARGEST_NUMBER - 1), 4)
        self.assertEqual(self.number(last=ValueError("it is no index")), 4)
        self.assertEqual(self.number(last=ObjectRefused("encrypted")), 4)
