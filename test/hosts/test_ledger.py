"""What a drill remembers of the archives that it has seen."""

import os
import tempfile
import unittest

import fixture  # noqa: F401

from chtbackup.drill.ledger import Ledger, vanished

MONDAY, TUESDAY, WEDNESDAY = (f"moh-2026-11-{day}T02:00:00Z" for day in (23, 24, 25))


class Vanished(unittest.TestCase):
    def test_an_archive_that_was_seen_and_is_gone_is_named(self):
        self.assertEqual(vanished({"1": MONDAY, "2": TUESDAY}, {TUESDAY: "2"}), [MONDAY])

    def test_an_archive_whose_name_another_one_has_got_is_named(self):
        self.assertEqual(vanished({"1": MONDAY}, {MONDAY: "9"}), [MONDAY])

    def test_an_earlier_copy_from_a_bucket_may_lack_what_is_newer(self):
        self.assertEqual(vanished({"1": MONDAY, "2": TUESDAY, "3": WEDNESDAY}, {MONDAY: "1", TUESDAY: "2"}), [])


class Kept(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = f"{folder.name}/ledger.json"
        self.ledger = Ledger(self.path)

    def test_what_is_missed_is_missed_at_each_drill_until_the_file_is_removed(self):
        self.assertIsNone(self.ledger.compare("r", {MONDAY: "1", TUESDAY: "2"}))
        for _ in range(2):
            self.assertIn(MONDAY, self.ledger.compare("r", {TUESDAY: "2"}))
        os.remove(self.path)
        self.assertIsNone(self.ledger.compare("r", {TUESDAY: "2"}))

    def test_another_repository_begins_anew(self):
        self.ledger.compare("r", {MONDAY: "1"})
        self.assertIsNone(self.ledger.compare("other", {TUESDAY: "2"}))

    def test_a_damaged_file_is_begun_anew(self):
        for text in ("", "[]", '{"archives": 1}'):
            with open(self.path, "w") as file:
                file.write(text)
            self.assertIsNone(self.ledger.compare("r", {MONDAY: "1"}))


if __name__ == "__main__":
    unittest.main()
