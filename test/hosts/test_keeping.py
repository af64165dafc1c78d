"""What retention keeps, and when it removes nothing (keeping.py)."""

import calendar
import dataclasses
import json
import time
import unittest

import fixture  # noqa: F401

from chtbackup.retention import keeping
from chtbackup.retention.borg import documents_of
from chtbackup.retention.keeping import DAY, HOUR, Archive, Facts, Policy, Taken

NOW = float(calendar.timegm((2026, 11, 28, 12, 0, 0)))
POLICY = Policy(within=7, daily=14, weekly=8, monthly=12, yearly=3)


def archive(days, name=None, **more):
    """One that was taken some days ago."""
    at = round(NOW - days * DAY)
    name = name or time.strftime("moh-%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    return Archive(name, f"{name:x<64}"[:64], at - 60, at, **more)


def taken(archives):
    return [Taken(of.id, of.at, False) for of in sorted(archives, key=lambda of: of.at)]


def facts(archives, **more):
    known = {"repository": "r" * 64, "expected": "r" * 64, "drilled": NOW - 3 * DAY, "drill_days": 9}
    return Facts(now=NOW, archives=archives, ledger=taken(archives), **{**known, **more})


def kept(archives, policy=POLICY, now=NOW):
    why = keeping.reasons(archives, policy, now)
    return [of for of in archives if why[of.id]]


class WhatStays(unittest.TestCase):
    def test_is_every_archive_of_the_last_days_and_the_last_of_each_day_week_month_and_year(self):
        four_a_day = [archive(quarter / 4) for quarter in range(4 * 800)]
        stay = kept(four_a_day)
        ages = [(NOW - of.at) / DAY for of in stay]
        self.assertEqual(sum(age < 7 for age in ages), 28)
        # The last of a day is taken at 18:00; the fourteenth day is 12.75 days ago then.
        self.assertEqual(sum(7 <= age < 13 for age in ages), 6)
        self.assertTrue(12 + 8 + 3 + 40 > len(stay) > 40, len(stay))
        months = {time.strftime("%Y-%m", time.gmtime(of.at)) for of in stay}
        self.assertLessEqual({f"2026-{month:02d}" for month in range(1, 12)} | {"2025-12"}, months)
        years = [time.gmtime(of.at)[:3] for of in stay if time.gmtime(of.at)[0] < 2026]
        self.assertEqual(max(years), (2025, 12, 31))
        self.assertIn((2024, 12, 31), years)

    def test_is_of_five_months_at_most_after_a_year_with_the_default_policy(self):
        """A compaction a month makes a full copy of each; the test of the settings has the same numbers."""
        default = Policy(within=7, daily=14, weekly=6, monthly=4, yearly=2)
        for day in range(0, 400, 23):
            now = NOW + day * DAY
            six_a_day = [archive(hour / 24, f"a{hour}") for hour in range(-day * 24, 24 * 730, 4)]
            there = [of for of in six_a_day if of.at <= now]
            stay = kept(there, default, now)
            months = {time.strftime("%Y-%m", time.gmtime(of.at)) for of in stay}
            self.assertLessEqual(len(months), 5, (day, sorted(months)))
            self.assertLess(len(stay), 70)

    def test_says_why(self):
        why = keeping.reasons([newest := archive(0.1), old := archive(400), older := archive(401)], POLICY, NOW)
        self.assertEqual(
            why[newest.id], ["last 7 days", "day 2026-11-28", "week 2026-W48", "month 2026-11", "year 2026"]
        )
        self.assertEqual(why[old.id], ["day 2025-10-24", "week 2025-W43", "month 2025-10", "year 2025"])
        self.assertEqual(why[older.id], ["day 2025-10-23"])

    def test_is_the_newest_whatever_the_policy(self):
        nothing = Policy(within=1, daily=0, weekly=0, monthly=0, yearly=0)
        self.assertEqual(kept([new := archive(50), archive(51)], nothing), [new])

    def test_is_what_was_made_by_hand_before_the_repository_was_adopted(self):
        by_hand = dataclasses.replace(archive(900, "cht-1"), at=None)
        self.assertIn(by_hand, kept([archive(1), by_hand]))

    def test_is_the_same_a_run_later(self):
        """What a run keeps isn't removed by the next one on the same day."""
        some = [archive(days * 1.3) for days in range(400)]
        once = kept(some)
        self.assertEqual(kept(once), once)

    def test_is_never_displaced_by_what_an_interrupted_backup_left(self):
        whole, broken = archive(30.5), archive(30.4, "moh-x.checkpoint")
        stay = kept([archive(1), whole, broken])
        self.assertIn(whole, stay)
        self.assertNotIn(broken, stay)
        self.assertIn(archive(1).name, [of.name for of in stay])

    def test_is_of_a_month_that_ended_long_before_an_attacker_came(self):
        """Who has the client's key makes ten archives a day for a month: every month before keeps its own."""
        honest = [archive(days) for days in range(31, 365)]
        forged = [archive(tenth / 10, f"moh-forged-{tenth}") for tenth in range(1, 300)]
        stay = {of.id for of in kept(honest + forged)}
        for month in range(1, 11):
            of_month = [of for of in honest if time.gmtime(of.at)[:2] == (2026, month)]
            self.assertTrue(any(of.id in stay for of in of_month), month)

    def test_is_an_archive_whose_name_borg_would_take_for_another_ones_and_it_displaces_none(self):
        names = ("{now:moh-1}", "--force", "a::b", "a/b", "")
        odd = [archive(40 + number / 10, name) for number, name in enumerate(names)]
        of_the_day = archive(40.6, "moh-genuine")
        only = Policy(within=1, daily=9, weekly=0, monthly=0, yearly=0)
        self.assertEqual(
            kept([archive(0.1), of_the_day, archive(40.7, "moh-earlier"), *odd], only)[1:], [of_the_day, *odd]
        )

    def test_is_not_decided_by_the_times_that_a_client_gives(self):
        dated = [dataclasses.replace(archive(days), began=NOW + 900 * DAY) for days in range(1, 20)]
        plain = [archive(days) for days in range(1, 20)]
        self.assertEqual([of.name for of in kept(dated)], [of.name for of in kept(plain)])


class RetentionDoubts(unittest.TestCase):
    def doubts(self, archives, **more):
        return keeping.doubts(facts(archives, **more))

    def honest(self):
        return [archive(days, documents={"medic": 1000 - days, "users": 9}) for days in range(1, 60)]

    def test_nothing_of_an_honest_deployment(self):
        self.assertEqual(self.doubts(self.honest()), {})

    def test_another_repository(self):
        self.assertEqual(list(self.doubts(self.honest(), repository="s" * 64)), ["repository"])

    def test_an_archive_of_the_ledger_that_is_no_longer_listed(self):
        of = self.honest()
        found = keeping.doubts(dataclasses.replace(facts(of), archives=of[:-1]))
        self.assertRegex(
            found["vanished"], "^1 archives that were there are no longer listed: the one taken at 2026-09-30"
        )

    def test_an_archive_that_this_computer_saw_although_the_servers_ledger_was_edited(self):
        found = self.doubts(self.honest(), seen={"z" * 64: "moh-2026-01-01"})
        self.assertRegex(found["vanished"], "moh-2026-01-01")

    def test_nothing_where_somebody_approved_that_it_is_gone(self):
        of = facts(self.honest())
        of.ledger.insert(0, Taken("q" * 64, of.ledger[0].at - 5, True))
        self.assertEqual(keeping.doubts(of), {})

    def test_archives_that_are_dated_ahead_or_back(self):
        for began in (NOW + 400 * DAY, NOW - 400 * DAY, NOW - 4 * DAY):
            odd = dataclasses.replace(archive(5, "odd"), began=began)
            found = self.doubts([*self.honest(), odd])
            self.assertEqual(
                list(found), ["clock"] if abs(began - NOW) > 5 * DAY or began > odd.at + HOUR else [], began
            )

    def test_a_clock_of_the_server_that_went_wrong(self):
        ahead = [*self.honest(), archive(-3, "tomorrow")]
        self.assertRegex(self.doubts(ahead)["clock"], "^the server's clock shows 2026-11-28 12:00")
        of = facts(self.honest())
        of.ledger.reverse()
        self.assertRegex(keeping.doubts(of)["clock"], "the one after it at")

    def test_a_clock_of_the_computer_that_asks_which_differs_from_the_servers(self):
        for hours in (-2, 2):
            self.assertEqual(list(self.doubts(self.honest(), asked=NOW + hours * HOUR)), ["clock"])
        self.assertEqual(self.doubts(self.honest(), asked=NOW + 60), {})

    def test_a_flood_of_archives(self):
        flood = [archive(2 + hour / 40, f"f{hour}") for hour in range(32)]
        self.assertEqual(list(self.doubts([*self.honest(), *flood])), ["flood"])
        every_hour = [archive(hour / 24, f"h{hour}") for hour in range(1, 200)]
        self.assertEqual(self.doubts(every_hour), {})

    def test_documents_that_have_collapsed(self):
        of = [archive(0.5, documents={"medic": 20, "users": 9}), *self.honest()]
        found = self.doubts(of)
        self.assertEqual(list(found), ["shrunk"])
        self.assertRegex(found["shrunk"], r"^medic had 999 documents in moh-\S+, and has 20 in moh-\S+")

    def test_a_database_that_is_gone_but_not_a_small_one_that_comes_and_goes(self):
        self.assertIn("shrunk", self.doubts([archive(0.5, documents={"users": 9}), *self.honest()]))
        self.assertEqual(self.doubts([archive(0.5, documents={"medic": 999}), *self.honest()]), {})

    def test_an_archive_whose_manifest_cannot_be_read_where_others_have_one(self):
        """It would hide that documents have gone, were it passed over."""
        silent = archive(0.5, "moh-silent")
        found = self.doubts([silent, *self.honest()])
        self.assertEqual(list(found), ["manifest"])
        self.assertRegex(
            found["manifest"], "^1 archives have no manifest that can be read, and others have: moh-silent"
        )
        before = [dataclasses.replace(of, documents=None) for of in self.honest()]
        self.assertIn("manifest", self.doubts([archive(0.5, documents={"medic": 20}), *before]))

    def test_nothing_where_no_archive_has_a_manifest(self):
        self.assertEqual(self.doubts([archive(days) for days in range(1, 60)]), {})

    def test_backups_that_have_stopped(self):
        self.assertRegex(self.doubts(self.honest()[9:])["stale"], "^the newest archive is 10 days old")
        self.assertIn("stale", self.doubts([]))

    def test_without_a_drill_that_succeeded_of_late(self):
        of = self.honest()
        self.assertRegex(self.doubts(of, drilled=NOW - 12 * DAY)["drill"], "12 days old")
        self.assertRegex(self.doubts(of, drilled=NOW + 12 * DAY)["drill"], "yet to come")
        self.assertRegex(self.doubts(of, drilled=None)["drill"], "no drill has succeeded")
        self.assertRegex(self.doubts(of, drill_failed=True)["drill"], "failed")
        self.assertRegex(self.doubts(of, drill_days=None)["drill"], "has proven")


class Manifests(unittest.TestCase):
    def test_say_how_many_documents_there_were_after_the_backup(self):
        counts = {"medic": {"documents": 944, "deleted": 1, "updateSequence": 2000}}
        after = {"part": "after", "counts": {"source": "server", "databases": counts}}
        self.assertEqual(documents_of(json.dumps(after)), {"medic": 944})

    def test_of_somebody_who_means_harm_say_nothing(self):
        for text in ("", "{", "[]", "null", '{"counts": []}', '{"counts": {"databases": {"m": {}}}}', "[" * 10**5):
            self.assertIsNone(documents_of(text), text[:40])


if __name__ == "__main__":
    unittest.main()
