import unittest

import fixture  # noqa: F401  (puts the scripts on the path)

from chtbackup.manifest import write as manifest


def db(documents, sequence, deleted=0):
    return {"documents": documents, "deleted": deleted, "updateSequence": sequence}


class Counts(unittest.TestCase):
    def check(self, before, after, found):
        return manifest.compare_counts(
            {"medic": before} if before else {},
            {"medic": after} if after else {},
            {"medic": found} if found else {},
        )

    def test_a_copy_between_before_and_after_is_right(self):
        for found in (db(100, 150), db(105, 155), db(110, 160)):
            self.assertEqual(self.check(db(100, 150), db(110, 160), found), [])

    def test_documents_may_come_and_go_meanwhile(self):
        # Ten were made and ten deleted: between, there were more than at either side.
        self.assertEqual(self.check(db(100, 150), db(100, 170, 10), db(110, 160)), [])

    def test_a_copy_older_than_before_is_found(self):
        self.assertIn("older than before", self.check(db(100, 150), db(110, 160), db(99, 149))[0])

    def test_a_copy_newer_than_after_is_found(self):
        self.assertIn("newer than after", self.check(db(100, 150), db(110, 160), db(111, 161))[0])

    def test_documents_lost_at_the_right_sequence_are_found(self):
        self.assertEqual(len(self.check(db(100, 150), db(100, 150), db(99, 150))), 2)
        self.assertIn("only 5 changes", self.check(db(100, 150), db(110, 160), db(90, 155))[0])

    def test_a_missing_database_is_found_and_a_strange_one(self):
        self.assertEqual(
            self.check(db(100, 150), db(100, 150), None),
            ["medic: missing (100 documents when it was backed up)"],
        )
        self.assertIn("comes from elsewhere", self.check(None, None, db(1, 1))[0])

    def test_a_database_made_or_deleted_meanwhile_may_be_there_or_not(self):
        for found in (None, db(3, 3)):
            self.assertEqual(self.check(None, db(5, 5), found), [])
            self.assertEqual(self.check(db(3, 3), None, found), [])

    def test_a_database_deleted_and_made_again_meanwhile_is_not_judged(self):
        self.assertEqual(self.check(db(100, 150), db(1, 1), db(100, 150)), [])


class Shards(unittest.TestCase):
    path = "/data/shards/00000000-ffffffff/a/b.123.couch"
    after = db(7, 11)

    def check(self, before, found, after=after):
        return manifest.compare_shards(
            {self.path: before}, {"a/b": after} if after else {}, {self.path: found} if found else {}
        )

    def test_a_shard_may_have_grown(self):
        self.assertEqual(self.check(db(5, 9), db(7, 11)), [])

    def test_a_cut_off_shard_is_found(self):
        self.assertIn("cut off or damaged", self.check(db(5, 9), db(4, 8))[0])

    def test_a_missing_shard_is_found_unless_its_database_was_deleted(self):
        self.assertIn("missing", self.check(db(5, 9), None)[0])
        self.assertEqual(self.check(db(5, 9), None, after=None), [])

    def test_lost_documents_are_found(self):
        self.assertIn("only 1 changes", self.check(db(5, 9), db(2, 10))[0])

    def test_a_shard_of_a_later_copy_is_found(self):
        self.assertIn("at most 11 when it ended", self.check(db(5, 9), db(7, 12))[0])

    def test_a_shard_may_have_got_all_changes_of_its_database_and_no_more(self):
        other = self.path.replace("00000000", "80000000")
        before = {self.path: db(5, 9), other: db(1, 1)}
        for sequence, problems in ((11, 0), (12, 1)):
            found = {self.path: db(5, sequence), other: db(1, 1)}
            self.assertEqual(len(manifest.compare_shards(before, {"a/b": db(8, 12)}, found)), problems)

    def test_the_shards_of_a_database_made_again_meanwhile_are_not_judged(self):
        self.assertEqual(self.check(db(5, 9), db(7, 12), after=db(1, 1)), [])


if __name__ == "__main__":
    unittest.main()
