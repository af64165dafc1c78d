import contextlib
import io
import json
import random
import shutil
import struct
import unittest

import xxhash
from fixture import SERVER, couchdb

from chtbackup.couchdb import files as couch_files
from chtbackup.couchdb import scan as couch_scan
from chtbackup.couchdb import term as couch_term

RANGE = "55555554-6aaaaaa8"
SHARD = f"shards/{RANGE}/medic.1795302615.couch"


class Counting(unittest.TestCase):
    def setUp(self):
        self.scratch, self.data = couchdb()
        self.addCleanup(self.scratch.cleanup)

    def scan(self):
        return couch_scan.scan(str(self.data))

    def test_counts_are_the_servers_own(self):
        found = self.scan()
        self.assertEqual(found["problems"], [])
        self.assertEqual(
            {
                name: (of["documents"], of["deleted"], of["updateSequence"], of["shards"])
                for name, of in found["databases"].items()
            },
            {
                name: (of["doc_count"], of["doc_del_count"], of["update_seq_number"], of["q"])
                for name, of in SERVER["databases"].items()
            },
        )
        self.assertEqual(
            {name: of["size"] for name, of in found["databases"].items()},
            {name: of["sizes"]["file"] for name, of in SERVER["databases"].items()},
        )
        self.assertEqual(sum(found["files"].values()), SERVER["files_total_bytes"])

    def test_views_stand_where_their_shards_stand(self):
        views = self.scan()["views"]
        self.assertEqual(len(views), 12)
        for of in views.values():
            self.assertEqual(of["updateSequence"], of["shardSequence"])

    def test_a_missing_shard_is_named_with_its_range(self):
        (self.data / SHARD).unlink()
        self.assertEqual(
            self.scan()["problems"],
            [f"medic: no shard for {RANGE}; CouchDB would silently recreate it empty"],
        )

    def test_a_view_ahead_of_its_shard_is_named(self):
        # The compacted beginning of a shard that the view has already moved on from.
        file = self.data / SHARD
        whole = couch_files.database_counts(str(file))["updateSequence"]
        content = file.read_bytes()
        for end in range(len(content), 0, -couch_files.BLOCK):
            file.write_bytes(content[:end])
            try:
                if couch_files.database_counts(str(file))["updateSequence"] < whole:
                    break
            except couch_files.Unreadable:
                self.skipTest("the shard holds one header only")
        problems = self.scan()["problems"]
        self.assertEqual(len(problems), 1)
        self.assertIn("ahead of its shard", problems[0])

    def test_an_unmounted_disk_is_no_data_directory(self):
        for path in self.data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.assertEqual(len(self.scan()["problems"]), 2)

    def test_the_nodes_of_a_cluster_are_counted_together(self):
        other = self.data.parent / "second"
        (other / "shards").mkdir(parents=True)
        shutil.copy(self.data / "_dbs.couch", other)
        shutil.move(self.data / "shards" / RANGE, other / "shards" / RANGE)
        self.assertIn("medic: no shard", "\n".join(self.scan()["problems"]))
        both = couch_scan.scan(str(self.data), str(other))
        self.assertEqual(both["databases"]["medic"]["documents"], SERVER["databases"]["medic"]["doc_count"])
        # The views stayed on the first node: worth a note.
        self.assertEqual(both["problems"], [])

    def test_the_command_answers_with_a_table_and_an_exit_code(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(couch_scan.main([str(self.data)]), 0)
        self.assertRegex(out.getvalue(), r"medic +419 +2 +440 +12")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            (self.data / SHARD).unlink()
            self.assertEqual(couch_scan.main([str(self.data), "--json"]), 1)
        self.assertEqual(len(json.loads(out.getvalue())["problems"]), 1)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(couch_scan.main([str(self.data / "nowhere")]), 2)
        self.assertIn("not a directory", err.getvalue())


class OfALiveCouchDB(unittest.TestCase):
    """What a CouchDB that works leaves on the disk for a moment, or for ever when it dies then."""

    def setUp(self):
        self.scratch, self.data = couchdb()
        self.addCleanup(self.scratch.cleanup)
        self.view = next((self.data / ".shards" / RANGE).rglob("*.view"))
        self.shards = self.data / "shards" / RANGE

    def scan(self, problems=()):
        found = couch_scan.scan(str(self.data))
        self.assertEqual(found["problems"], list(problems))
        return found

    def test_a_view_whose_building_has_just_begun_counts_as_not_built(self):
        self.view.write_bytes(header(b"h\2" + binary(b"s" * 16) + atom("nil")))
        name = str(self.view.relative_to(self.data))
        self.assertEqual(self.scan()["views"][name]["updateSequence"], 0)
        self.view.write_bytes(b"")
        found = self.scan()
        self.assertEqual((found["views"][name]["updateSequence"], found["unreadableViews"]), (0, []))

    def test_a_view_that_cannot_be_read_is_a_note_as_couchdb_builds_it_anew(self):
        index_of_couchdb_1 = b"h\2" + binary(b"s" * 16) + b"h\5" + atom("index_header") + b"a\7a\0" + atom("nil") + b"j"
        for content in (b"garbage" * 999, b"\1" * 9000, header(index_of_couchdb_1), header(atom("nil"))):
            self.view.write_bytes(content)
            found = self.scan()
            self.assertEqual(found["unreadableViews"], [str(self.view.relative_to(self.data))])
            self.assertIn("builds this view anew", "\n".join(found["notes"]))

    def test_a_database_that_has_just_been_made_counts_as_empty(self):
        for folder in (self.data / "shards").iterdir():
            (folder / "new.1800000000.couch").write_bytes(b"")
        new = self.scan()["databases"]["new"]
        self.assertEqual((new["documents"], new["updateSequence"], new["shards"]), (0, 0, 12))
        # Some of its shards have their first header by then.
        uuid, nil = binary(b"u" * 32), atom("nil")
        first = b"h\x10" + atom("db_header") + b"a\x08a\0a\0" + nil * 6 + b"b\0\0\3\xe8" + uuid + b"ja\0a\1" + nil
        (self.shards / "new.1800000000.couch").write_bytes(header(first))
        self.assertEqual(self.scan()["databases"]["new"], {**new, "size": couch_files.BLOCK})

    def test_a_file_that_has_lost_everything_is_not_taken_for_a_new_one(self):
        file = self.data / SHARD
        file.write_bytes(b"")
        self.assertIn(f"{file}: empty file, but its database has changes", couch_scan.scan(str(self.data))["problems"])

    def test_an_empty_file_of_an_older_database_of_that_name_is_no_loss(self):
        (self.shards / "medic.1600000000.couch").write_bytes(b"")
        self.scan()

    def test_the_list_of_databases_may_be_empty_only_where_there_are_none(self):
        file = self.data / "_dbs.couch"
        file.write_bytes(b"")
        self.scan([f"{file}: empty file, but its database has changes"])
        for folder in ("shards", ".shards"):
            shutil.rmtree(self.data / folder)
        (self.data / "shards").mkdir()
        self.scan()

    def test_files_that_a_deletion_left_over_are_none_of_a_database_and_no_problem(self):
        """A request that comes while CouchDB deletes a database may make one of its files anew."""
        names = couch_files.listed_databases(str(self.data / "_dbs.couch"))
        self.assertEqual(self.scan()["leftOver"], [])
        (self.data / "_dbs.couch").write_bytes(
            database([*((name, False) for name in names), ("gone", True), ("again", True), ("again", False)])
        )
        self.assertEqual(couch_files.listed_databases(str(self.data / "_dbs.couch")), [*names, "again"])
        before = self.scan()["databases"]
        whole = (self.data / SHARD).read_bytes()
        for content in (whole, b"", b"garbage" * 999):
            (self.shards / "gone.1800000000.couch").write_bytes(content)
            found = self.scan()
            self.assertEqual((found["databases"], found["leftOver"]), (before, ["gone"]))
            self.assertIn("gone: CouchDB has deleted this database, and 1 of its files", " ".join(found["notes"]))
        # Of one that isn't known to be deleted, shards are missing.
        (self.shards / "gone.1800000000.couch").rename(self.shards / "other.1800000000.couch")
        self.assertIn("other: no shard for", " ".join(couch_scan.scan(str(self.data))["problems"]))

    def test_a_database_that_was_made_and_deleted_often_is_read_as_any_other(self):
        names = couch_files.listed_databases(str(self.data / "_dbs.couch"))
        for revisions in (3, 1000):
            tree = b"j"
            for _ in range(revisions):  # a revision, what is known of it, and those that came of it
                tree = b"l\0\0\0\1h\3" + binary(b"r" * 16) + b"h\5a\1a\1jjj" + tree + b"j"
            (self.data / "_dbs.couch").write_bytes(database([(name, False) for name in names], tree))
            self.assertEqual(couch_files.listed_databases(str(self.data / "_dbs.couch")), names)
            self.scan()

    def test_damage_in_the_list_of_databases_is_named(self):
        file = self.data / "_dbs.couch"
        content = bytearray(database([("medic", False)]))
        content[10] ^= 1
        file.write_bytes(content)
        problem = couch_scan.scan(str(self.data))["problems"]
        self.assertEqual(len(problem), 1)
        self.assertIn(f"{file}: its tree of documents can't be read", problem[0])

    def test_a_file_that_an_older_couchdb_wrote_is_counted(self):
        tree = b"h\2a\7h\2a\5a\1"  # position and reduction, without sizes
        old = b"h\x0b" + atom("db_header") + b"a\6a\x09a\0" + tree + atom("nil") * 5 + b"a\0"
        (self.shards / "medic.1795302615.couch").write_bytes(header(old))
        found = couch_files.database_counts(str(self.shards / "medic.1795302615.couch"))
        self.assertEqual((found["documents"], found["deleted"], found["updateSequence"]), (5, 1, 9))

    def test_what_compactions_and_deletions_leave_is_neither_counted_nor_a_problem(self):
        before = self.scan()
        whole = (self.data / SHARD).read_bytes()
        for name in (
            "couch.compact",
            "couch.compact.data",
            "couch.compact.meta",
            "20261121.020304.deleted.couch",
        ):
            for content in (b"", whole[:5000]):
                (self.shards / f"medic.1795302615.{name}").write_bytes(content)
                self.assertEqual(self.scan()["databases"], before["databases"])
        self.view.with_suffix(".compact.view").write_bytes(b"")
        (self.data / ".delete" / "0123456789abcdef").write_bytes(b"")
        after = self.scan()
        self.assertEqual((after["views"], after["notes"]), (before["views"], before["notes"]))


def atom(name):
    return b"w" + bytes([len(name)]) + name.encode()


def binary(content):
    return b"m" + struct.pack(">I", len(content)) + content


def header(term):
    """A file of one block with a term as its header."""
    checksum = xxhash.xxh3_128_digest(b"\x83" + term)
    return (b"\1" + struct.pack(">I", len(term) + 17) + checksum + b"\x83" + term).ljust(couch_files.BLOCK, b"\0")


def database(documents, revisions=b"j"):
    """A database's file with documents, each with whether it is deleted, in one node of its tree."""
    entries = b"".join(
        b"h\2" + binary(name.encode()) + b"h\4a\1" + (b"a\1" if deleted else b"a\0") + b"j" + revisions
        for name, deleted in documents
    )
    node = b"\x83h\2" + atom("kv_node") + b"l" + struct.pack(">I", len(documents)) + entries + b"j"
    chunk = struct.pack(">I", len(node) | 1 << 31) + xxhash.xxh3_128_digest(node) + node
    size = couch_files.BLOCK - 1
    blocks = [b"\0" + chunk[at : at + size].ljust(size, b"\0") for at in range(0, len(chunk), size)]
    deleted = sum(1 for _name, gone in documents if gone)
    tree = b"h\3a\1h\3a" + bytes([len(documents) - deleted]) + b"a" + bytes([deleted]) + b"ja\0"
    rest = atom("nil") * 5 + b"b\0\0\3\xe8" + binary(b"u" * 32) + b"ja\0a\1" + atom("nil")
    return b"".join(blocks) + header(b"h\x10" + atom("db_header") + b"a\x08a\x09a\0" + tree + rest)


class Damage(unittest.TestCase):
    def setUp(self):
        self.scratch, data = couchdb()
        self.addCleanup(self.scratch.cleanup)
        self.file = data / SHARD
        self.whole = self.file.read_bytes()
        self.counts = couch_files.database_counts(str(self.file))

    def counts_of(self, content):
        self.file.write_bytes(content)
        return couch_files.database_counts(str(self.file))

    def test_a_file_cut_off_anywhere_is_unreadable_or_older_never_newer(self):
        random.seed(3)
        cuts = {0, 1, 4095, 4096, 4097, len(self.whole) - 1, *random.sample(range(len(self.whole)), 60)}
        for cut in cuts:
            with self.subTest(cut=cut):
                try:
                    found = self.counts_of(self.whole[:cut])
                except couch_files.Unreadable as error:
                    self.assertTrue(str(error).startswith(str(self.file)))
                    self.assertNotIn("\n", str(error))
                else:
                    self.assertLessEqual(found["updateSequence"], self.counts["updateSequence"])

    def test_bytes_written_after_the_last_header_change_nothing(self):
        found = self.counts_of(self.whole + b"\0" * 10000)
        self.assertEqual(found["documents"], self.counts["documents"])

    def test_a_half_written_header_is_passed_over_and_noted(self):
        padding = b"\0" * (-len(self.whole) % couch_files.BLOCK)
        found = self.counts_of(self.whole + padding + b"\1\0\0\1\0garbage")
        self.assertEqual(found["documents"], self.counts["documents"])
        self.assertEqual(found["damagedHeaders"], 1)

    def test_any_byte_changed_in_the_newest_header_is_noticed(self):
        position = couch_files.newest_header(str(self.file)).position
        length = struct.unpack(">I", self.whole[position + 1 : position + 5])[0]
        for at in range(position + 5, position + 5 + length, 7):
            with self.subTest(at=at):
                broken = bytearray(self.whole)
                broken[at] ^= 0x10
                try:
                    self.assertGreater(self.counts_of(bytes(broken))["damagedHeaders"], 0)
                except couch_files.Unreadable:
                    pass

    def test_garbage_is_refused_in_one_line(self):
        random.seed(4)
        for content in (b"", b"\1" * 50000, random.randbytes(50000), b"\1\xff\xff\xff\xff" + b"\0" * 9000):
            with self.assertRaises(couch_files.Unreadable):
                self.counts_of(content)

    def test_a_view_is_not_taken_for_a_database(self):
        view = next(self.file.parents[2].glob(".shards/*/*/mrview/*.view"))
        with self.assertRaisesRegex(couch_files.Unreadable, "not that of a database"):
            couch_files.database_counts(str(view))
        with self.assertRaisesRegex(couch_files.Unreadable, "not that of a view"):
            couch_files.view_sequence(str(self.file))


class Terms(unittest.TestCase):
    def test_every_kind_that_headers_hold(self):
        atom = couch_term.Atom
        for data, value in (
            (b"\x83\x61\x05", 5),
            (b"\x83\x62\xff\xff\xff\xfe", -2),
            (b"\x83\x6e\x08\x00" + (2**60).to_bytes(8, "little"), 2**60),
            (b"\x83\x6e\x01\x01\x05", -5),
            (b"\x83\x46" + struct.pack(">d", 1.5), 1.5),
            (b"\x83\x64\x00\x03nil", atom("nil")),
            (b"\x83\x77\x03nil", atom("nil")),
            (b"\x83\x6d\x00\x00\x00\x02hi", b"hi"),
            (b"\x83\x6b\x00\x02hi", [104, 105]),
            (b"\x83\x6a", []),
            (b"\x83\x68\x02\x61\x01\x6a", (1, [])),
            (b"\x83\x6c\x00\x00\x00\x01\x61\x01\x6a", [1]),
            (b"\x83\x74\x00\x00\x00\x01\x61\x01\x61\x02", {1: 2}),
        ):
            with self.subTest(data=data):
                self.assertEqual(couch_term.decode_term(data), value)

    def test_what_is_no_term_is_refused_and_costs_no_memory(self):
        for data in (
            b"",
            b"\x83",
            b"\x82\x61\x01",
            b"\x83\x61",
            b"\x83\x61\x01\x01",
            b"\x83\xfe",
            b"\x83\x6d\xff\xff\xff\xff",
            b"\x83\x69\xff\xff\xff\xff",
            b"\x83\x74\xff\xff\xff\xff",
            b"\x83\x74\x00\x00\x00\x01\x6a\x6a",  # a list as a key
            b"\x83" + b"\x68\x01" * 5000 + b"\x6a",
            b"\x83\x77\x01\xff",
        ):
            with self.subTest(data=data[:12]), self.assertRaises(couch_term.BadTerm):
                couch_term.decode_term(data)


class Ranges(unittest.TestCase):
    def test_any_number_of_shards_is_complete_when_nothing_is_left_out(self):
        self.assertEqual(couch_scan.missing_ranges(["00000000-ffffffff"]), [])
        self.assertEqual(couch_scan.missing_ranges(["80000000-ffffffff", "00000000-7fffffff"]), [])

    def test_gaps_at_either_end_and_between_are_named(self):
        self.assertEqual(couch_scan.missing_ranges([]), ["00000000-ffffffff"])
        self.assertEqual(
            couch_scan.missing_ranges(["10000000-1fffffff", "30000000-efffffff"]),
            ["00000000-0fffffff", "20000000-2fffffff", "f0000000-ffffffff"],
        )


if __name__ == "__main__":
    unittest.main()
