"""Two months of backups and retention, with the default policy: the right archives stay, and are what was stored.
`npm run bench -- --only year` takes a whole year."""

import unittest

from parts import Case, with_newest_borg

from simulated import BUSY, HOUR, Year


@with_newest_borg
class TwoMonths(Case):
    def test_the_right_archives_stay_and_are_what_was_stored(self):
        year = Year(self.made, BUSY, size=1_000_000, every=12 * HOUR)
        for _ in range(4):
            year.go_on(15)
            year.retain()
        self.assertEqual(year.listed(), year.expected())
        months = {name[:11]: name for name in sorted(year.held)}
        self.assertEqual(len(months), 2)
        self.assertEqual(year.wrong(months.values()), [])
        last = year.weeks[-1]
        self.assertGreater(len(year.taken), 2 * len(year.held))
        self.assertLess(last.after, 0.75 * last.without)
        self.assertLess(last.after, 6 * last.data)


if __name__ == "__main__":
    unittest.main()
