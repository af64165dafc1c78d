import contextlib
import io
import tempfile
import unittest
from pathlib import Path

import fixture  # noqa: F401, the scripts' folder on the path
from test_restore import RANGE, SHARD, CopyOfADeployment

from chtbackup.base import errors
from chtbackup.restore import choose, part, targets, wanted

DATA = ["/srv/one", "/srv/two"]
KNOWN = [
    "/srv/one/_dbs.couch",
    "/srv/one/shards",
    "/srv/one/shards/00000000-7fffffff/medic.17.couch",
    "/srv/one/shards/00000000-7fffffff/medic.9.couch",
    "/srv/one/shards/00000000-7fffffff/medic-sentinel.17.couch",
    "/srv/one/shards/00000000-7fffffff/team/a.17.couch",
    "/srv/one/.shards/00000000-7fffffff/medic.17_design",
    "/srv/one/.shards/00000000-7fffffff/medic.17_design/mrview/aa.view",
    "/srv/one/.shards/00000000-7fffffff/medic.9_design/mrview/aa.view",
    "/srv/two/shards/80000000-ffffffff/medic.17.couch",
    "/srv/cht/compose/cht-core.yml",
    "/srv/cht/compose/cht-couchdb.yml",
    "/srv/cht/upgrade-service/.env",
]


class Choosing(unittest.TestCase):
    def chosen(self, databases=(), paths=()):
        is_wanted = wanted.chooser(KNOWN, DATA, list(databases), list(paths), "t-1")
        return [path for path in KNOWN if is_wanted(path)]

    def test_a_database_is_its_newest_shards_and_their_views_on_all_nodes(self):
        self.assertEqual(
            self.chosen(["medic"]),
            [
                "/srv/one/shards/00000000-7fffffff/medic.17.couch",
                "/srv/one/.shards/00000000-7fffffff/medic.17_design",
                "/srv/one/.shards/00000000-7fffffff/medic.17_design/mrview/aa.view",
                "/srv/two/shards/80000000-ffffffff/medic.17.couch",
            ],
        )

    def test_a_database_whose_name_is_a_path(self):
        self.assertEqual(self.chosen(["team/a"]), ["/srv/one/shards/00000000-7fffffff/team/a.17.couch"])

    def test_a_directory_is_all_that_is_in_it_and_nothing_beside_it(self):
        self.assertEqual(self.chosen(paths=["/srv/cht/compose"]), KNOWN[10:12])
        self.assertEqual(self.chosen(paths=["/srv/cht/upgrade-service/.env"]), KNOWN[12:])

    def test_an_unknown_database_is_answered_with_those_that_there_are(self):
        with self.assertRaisesRegex(errors.Refused, "no database medc in t-1; it holds: medic, medic-.*team/a$"):
            self.chosen(["medc"])
        many = [f"/srv/one/shards/00000000-7fffffff/medic-user-{n}-meta.1.couch" for n in range(100)]
        with self.assertRaisesRegex(errors.Refused, "it holds 100 others, similar: medic-user-7.*-meta"):
            wanted.chooser(many, DATA, ["medic-user-7-mta"], [], "t-1")

    def test_an_unknown_path_is_answered_with_what_is_near(self):
        for path, near in (
            ("/srv/cht/compose/core.yml", "/srv/cht/compose holds: cht-core.yml, cht-couchdb.yml"),
            ("/srv/cht/compose/cht-core.yml/x", "/srv/cht/compose holds: cht-core.yml, cht-couchdb.yml"),
            ("/home/x", "/ holds: srv"),
        ):
            with self.assertRaises(errors.Refused) as refused:
                self.chosen(paths=[path])
            self.assertEqual(str(refused.exception), f"there is no {path} in t-1; {near}")


class Where(unittest.TestCase):
    def test_only_an_empty_directory_away_from_the_cht_is_filled(self):
        with tempfile.TemporaryDirectory() as top:
            (Path(top) / "used").mkdir()
            (Path(top) / "used" / "x").touch()
            places = {"couchdb": [f"{top}/couchdb"], "volumes": {"v": f"{top}/v"}}
            for into, reason in (
                (f"{top}/couchdb", "the CHT works there"),
                (f"{top}/couchdb/shards/x", f"the CHT works there .in {top}/couchdb"),
                (f"{top}/v/x", "the CHT works there"),
                ("/proc", "a file system of its own; choose a directory in it, /proc/cht"),
                (f"{top}/used", "there is something in .*used already. Nothing was changed"),
                (f"{top}/used/x", "there is something in"),
            ):
                with self.assertRaisesRegex(errors.Refused, reason):
                    part.refuse_data(targets.Place(into), places)
            for into in (f"{top}/couchdb-look", f"{top}/new/deep"):
                part.refuse_data(targets.Place(into), places)


class PartOfADeployment(CopyOfADeployment):
    """A copy that holds one database, or one file, and is compared with the whole manifest."""

    def part(self, databases=(), paths=()):
        """The lines of a part's verification, when everything else is gone from the copy."""
        made = part.Part({"repository": "", "passphrase": "", "baseDirectory": "", "sshConfig": ""}, "")
        made.databases, made.paths = list(databases), list(paths)
        is_wanted = wanted.chooser(self.before["files"], [str(self.data)], made.databases, made.paths, "t")
        made.archive = choose.Archive("t", "1", wanted.narrowed(self.before, is_wanted), self.after)
        made.items = []
        base = Path(self.copy.bases[""])
        for path in sorted(base.rglob("*"), reverse=True):
            if path.is_file() and not is_wanted(f"/{path.relative_to(base)}"):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        self.said = io.StringIO()
        with contextlib.redirect_stdout(self.said), contextlib.redirect_stderr(io.StringIO()):
            return "\n".join(made.prove(self.copy.bases[""]).problems)

    def test_one_database_is_compared_with_its_part_of_the_manifest(self):
        self.assertEqual(self.part(["medic"]), "")
        self.assertIn("right: counts: 1 database with 419 documents", self.said.getvalue())
        self.assertIn("12 database files and 12 views", self.said.getvalue())

    def test_a_shard_that_is_missing_is_an_error(self):
        self.at(self.data / SHARD).unlink()
        problems = self.part(["medic"])
        self.assertIn(f"medic: no shard for {RANGE}", problems)
        self.assertIn(f"{SHARD}: missing", problems)

    def test_a_shard_that_even_the_backup_lacked_is_an_error(self):
        self.at(self.data / SHARD).unlink()
        for listed in (self.before["files"], self.before["shards"]):
            del listed[str(self.data / SHARD)]
        self.assertIn(f"medic: no shard for {RANGE}; CouchDB would silently recreate it empty", self.part(["medic"]))

    def test_a_damaged_shard_is_an_error_also_when_it_is_all_that_was_wanted(self):
        shard = self.at(self.data / SHARD)
        shard.write_bytes(b"\0" * shard.stat().st_size)
        self.assertIn("none of its", self.part(paths=[str(self.data / SHARD)]))

    def test_a_file_is_compared_by_its_checksum(self):
        self.assertEqual(self.part(paths=[str(self.env)]), "")
        self.assertIn("right: checksums: 1 ", self.said.getvalue())
        self.at(self.env).write_text("COUCHDB_PASSWORD=wrong\n")
        self.assertIn(".env: its content is not what was backed up", self.part(paths=[str(self.env)]))

    def test_a_file_that_was_not_extracted_is_an_error(self):
        self.at(self.env).unlink()
        self.assertIn(".env: missing", self.part(paths=[str(self.env)]))


if __name__ == "__main__":
    unittest.main()
