"""Which copies in a bucket stay, what nobody needs any more, and when nothing is removed (bucket/keeping.py)."""

import calendar
import dataclasses
import random
import time
import unittest

import fixture  # noqa: F401

from chtbackup.bucket import keeping
from chtbackup.bucket.keeping import Copy, Facts, Piece
from chtbackup.retention import keeping as retention
from chtbackup.retention.keeping import DAY, HOUR, Archive, Policy

NOW = float(calendar.timegm((2026, 11, 28, 12, 0, 0)))
# The settings' defaults: a test of them has the same numbers.
POLICY = Policy(within=7, daily=14, weekly=6, monthly=4, yearly=2)
KEEP_DAYS = 30
REPOSITORY = "ab" * 32
SEGMENT, MEDIUM = 500_000_000, 1_000_000


class Bucket:
    """A bucket that is filled as the server does it, and as others may."""

    def __init__(self):
        self.copies, self.pieces, self.segments, self.number, self.places = [], [], [], 0, 0

    def upload(self, at, size=MEDIUM, key="repository/data/0/1"):
        piece = Piece(self.places, key, f"v{self.places}", size, at)
        self.places += 1
        self.pieces.append(piece)
        return piece

    def index(self, at, pieces, **changes):
        self.number += 1
        of = {
            "deployment": "moh", "repository": REPOSITORY, "number": self.number, "transaction": self.number,
            "made": at, "size": sum(of.size for of in pieces), "names": sum(1 << of.place for of in pieces),
        }  # fmt: skip
        copy = Copy(f"index/{at:.0f}-{self.number}.json.gz", f"i{self.number}", at, **{**of, **changes})
        self.copies.append(copy)
        return copy

    def copy(self, at, compacted=False, new=MEDIUM):
        """One that the server makes: a segment of what is new, and small files that each copy has anew."""
        if compacted:
            self.segments = [self.upload(at - 60, SEGMENT)]
        self.segments.append(self.upload(at - 60, new))
        return self.index(at, [*self.segments, self.upload(at - 50, 1000, "repository/index.7")])

    def facts(self, now=NOW, **more):
        known = {"deployment": "moh", "repositories": [REPOSITORY], "drilled": now - 3 * DAY, "drill_days": 9}
        return Facts(now, now, self.copies, self.pieces, KEEP_DAYS, **{**known, **more})

    def why(self, now=NOW, policy=POLICY):
        return keeping.reasons(self.copies, policy, KEEP_DAYS, now)

    def going(self, now=NOW, policy=POLICY):
        return keeping.going(self.facts(now), self.why(now, policy))

    def remove(self, going):
        gone = {of.place for of in going.pieces}
        self.copies = [of for of in self.copies if of not in set(going.copies)]
        self.pieces = [of for of in self.pieces if of.place not in gone]

    def kept(self, now=NOW):
        why = self.why(now)
        return [of for of in self.copies if why[of]]

    def all_whole(self):
        there = sum(1 << of.place for of in self.pieces)
        return all(of.names & ~there == 0 for of in self.copies)


def a_year(copies_a_day=6, days=365, until=NOW):
    """Copies every four hours, with a compaction on each server on the first of a month."""
    bucket = Bucket()
    for number in range(days * copies_a_day):
        at = until - days * DAY + number * DAY / copies_a_day
        of = time.gmtime(at)
        bucket.copy(at, compacted=of.tm_mday == 1 and of.tm_hour < 24 / copies_a_day)
    return bucket


class WhatStays(unittest.TestCase):
    def test_after_a_year_is_each_copy_of_the_last_days_and_the_first_of_each_week_month_and_year(self):
        bucket = a_year()
        stay = bucket.kept()
        self.assertEqual(sum(NOW - of.at < KEEP_DAYS * DAY for of in stay), 6 * KEEP_DAYS - 1)
        older = [time.strftime("%Y-%m-%d", time.gmtime(of.at)) for of in stay if NOW - of.at > KEEP_DAYS * DAY]
        # The first of two years, of three months beside this one, of two weeks beside those that are younger.
        months = ["2026-08-01", "2026-09-01", "2026-10-01"]
        self.assertEqual(older, ["2025-11-28", "2026-01-01", *months, "2026-10-19", "2026-10-26"])

    def test_is_kept_by_a_run_each_month_as_by_one_at_the_end(self):
        """What an early run keeps is what a later one needs, and no copy that is listed is ever in parts."""
        bucket = Bucket()
        for number in range(365 * 6):
            at = NOW - 365 * DAY + number * 4 * HOUR
            of = time.gmtime(at)
            bucket.copy(at, compacted=of.tm_mday == 1 and of.tm_hour < 4)
            if of.tm_mday == 2 and of.tm_hour < 4:
                bucket.remove(bucket.going(at))
                self.assertTrue(bucket.all_whole(), at)
        bucket.remove(bucket.going())
        self.assertEqual([of.at for of in bucket.copies], [of.at for of in a_year().kept()])

    def test_says_why(self):
        bucket = Bucket()
        old, older, newest = bucket.copy(NOW - 400 * DAY), bucket.copy(NOW - 399.9 * DAY), bucket.copy(NOW - HOUR)
        why = bucket.why(policy=dataclasses.replace(POLICY, monthly=24))
        self.assertEqual(why[newest][0], "last 30 days")
        self.assertEqual(why[old], ["month 2025-10", "year 2025"])
        self.assertEqual(why[older], [])

    def test_is_the_newest_whole_one_of_each_repository_whatever_the_policy(self):
        bucket = Bucket()
        former = bucket.copy(NOW - 900 * DAY)
        former_newest = bucket.index(NOW - 890 * DAY, [], repository="cd" * 32)
        newest = bucket.copy(NOW - 800 * DAY)
        bucket.index(NOW - 790 * DAY, [], lacks=3)
        bucket.index(NOW - 780 * DAY, [], problem="it is no index")
        self.assertEqual(bucket.kept(), [former_newest, newest])
        self.assertNotIn(former, bucket.kept())

    def test_is_every_version_that_a_copy_names_which_stays_and_each_that_is_young(self):
        bucket = a_year()
        going = bucket.going()
        bucket.remove(going)
        self.assertTrue(bucket.all_whole())
        self.assertTrue(all(NOW - of.at >= KEEP_DAYS * DAY for of in [*going.pieces, *going.copies]))
        self.assertGreater(len(going.pieces), 1000)

    def test_is_what_an_interrupted_copy_has_uploaded_until_a_later_copy_is_old_itself(self):
        bucket = Bucket()
        left = bucket.upload(NOW - 50 * DAY)
        self.assertEqual(bucket.going().pieces, [], "the first copy may still be on its way")
        bucket.copy(NOW - 29 * DAY)
        self.assertEqual(bucket.going().pieces, [], "nobody has had time to notice anything")
        bucket.copy(NOW - 40 * DAY)
        self.assertEqual(bucket.going().pieces, [left])

    def test_is_nothing_of_a_delete_marker_that_is_old(self):
        bucket = Bucket()
        marker = bucket.upload(NOW - 50 * DAY, 0)
        bucket.copy(NOW - 40 * DAY)
        self.assertEqual(bucket.going().pieces, [marker])


class HowMuchIsStored(unittest.TestCase):
    """Three years of two backups a day, a compaction of CouchDB a month (the next archive is a full copy, of size 1), a
    percent that is new each day, and retention on the server and in the bucket once a month."""

    @staticmethod
    def largest(policy):
        """The most that there is on the server and in the bucket after a run, and what had ever been in it."""
        bucket, archives, places, on_server, in_bucket = Bucket(), [], {}, [], []
        for half_day in range(3 * 365 * 2):
            at = NOW - 3 * 365 * DAY + half_day * DAY / 2
            month, today = time.strftime("%Y-%m", time.gmtime(at)), time.gmtime(at).tm_mday
            holds = {(month, day): 100 if day == 0 else 1 for day in range(today + 1)}
            archives.append((Archive(str(half_day), str(half_day), at, round(at)), holds))
            server = {of: size for _, each in archives for of, size in each.items()}
            for of, size in server.items():
                places[of] = places.get(of) or bucket.upload(at - 60, size)
            bucket.index(at, [places[of] for of in server])
            if half_day % 60 == 30:
                why = retention.reasons([of for of, _ in archives], POLICY, at)
                archives = [of for of in archives if why[of[0].id]]
                on_server.append(sum({of: size for _, each in archives for of, size in each.items()}.values()))
                bucket.remove(bucket.going(at, policy))
                in_bucket.append(sum(of.size for of in bucket.pieces))
        return max(on_server) / 100, max(in_bucket) / 100, sum(of.size for of in places.values()) / 100

    def test_is_bounded_where_a_bucket_from_which_nothing_goes_grows_for_ever(self):
        """A copy holds all archives that the policy keeps, those of months and years as well. So retention passes the
        policy on without its months and years: with them the bucket would hold twice as much."""
        short = dataclasses.replace(POLICY, monthly=0, yearly=0)
        server, bucket, ever = self.largest(short)
        self.assertLess(server, 7)
        self.assertLess(bucket, 10)
        self.assertGreater(ever, 40)
        self.assertGreater(self.largest(POLICY)[1], 2 * bucket)


class ForgedIndexes(unittest.TestCase):
    def test_make_nothing_go_that_was_there_before_them_whatever_they_say(self):
        """Whoever has the writer's key adds indexes for months: whole, broken, of other repositories and times,
        some of which name little, some everything. What would have stayed without them stays, at each later time."""
        chance = random.Random(7)
        for attack in range(8):
            honest = a_year(copies_a_day=2, days=200)
            taken = NOW - chance.randrange(1, 60) * DAY
            honest.copies = [of for of in honest.copies if of.at < taken]
            honest.pieces = [of for of in honest.pieces if of.at < taken]
            forged = Bucket()
            forged.copies, forged.pieces, forged.number = list(honest.copies), list(honest.pieces), honest.number
            at = taken
            while at < NOW + 100 * DAY:
                at += chance.choice([60, HOUR, 5 * HOUR, DAY])
                named = chance.sample(honest.pieces, chance.choice([0, 1, 30]))
                forged.index(
                    at, named, number=chance.randrange(5000), transaction=chance.randrange(5000),
                    made=at + chance.choice([0, -900, 900]) * DAY, repository=chance.choice([REPOSITORY, "ee" * 32]),
                    lacks=chance.choice([0, 0, 2]), problem=chance.choice([None, None, "no index"]),
                )  # fmt: skip
            for later in (0, 10, 45, 100):
                now = NOW + later * DAY
                before = {of for of in honest.kept(now) if honest.why(now)[of] != ["newest"]}
                missing = before - set(forged.kept(now))
                self.assertEqual(missing, set(), (attack, later))
                stay = {of.place for of in honest.pieces} - {of.place for of in forged.going(now).pieces}
                named = 0
                for of in before:
                    named |= of.names
                self.assertTrue(all(of.place in stay for of in honest.pieces if named >> of.place & 1))

    def test_let_the_newest_copy_before_them_stay_for_as_long_as_all_copies_do(self):
        bucket = Bucket()
        genuine = bucket.copy(NOW - 29 * DAY)
        bucket.index(NOW - 28 * DAY, [])
        self.assertIn(genuine, bucket.kept())

    def test_that_are_the_first_of_a_day_are_seen_by_their_numbers(self):
        """With the key alone, and not the server, whose own copies go on being counted."""
        bucket = a_year(days=60)
        for day in range(1, 20):
            at = NOW - day * DAY - HOUR
            bucket.index(at, [], number=bucket.number)
        self.assertIn("numbers", keeping.doubts(bucket.facts(), POLICY))


class BucketDoubts(unittest.TestCase):
    def doubts(self, bucket, **more):
        return keeping.doubts(bucket.facts(**more), POLICY)

    def test_nothing_of_an_honest_deployment(self):
        self.assertEqual(self.doubts(a_year()), {})

    def table(self):
        """Name of the doubt, words in it, what happens to a bucket, and other facts."""

        def add(**changes):
            return lambda bucket: bucket.index(NOW - HOUR, [], **changes)

        def nothing(_bucket):
            pass

        old = lambda bucket: setattr(bucket, "copies", [of for of in bucket.copies if of.at < NOW - 9 * DAY])  # noqa: E731
        flood = lambda bucket: [bucket.copy(NOW - HOUR + of) for of in range(31)]  # noqa: E731
        seen = [Copy("index/x", "v", NOW - 3 * DAY, deployment="moh", repository=REPOSITORY)]
        return [
            ("repository", "eeee", add(repository="ee" * 32), {}),
            ("repository", "other's", add(deployment="other"), {}),
            ("unreadable", "1 indexes", add(problem="it is cut off"), {}),
            ("incomplete", "lacks 2", add(lacks=2), {}),
            ("vanished", "index/x", nothing, {"seen": seen}),
            ("numbers", "somebody has the writer's key", add(number=3), {}),
            ("numbers", "set back", add(transaction=1), {}),
            ("clock", "this computer's clock", nothing, {"clock": NOW - 2 * HOUR}),
            ("clock", "received", lambda bucket: bucket.copy(NOW + 2 * HOUR), {}),
            ("clock", "another time", add(made=NOW - 9 * DAY), {}),
            ("flood", "more than 30", flood, {}),
            ("stale", "9 days old", old, {}),
            ("stale", "no whole copy", nothing, {"repositories": ["ee" * 32, REPOSITORY]}),
            ("drill", "failed", nothing, {"drill_failed": True}),
            ("drill", "10 days old", nothing, {"drilled": NOW - 10 * DAY}),
            ("drill", "no drills", nothing, {"drill_days": None}),
        ]

    def test_each_has_its_name_and_comes_alone(self):
        for name, words, happens, more in self.table():
            with self.subTest(name, words=words):
                bucket = a_year(days=60)
                happens(bucket)
                facts = dataclasses.replace(bucket.facts(), **more)
                found = keeping.doubts(facts, POLICY)
                self.assertEqual(list(found), [name], found)
                self.assertIn(words, found[name])

    def test_nothing_of_copies_that_another_operators_run_has_removed(self):
        bucket = a_year()
        seen = list(bucket.copies)
        bucket.remove(bucket.going())
        for later in (0, 20):
            self.assertNotIn("vanished", self.doubts(bucket, now=NOW + later * DAY, seen=seen))

    def test_nothing_of_former_repositories_that_the_stack_knows(self):
        bucket = Bucket()
        bucket.index(NOW - 50 * DAY, [], repository="cd" * 32)
        bucket.copy(NOW - HOUR)
        self.assertEqual(self.doubts(bucket, repositories=[REPOSITORY, "cd" * 32]), {})

    def test_nothing_of_an_index_that_arrived_twice_as_its_answer_was_lost(self):
        bucket = a_year(days=60)
        twin = dataclasses.replace(bucket.copies[-1], version="again", at=bucket.copies[-1].at + 1)
        bucket.copies.append(twin)
        self.assertEqual(self.doubts(bucket), {})
