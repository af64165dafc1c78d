import contextlib
import datetime
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from fixture import couchdb

from chtbackup import docker as docker_client
from chtbackup.backup import collect, data, describe
from chtbackup.backup.run import Run
from chtbackup.base import errors
from chtbackup.base import text as base_text
from chtbackup.borg import client as borg_client
from chtbackup.borg import errors as borg_errors
from chtbackup.borg.json_log import Message
from chtbackup.bucket import fetch as bucket_fetch
from chtbackup.couchdb import files as couch_files
from chtbackup.couchdb import scan as couch_scan
from chtbackup.manifest import copy as manifest_copy
from chtbackup.manifest import places as manifest_places
from chtbackup.manifest import shape as manifest_shape
from chtbackup.manifest import verify
from chtbackup.restore import (
    archives,
    by_hand,
    choose,
    from_bucket,
    listing,
    needs,
    occupied,
    output,
    part,
    perform,
    secrets,
    start,
    switch,
    targets,
)
from chtbackup.restore import program as restore

RANGE = "55555554-6aaaaaa8"
SHARD = f"shards/{RANGE}/medic.1795302615.couch"


class CopyOfADeployment(unittest.TestCase):
    """A deployment with files of a real CouchDB, its manifest as a backup makes it, and a copy of it all."""

    @classmethod
    def setUpClass(cls):
        cls.certificates = tempfile.TemporaryDirectory()
        for name in ("one", "other"):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
                 "-days", "2", "-subj", "/CN=test", "-keyout", f"{cls.certificates.name}/{name}-key.pem",
                 "-out", f"{cls.certificates.name}/{name}-cert.pem"],
                check=True, capture_output=True,
            )  # fmt: skip

    @classmethod
    def tearDownClass(cls):
        cls.certificates.cleanup()

    def setUp(self):
        self.scratch, self.data = couchdb()
        self.addCleanup(self.scratch.cleanup)
        top = self.data.parent
        self.home, self.volume, self.collected = (
            top / "home",
            top / "volumes" / "cht_cht-ssl",
            top / "collect",
        )
        for folder in (self.home / "compose", self.home / "upgrade-service", self.volume, self.collected):
            folder.mkdir(parents=True)
        (self.home / "compose" / "cht-core.yml").write_text("services: {}\n")
        self.env = self.home / "upgrade-service" / ".env"
        self.env.write_text("COUCHDB_PASSWORD=right\n")
        for name in ("cert", "key"):
            for folder in (self.volume, self.collected):
                shutil.copy(f"{self.certificates.name}/one-{name}.pem", folder / f"{name}.pem")
        settings = {"deployment": "t", "chtHome": str(self.home), "composeProject": "cht", "repository": "r"}
        made = collect.Collection(Run({**settings, "couchdbData": [str(self.data)]}, True))
        made.data.directories = [str(self.data)]
        made.places = {
            "couchdb": made.data.directories,
            "composeFiles": [str(self.home / "compose" / "cht-core.yml")],
            "environment": str(self.env),
            "volumes": {"cht_cht-ssl": str(self.volume)},
            "certificate": str(self.collected / "cert.pem"),
            "key": str(self.collected / "key.pem"),
        }
        made.contents.paths = [str(self.data), *sorted(str(path) for path in self.data.rglob("*"))]
        made.contents.paths += [str(path) for path in (self.volume, *self.volume.iterdir(), *self.collected.iterdir())]
        made.contents.paths += [*made.places["composeFiles"], made.places["environment"]]
        description = describe.Description(made)
        self.before, self.after = description.before(), description.after()
        self.assertEqual(self.before["problems"], [])
        base = tempfile.TemporaryDirectory()
        self.addCleanup(base.cleanup)
        shutil.copytree(top, base.name + str(top), symlinks=True)
        self.copy = manifest_copy.Copy({"": base.name})

    def at(self, path):
        return Path(self.copy.at(str(path)))

    def verify(self, dropped=()):
        return verify.verify(self.before, self.after, self.copy, list(dropped))

    def problems(self):
        return "\n".join(self.verify().problems)


class Answers(unittest.TestCase):
    def test_couchdb_is_not_held_to_databases_that_were_being_made_or_deleted(self):
        count = {"documents": 2, "deleted": 0, "updateSequence": 2}
        files = {"medic": count, "going": {**count, "documents": 9}, "gone": count}
        counts = {"medic": count, "going": count}
        self.assertEqual(archives.answer_problems(files, counts, {"going", "gone"}), [])
        self.assertIn("gone is missing", archives.answer_problems(files, counts, {"going"}))
        self.assertEqual(archives.answer_problems({"medic": count}, {}, {"gone"})[-1], "medic is missing")

    def test_the_backups_last_word_about_problems_counts(self):
        before = {"problems": ["going: no shard"]}
        self.assertEqual(archives.reported(before, {"problems": []}), [])
        self.assertEqual(archives.reported(before, {"counts": {}}), ["going: no shard"])
        self.assertEqual(archives.reported(before, None), ["going: no shard"])


class Verification(CopyOfADeployment):
    def test_a_right_copy_is_right_and_it_is_said_what_was_checked(self):
        verdict = self.verify()
        self.assertEqual(verdict.problems, [])
        self.assertEqual(
            [line.split(":")[0] for line in verdict.checked],
            ["files", "checksums", "headers", "counts", "TLS"],
        )
        self.assertIn("7 databases with 863 documents", verdict.checked[3])

    def test_messages_name_places_as_they_were_backed_up(self):
        self.at(self.data / SHARD).unlink()
        self.at(self.env).unlink()
        self.assertNotIn(self.copy.bases[""], self.problems())

    def unreadable(self, change, kinds=None):
        before, after = (json.loads(json.dumps(of)) for of in (self.before, self.after))
        change(before, after)
        return manifest_shape.unreadable(before, after, kinds or {})

    def test_a_manifest_as_a_backup_makes_it_is_read(self):
        self.assertIsNone(self.unreadable(lambda before, after: None))
        self.assertIsNone(manifest_shape.unreadable(self.before, None, {}))

    @unittest.skipUnless(shutil.which("borg"), "borg isn't on this computer")
    def test_a_manifest_in_a_real_archive_is_read_without_writing_a_file(self):
        top = Path(self.copy.bases[""])
        collect = top / "run" / "cht-backup" / "t" / "collect"
        collect.mkdir(parents=True)
        for name, of in (("before", self.before), ("after", self.after)):
            (collect / f"manifest-{name}.json").write_text(json.dumps(of, indent=1) + "\n")
        request = {"repository": f"{top}/r", "passphrase": "x", "baseDirectory": f"{top}/b"}
        borg = borg_client.Borg(request)
        borg.run("init", "--encryption", "repokey", f"{top}/r")
        borg.run("create", "--exclude", "r", "--exclude", "b", f"{top}/r::t", ".", directory=str(top))
        # borg took the top, too, which no backup of ours does.
        with self.assertRaisesRegex(errors.Refused, "may be hostile: it holds the path ., "):
            borg.manifests("t")
        paths = [str(path.relative_to(top)) for path in (self.at(self.data.parent), top / "run")]
        borg.run("create", f"{top}/r::t2", *paths, directory=str(top))
        before, after = borg.manifests("t2")
        self.assertEqual((before, after), (self.before, self.after))

    @unittest.skipUnless(shutil.which("borg"), "borg isn't on this computer")
    def test_a_damaged_cache_of_borgs_keeps_nobody_from_restoring(self):
        top = Path(self.copy.bases[""])
        borg = borg_client.Borg({"repository": f"{top}/r", "passphrase": "x", "baseDirectory": f"{top}/b"})
        borg.run("init", "--encryption", "repokey", f"{top}/r")
        borg.run("create", f"{top}/r::t", str(self.at(self.env)))
        next(top.glob("b/.cache/borg/*/config")).write_text("")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(borg.names(), ["t"])
        self.assertIn("does not look like a Borg cache", said.getvalue())

    def test_a_manifest_that_is_not_in_order_is_one_line_that_names_the_place(self):
        env, data = str(self.env), str(self.data)
        for change, named in (
            (
                lambda before, after: before.update(format="cht-backup manifest 9"),
                "use the version that made",
            ),
            (lambda before, after: before.pop("files"), "before.files is missing"),
            (lambda before, after: before["counts"]["databases"].update(medic=3), "databases.medic is"),
            (lambda before, after: after.pop("counts"), "after.counts is missing"),
            (lambda before, after: after.update(unsteady={"medic": 1}), "after.unsteady is"),
            (lambda before, after: before.update(problems="x"), "before.problems is"),
            (lambda before, after: after.update(problems="x"), "after.problems is"),
            (lambda before, after: before["problems"].append(3), "before.problems[0] is"),
            (lambda before, after: before["files"][env].pop("size"), f"{env}.size is missing"),
            (lambda before, after: before["files"][env].update(kind="odd"), f'{env} is a "odd"'),
            (lambda before, after: before.update(time="soon"), "its time is soon"),
            (lambda before, after: before["places"].update(couchdb=[f"{data}/../x"]), "no path that can"),
            (lambda before, after: before["places"].update(environment=".env"), ".env is no path that can"),
            (lambda before, after: before["places"].update(key=3), "3 is no path that can"),
        ):
            self.assertIn(named, self.unreadable(change) or "")
        self.assertIn("no manifest", manifest_shape.unreadable([], None, {}))

    def test_a_place_that_is_a_link_in_the_archive_is_refused(self):
        for link, wrong in ((self.data, True), (self.home / "compose", True), (self.env, False)):
            found = self.unreadable(lambda before, after: None, {str(link): "l"})
            self.assertEqual("leads elsewhere" in (found or ""), wrong, link)

    def test_a_missing_shard(self):
        self.at(self.data / SHARD).unlink()
        self.assertIn(f"{SHARD}: missing; CouchDB would silently recreate it empty", self.problems())

    def test_a_shard_that_is_cut_off_at_its_end(self):
        shard = self.at(self.data / SHARD)
        whole = couch_files.database_counts(str(shard))["updateSequence"]
        content = shard.read_bytes()
        for end in range(len(content), 0, -couch_files.BLOCK):
            shard.write_bytes(content[:end])
            with contextlib.suppress(couch_files.Unreadable):
                if couch_files.database_counts(str(shard))["updateSequence"] < whole:
                    break
        self.assertRegex(self.problems(), rf"{SHARD}: (cut off or damaged|none of its)")

    def test_a_shard_whose_end_is_overwritten_is_one_line(self):
        shard = self.at(self.data / SHARD)
        shard.write_bytes(b"\0" * shard.stat().st_size)
        self.assertIn("none of its", self.problems())
        self.assertNotIn("missing", self.problems())
        self.assertEqual(len(self.problems().splitlines()), 1, self.problems())

    def test_views_that_cant_be_read_are_a_line_for_each_database(self):
        for view in self.at(self.data).glob(".shards/*/medic.*/mrview/*.view"):
            view.write_bytes(b"\0" * view.stat().st_size)
        verdict = self.verify()
        lines = [line for line in verdict.notes if "builds this view anew" in line]
        self.assertEqual((verdict.problems, len(lines)), ([], 1), lines)
        self.assertRegex(lines[0], r"more of medic\)$")

    def test_all_shards_of_a_database_missing_is_a_line(self):
        for shard in self.at(self.data).glob("shards/*/medic.*.couch"):
            shard.unlink()
        lines = [line for line in self.problems().splitlines() if "silently" in line]
        self.assertEqual(len(lines), 1, lines)

    def test_an_empty_shard_as_couchdb_would_recreate_it(self):
        empty = self.at(next(path for path in self.data.glob("shards/*/_replicator.*.couch")))
        shutil.copy(empty, self.at(self.data / SHARD))
        self.assertIn("cut off or damaged", self.problems())

    def test_a_view_ahead_of_its_shard_is_dropped_and_without_that_an_error(self):
        view = next(path for path in couch_scan.scan(str(self.data))["views"] if f"/{RANGE}/" in path)
        empty = self.at(next(path for path in self.data.glob(f"shards/{RANGE}/_replicator.*.couch")))
        shutil.copy(empty, self.at(self.data / SHARD))
        self.assertIn(f"{view}: ahead of its shard", self.problems())
        dropped = verify.drop_views(self.copy, self.before["places"])
        self.assertEqual(dropped[f"{self.data}/{view}"], "was ahead of its shard")
        self.assertFalse(self.at(self.data / view).exists())
        self.assertFalse([line for line in self.verify(dropped).problems if ".view" in line])

    def test_what_is_missing_of_a_databases_views_is_a_line(self):
        views = [path for path in self.before["files"] if path.endswith(".view")]
        for path in views:
            os.remove(self.at(path))
        verdict = self.verify()
        self.assertEqual(verdict.problems, [])
        self.assertEqual(
            [text.partition("; ")[2] for text in verdict.notes if text.startswith(views[0])],
            [f"CouchDB builds this view anew (and so are {len(views) - 1} more of medic)"],
        )

    def test_a_missing_view_is_no_error(self):
        view = next(iter(couch_scan.scan(str(self.data))["views"]))
        self.at(self.data / view).unlink()
        verdict = self.verify()
        self.assertEqual(verdict.problems, [])
        self.assertIn("builds this view anew", verdict.notes[0])

    def test_the_list_of_databases_is_missing(self):
        self.at(self.data / "_dbs.couch").unlink()
        self.assertIn("_dbs.couch: missing", self.problems())

    def test_a_file_of_another_archive(self):
        other = self.data / "shards" / RANGE / "stranger.1.couch"
        shutil.copy(self.at(self.data / SHARD), self.at(other))
        self.assertIn(f"{other}: is not in the manifest, so it comes from elsewhere", self.problems())
        self.assertIn("stranger: was not backed up", self.problems())

    def test_the_manifests_of_two_archives(self):
        self.after["archive"] = "t-2020-01-01T00:00:00Z"
        self.assertIn("are of two archives", self.problems())

    def test_a_wrong_env(self):
        self.at(self.env).write_text("COUCHDB_PASSWORD=wrong\n")
        self.assertRegex(self.problems(), r"\.env: its content is not what was backed up \(.*can't log in")

    def test_a_missing_certificate(self):
        self.at(self.collected / "cert.pem").unlink()
        self.assertRegex(self.problems(), r"cert\.pem: missing \(browsers and phones")

    def test_an_archive_that_never_held_a_certificate(self):
        self.before["places"]["certificate"] = None
        self.assertIn("the archive holds no TLS certificate", self.problems())

    def test_a_key_that_belongs_to_another_certificate(self):
        shutil.copy(f"{self.certificates.name}/other-key.pem", self.at(self.collected / "key.pem"))
        self.assertIn("certificate and key don't belong together", self.problems())

    def test_a_view_that_cannot_be_read_is_left_out_and_does_not_keep_an_archive_from_being_put_in_place(
        self,
    ):
        views = list(couch_scan.scan(str(self.data))["views"])
        for view, content in zip(views, (b"", b"\1" * 20000, b"\0" * 20000)):
            self.at(self.data / view).write_bytes(content)
        with self.subTest("as the drill looks at it"):
            verdict = self.verify()
            self.assertEqual(verdict.problems, [])
            lines = [line for line in verdict.notes if "builds this view anew" in line]
            self.assertEqual(len(lines), len({couch_scan.database_of(view) for view in views[1:3]}))
        dropped = verify.drop_views(self.copy, self.before["places"])
        self.assertEqual(dropped, {f"{self.data}/{view}": "can't be read" for view in views[1:3]})
        self.assertFalse(self.at(self.data / views[1]).exists())
        self.assertTrue(self.at(self.data / views[0]).exists(), "not built yet")
        self.assertEqual(self.verify(dropped).problems, [])

    def test_another_mode_and_another_owner(self):
        self.at(self.env).chmod(0o666)
        self.before["files"][str(self.volume)]["uid"] += 1
        self.assertIn("has mode 0666, but had", self.problems())
        self.assertIn(f"{self.volume}: belongs to", self.problems())

    def test_what_couchdb_swaps_or_sets_right_during_the_backup_is_noted_and_not_refused(self):
        """A compaction makes a file anew; a container that starts sets owners and modes of all of them."""
        shard = self.data / SHARD
        self.at(shard).chmod(0o606)
        self.at(shard.parent).chmod(0o711)
        self.before["files"][str(self.data)]["uid"] += 1
        verdict = self.verify()
        self.assertEqual(verdict.problems, [])
        self.assertRegex("\n".join(verdict.notes), r"and 2 more\): CouchDB changed that while it was backed up")

    def test_what_searches_keep_beside_the_data_may_have_gone_away(self):
        index = str(self.data / "search_indexes" / "shards" / RANGE / "_1.si")
        self.before["files"][index] = {"kind": "file", "mode": "0644", "uid": 0, "gid": 0, "size": 1}
        verdict = self.verify()
        self.assertEqual(verdict.problems, [])
        self.assertIn("went away during the backup", "\n".join(verdict.notes))

    def test_an_empty_shard_is_wrong_where_something_was_in_it(self):
        self.at(self.data / SHARD).write_bytes(b"")
        self.assertIn(f"{SHARD}: cut off or damaged", self.problems())

    def test_a_file_that_went_away_during_the_backup_is_not_missed(self):
        self.before["files"][str(self.data / "x.couch.compact")] = {"kind": "vanished"}
        self.assertEqual(self.problems(), "")


class Choosing(unittest.TestCase):
    names = ["t-2026-11-20T02:00:00Z", "t-2026-11-22T02:00:00Z", "t-2026-11-21T02:00:00Z", "by hand"]

    def candidates(self, archive=None, as_of=None, now="2026-11-22T12:00:00+00:00"):
        seconds = datetime.datetime.fromisoformat(now).timestamp()
        return archives.candidates(self.names, archive, as_of, seconds)

    def test_one_dated_in_the_future_is_not_the_newest_for_ever(self):
        self.assertEqual(
            self.candidates(now="2026-11-21T03:00:00+00:00")[0],
            "t-2026-11-22T02:00:00Z",
            "a clock may be a bit wrong",
        )
        early = "2026-11-21T01:00:00+00:00"
        self.assertEqual(self.candidates(now=early)[0], "t-2026-11-21T02:00:00Z")
        self.assertEqual(self.candidates(as_of="2099-01-01T00:00:00Z", now=early)[0], "t-2026-11-21T02:00:00Z")
        self.assertEqual(self.candidates("t-2026-11-22T02:00:00Z", now=early), ["t-2026-11-22T02:00:00Z"])
        with self.assertRaisesRegex(errors.Refused, "in the future.*clock right"):
            self.candidates(now="2020-01-01T00:00:00+00:00")

    def test_the_newest_comes_first(self):
        self.assertEqual(self.candidates()[0], "t-2026-11-22T02:00:00Z")

    def test_as_of_a_time_the_newest_begun_by_then(self):
        for time, day in (
            ("2026-11-21T02:00:00Z", 21),
            ("2026-11-21T01:59:59Z", 20),
            ("2027-01-01T00:00:00Z", 22),
        ):
            self.assertEqual(self.candidates(as_of=time)[0], f"t-2026-11-{day}T02:00:00Z")
        with self.assertRaisesRegex(errors.Refused, "the oldest is t-2026-11-20"):
            self.candidates(as_of="2026-11-20T01:00:00Z")

    def test_by_name_any(self):
        self.assertEqual(self.candidates("by hand"), ["by hand"])
        with self.assertRaisesRegex(errors.Refused, "no archive t-x"):
            self.candidates("t-x")
        with self.assertRaisesRegex(errors.Refused, "holds no archive"):
            archives.candidates([], None, None, 0)

    def test_a_manifest_of_a_later_program_is_refused_with_what_to_use(self):
        self.assertIsNone(manifest_shape.of_another_kind({"format": "cht-backup manifest 1"}))
        self.assertIn("use the version that made", manifest_shape.of_another_kind({"format": "cht-backup manifest 2"}))

    def test_directories_that_are_put_in_place_as_a_whole(self):
        places = {
            "composeFiles": ["/srv/cht/compose/a.yml"],
            "environment": "/srv/cht/upgrade-service/.env",
            "couchdb": ["/srv/cht/couchdb", "/disk2/couchdb"],
            "volumes": {"my_cht_cht-ssl": "/v"},
        }
        self.assertEqual(manifest_places.targets_of(places), ["/srv/cht", "/disk2/couchdb"])
        self.assertEqual(manifest_places.project_of(places), "my_cht")
        copy = manifest_copy.Copy({"": "/rest", "/srv/cht": "/srv/.cht.restoring"})
        self.assertEqual(copy.at("/srv/cht/couchdb/x"), "/srv/.cht.restoring/srv/cht/couchdb/x")
        self.assertEqual(copy.at("/srv/chtother"), "/rest/srv/chtother")


def item(path, kind="-", linktarget=""):
    return {"path": path, "type": kind, "linktarget": linktarget}


class HostileArchives(unittest.TestCase):
    """borg writes through links that it has extracted, so an archive is looked at before."""

    def test_what_a_backup_makes_is_extracted(self):
        items = [item("srv", "d"), item("srv/a"), item("srv/b", "-", "srv/a"), item("srv/..c", "l", "/etc")]
        self.assertIsNone(listing.hostile([*items, item("run/x"), item("srvx")]))

    def test_a_backup_of_a_data_directory_behind_a_link_holds_nothing_below_the_link(self):
        with tempfile.TemporaryDirectory() as folder:
            top = os.path.realpath(folder)
            os.makedirs(f"{top}/disk/couchdb")
            os.makedirs(f"{top}/other")
            os.symlink("disk/couchdb", f"{top}/link")
            self.assertEqual(
                data.without_links([f"{top}/link", f"{top}/other"]),
                ([f"{top}/disk/couchdb", f"{top}/other"], [f"{top}/link"]),
            )

    def test_what_leads_elsewhere_is_named(self):
        for items, named in (
            ([item("srv/x", "l", "/root"), item("srv/x/.ssh/keys")], "srv/x/.ssh/keys below srv/x"),
            ([item("srv/x/y"), item("srv/x", "l", "/root")], "srv/x/y below srv/x, which is no directory"),
            ([item("srv/x"), item("srv/x/y")], "srv/x/y below srv/x, which is no directory"),
            ([item("srv/../../etc/passwd")], "the path srv/../../etc/passwd"),
            ([item("/etc/passwd")], "the path /etc/passwd"),
            ([item("srv//x")], "the path srv//x"),
            ([item("srv/./x")], "the path srv/./x"),
            ([item("srv/")], "the path srv/"),
            ([item("")], "the path "),
            ([item("x", "l", "/root"), item("x", "d")], "x twice"),
            ([item("x", "p")], "x, which is neither"),
            ([item("x", "b")], "x, which is neither"),
            ([item("x", "-", "etc/shadow")], "x as another name of etc/shadow"),
            ([item("x", "-", "y"), item("y")], "x as another name of y"),
            ([item("y", "l", "/root"), item("x", "-", "y")], "x as another name of y"),
        ):
            self.assertIn(named, listing.hostile(items) or "")

    @unittest.skipUnless(shutil.which("borg"), "borg isn't on this computer")
    def test_one_that_was_really_made_writes_nothing_when_it_is_looked_into(self):
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder)
            (top / "elsewhere").mkdir()
            inner = top / "from" / "run" / "cht-backup" / "t" / "collect"
            (inner.parent).mkdir(parents=True)
            borg = borg_client.Borg({"repository": f"{top}/r", "passphrase": "x", "baseDirectory": f"{top}/b"})
            borg.run("init", "--encryption", "repokey", f"{top}/r")

            def create(name):
                borg.run("create", f"{top}/r::{name}", "run", directory=f"{top}/from")

            inner.mkdir()
            for name in ("before", "after"):
                (inner / f"manifest-{name}.json").write_text(json.dumps({"part": name}))
            create("other")
            with self.assertRaisesRegex(errors.Refused, '^other: its manifest is "None"'):
                borg.manifests("other")
            (inner / "manifest-before.json").write_text("{")
            create("broken")
            with self.assertRaisesRegex(errors.Refused, "broken: its manifest is not in order"):
                borg.manifests("broken")
            # As borg takes whatever paths it is given, what is below a link as well.
            shutil.rmtree(inner)
            (top / "elsewhere" / "manifest-before.json").write_text("hostile")
            inner.symlink_to(top / "elsewhere")
            paths = ["run/cht-backup/t/collect", "run/cht-backup/t/collect/manifest-before.json"]
            borg.run("create", f"{top}/r::bad", *paths, directory=f"{top}/from")
            (top / "elsewhere" / "manifest-before.json").unlink()
            for look in (borg.items, borg.manifests):
                with self.assertRaisesRegex(errors.Refused, "bad was not made by .* below run/cht"):
                    look("bad")
            listed = io.StringIO()
            request = {"repository": f"{top}/r", "passphrase": "x", "baseDirectory": f"{top}/b"}
            with contextlib.redirect_stdout(listed), mock.patch.object(borg_client.Borg, "check_version"):
                archives.list_archives(request, "")
            found = json.loads(listed.getvalue().splitlines()[-1])["archives"]
            # They are of one second or two.
            self.assertCountEqual([of["name"] for of in found], ["bad", "broken", "other"])
            self.assertTrue(all("unreadable" in of and not of["finished"] for of in found))
            self.assertEqual(os.listdir(top / "elsewhere"), [])

    def test_a_pipe_in_a_copy_is_not_waited_for(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkfifo(f"{folder}/pipe")
            self.assertEqual(verify.describe(f"{folder}/pipe", True)["kind"], "special file")


class ArchivesMadeByHand(unittest.TestCase):
    """As CHT's backup guide makes them: `borg create` with CouchDB's directory and .env, from cron."""

    def test_are_told_from_those_of_an_interrupted_backup(self):
        self.assertTrue(archives.made_by_hand([item("/home/ubuntu/cht/couchdb/_dbs.couch")]))
        self.assertFalse(archives.made_by_hand([item("/run/cht-backup/t/collect", "d")]))

    def test_show_where_the_parts_of_the_cht_are(self):
        paths = [
            "couchdb/_dbs.couch",
            f"couchdb/{SHARD}",
            "upgrade-service/.env",
            "compose/cht-core.yml",
            "backup/.env",
        ]
        home = "/home/ubuntu/cht"
        copies = [f"{home}/old/upgrade-service/.env"]
        places = by_hand.places_of([item(path) for path in [*(f"{home}/{path}" for path in paths), *copies]])
        self.assertEqual(places["couchdb"], [f"{home}/couchdb"])
        self.assertEqual(places["environment"], f"{home}/upgrade-service/.env")
        self.assertEqual(places["composeFiles"], [f"{home}/compose/cht-core.yml"])
        self.assertIn("TLS certificate", by_hand.lacks(places)[0])

    def test_are_never_taken_unless_they_are_asked_for_by_name(self):
        with self.assertRaisesRegex(
            borg_errors.Empty, "no archive of a backup of this program; 1 were made by hand.*--archive"
        ):
            archives.candidates(["cht-2026-11-21"], None, None, 0)
        self.assertEqual(archives.candidates(["cht-2026-11-21"], "cht-2026-11-21", None, 0), ["cht-2026-11-21"])

    @unittest.skipUnless(shutil.which("borg"), "borg isn't on this computer")
    def test_are_listed_restored_and_got_out_in_part(self):
        scratch, data = couchdb()
        self.addCleanup(scratch.cleanup)
        top = Path(os.path.realpath(scratch.name))
        home = top / "srv" / "cht"
        (home / "upgrade-service").mkdir(parents=True)
        shutil.move(data, home / "couchdb")
        (home / "upgrade-service" / ".env").write_text("COUCHDB_PASSWORD=right\n")
        request = {"repository": f"{top}/r", "passphrase": "PASSWORD", "baseDirectory": f"{top}/b"}
        borg = borg_client.Borg(request)
        borg.run("init", "--encryption", "repokey-blake2", "--append-only", f"{top}/r")
        borg.run("create", f"{top}/r::cht-2026-11-21", f"{home}/couchdb", f"{home}/upgrade-service/.env")
        shutil.rmtree(home)

        def call(action, **more):
            said = io.StringIO()
            with (
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
                contextlib.ExitStack() as stack,
            ):
                stack.enter_context(mock.patch.object(borg_client.Borg, "check_version"))
                stack.enter_context(mock.patch.object(restore, "mount_points", return_value=["/"]))
                docker = stack.enter_context(mock.patch.object(occupied, "Docker"))
                docker.return_value.containers.return_value = []
                code = action({**request, **more}, f"{top}/work")
            return code, said.getvalue()

        os.mkdir(f"{top}/work")
        _, listed = call(archives.list_archives)
        (found,) = json.loads(next(line for line in listed.splitlines() if line.startswith("{")))["archives"]
        self.assertTrue(found["byHand"] and found["size"] > 1_000_000, found)

        def whole(request, work):
            return restore.Restore(request, work).run()

        with self.assertRaisesRegex(borg_errors.Empty, "made by hand"):
            call(whole)
        with self.assertRaisesRegex(errors.Refused, "can't go with --start"):
            call(whole, archive="cht-2026-11-21", start=True)
        self.assertFalse(home.exists())
        code, said = call(whole, archive="cht-2026-11-21")
        self.assertEqual(code, errors.RIGHT, said)
        for words in (
            "made by hand, without a manifest",
            "7 databases with 863 documents",
            "not in the archive: TLS",
        ):
            self.assertIn(words, said)
        self.assertEqual((home / "upgrade-service" / ".env").read_text(), "COUCHDB_PASSWORD=right\n")
        self.assertTrue((home / "couchdb" / SHARD).exists())

        into = f"{top}/out"
        code, said = call(
            lambda request, work: part.Part(request, work).run(),
            archive="cht-2026-11-21", databases=["medic"], into=into,
        )  # fmt: skip
        self.assertEqual(code, errors.RIGHT, said)
        self.assertTrue(os.path.exists(f"{into}{home}/couchdb/{SHARD}"))

    def test_that_lost_a_part_are_not_right(self):
        scratch, data = couchdb()
        self.addCleanup(scratch.cleanup)
        items = [{**item(str(data / SHARD)), "size": (data / SHARD).stat().st_size}]
        (data / SHARD).write_bytes(b"")
        verdict = by_hand.check(manifest_copy.Copy({"": ""}), items, [str(data)], [])
        self.assertRegex("\n".join(verdict.problems), rf"{SHARD}: 0 bytes, but the archive lists")


class DryRun(unittest.TestCase):
    def test_leaves_no_notes_on_the_machine(self):
        with tempfile.TemporaryDirectory() as folder:
            work = f"{folder}/notes"
            request = {
                "repository": "",
                "passphrase": "",
                "baseDirectory": f"{folder}/run/borg",
                "dryRun": True,
            }
            seen = []

            def look(request, work):
                seen.append(os.path.exists(work))
                return 0

            with (
                mock.patch.object(perform, "read_line", return_value=json.dumps(request)),
                mock.patch.object(perform, "end_with_input"),
                mock.patch("signal.signal"),
                mock.patch.object(perform.os, "getuid", return_value=0),
            ):
                self.assertEqual(perform.perform(look, work), 0)
            self.assertEqual((seen, os.path.exists(work)), ([False], False))

    def test_says_that_docker_would_be_installed_where_that_is_asked_for(self):
        with mock.patch.object(needs.shutil, "which", return_value=None):
            with mock.patch.object(needs, "Docker", return_value=mock.Mock(stopped="it isn't installed")):
                needs.require_docker({"dryRun": True, "installDocker": True})
                for request in ({"dryRun": True}, {"installDocker": True}, {}):
                    with self.assertRaisesRegex(errors.Refused, "Docker is needed"):
                        needs.require_docker(request)

    def test_goes_on_where_docker_would_be_installed(self):
        request = {"repository": "", "passphrase": "", "baseDirectory": ""}
        request = {**request, "dryRun": True, "installDocker": True}
        archive = choose.Archive("t-1", "1", {"places": {"volumes": {"cht_cht-ssl": "/nowhere"}}}, {})
        printed = io.StringIO()
        with mock.patch.dict(os.environ, PATH="/nowhere"), contextlib.redirect_stdout(printed):
            occupied.refuse_data(archive, [], request)
        self.assertEqual(printed.getvalue(), "would install Docker\n")

    def test_what_is_in_place_already_is_not_started_by_it(self):
        for dry_run in (True, False):
            request = {
                "repository": "",
                "passphrase": "",
                "baseDirectory": "",
                "start": True,
                "dryRun": dry_run,
            }
            made = restore.Restore(request, "/w")
            places = {"composeFiles": [], "environment": None}
            made.archive, made.places = choose.Archive("t-1", "1", {"places": places}, {}), []
            with (
                mock.patch.object(restore, "start", return_value=[]) as start,
                contextlib.redirect_stdout(io.StringIO()),
            ):
                self.assertEqual(made.conclude([], {}), errors.RIGHT)
            self.assertEqual(start.called, not dry_run)


class PuttingInPlace(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)

    def test_a_place_that_holds_something_is_seen(self):
        for name, make in (
            ("absent", lambda path: None),
            ("empty", lambda path: path.mkdir()),
            ("disk", lambda path: (path / "lost+found").mkdir(parents=True)),
        ):
            make(self.top / name)
            self.assertFalse(targets.Place(str(self.top / name)).occupied(), name)
        (self.top / "used").mkdir()
        (self.top / "used" / "x").touch()
        (self.top / "file").touch()
        self.assertTrue(targets.Place(str(self.top / "used")).occupied())
        self.assertTrue(targets.Place(str(self.top / "file")).occupied())

    def test_a_file_system_below_a_place_is_a_place_of_its_own_if_something_goes_there(self):
        asked, paths = (
            ["/srv/cht", "/db2"],
            ["/srv/cht/couchdb/_dbs.couch", "/srv/cht/compose/a.yml", "/db2"],
        )
        mounts = ["/", "/srv", "/srv/cht/couchdb", "/srv/cht/other", "/srv/chtx"]
        found = targets.places_of(asked, paths, mounts)
        self.assertEqual([of.target for of in found], [*asked, "/srv/cht/couchdb"])
        self.assertEqual(found[0].mounts, ["/srv/cht/couchdb", "/srv/cht/other"])
        self.assertEqual([of.fixed for of in found[:2]], [True, False])
        self.assertIn("/proc", targets.mount_points())

    def test_a_place_that_holds_only_other_file_systems_is_empty(self):
        home = self.top / "cht"
        (home / "data" / "couchdb").mkdir(parents=True)
        (home / "data" / "couchdb" / "file").touch()
        place = targets.Place(str(home), [str(home / "data" / "couchdb")])
        self.assertFalse(place.occupied())
        (home / "data" / "more").touch()
        self.assertTrue(place.occupied())

    def test_a_switch_that_was_interrupted_anywhere_is_finished_by_the_next(self):
        for interrupted_after in range(4):
            work = self.top / str(interrupted_after)
            steps = []
            for name in ("one", "two"):
                for folder, text in ((f".{name}", "new"), (name, "old")):
                    (work / folder).mkdir(parents=True)
                    (work / folder / "file").write_text(text)
                steps.append({"from": f"{work}/.{name}", "to": f"{work}/{name}", "aside": f"{work}/{name}.old"})
            renames = [
                (step[source], step[target]) for step in steps for source, target in (("to", "aside"), ("from", "to"))
            ]
            for source, target in renames[:interrupted_after]:
                os.rename(source, target)
            journal = work / "switch.json"
            journal.write_text(json.dumps({"archive": "a", "steps": steps, "bases": []}))
            with contextlib.redirect_stdout(io.StringIO()):
                switch.finish_switch(str(journal))
            for name in ("one", "two"):
                self.assertEqual((work / name / "file").read_text(), "new")
                self.assertEqual((work / f"{name}.old" / "file").read_text(), "old")
            self.assertFalse(journal.exists())

    def test_only_a_file_with_its_time_set_was_extracted_in_full(self):
        path = self.top / "x.couch"
        path.write_text("abc")
        os.utime(path, ns=(0, 1_700_000_000_123_456_789))
        item = {"size": 3, "isomtime": "2023-11-14T22:13:20.123457+00:00"}
        self.assertTrue(targets.complete(str(path), item))
        self.assertTrue(targets.complete(str(path), {**item, "isomtime": "2023-11-14T22:13:20.123457"}))
        self.assertFalse(targets.complete(str(path), {**item, "size": 4}))
        os.utime(path)
        self.assertFalse(targets.complete(str(path), item))
        self.assertFalse(targets.complete(str(self.top / "absent"), item))


class AfterARestoreFromTheBucket(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="cht-backup-test-")
        self.addCleanup(scratch.cleanup)
        self.fetched = Path(scratch.name, "mount")
        (self.fetched / "data" / "0").mkdir(parents=True)
        (self.fetched / "data" / "0" / "1").write_text("segment")
        (self.fetched / "config").write_text("config")
        (self.fetched / "data" / "link").symlink_to(scratch.name)
        self.notes = Path(f"{self.fetched}.fetched.json")
        self.notes.write_text("{}")

    def run_action(self, action, tell=None):
        said = []
        with (
            mock.patch.object(borg_client.Borg, "check_version"),
            mock.patch("chtbackup.bucket.fetch.fetch", return_value=True),
        ):
            request = {"bucket": {}, "repository": str(self.fetched), "passphrase": "", "baseDirectory": ""}
            code = from_bucket.from_bucket(action, request, "", tell or said.append)
        return code, said

    def test_what_was_fetched_is_removed(self):
        code, said = self.run_action(lambda request, work: errors.RIGHT)
        self.assertEqual(code, errors.RIGHT)
        self.assertEqual(said, [f"removed: {self.fetched}, the repository that was fetched"])
        self.assertFalse(self.fetched.exists() or self.notes.exists())

    def test_a_mount_point_is_left_empty_and_the_restore_counts_as_done(self):
        really = os.rmdir

        def rmdir(path, **options):
            if path == str(self.fetched):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
            really(path, **options)

        with mock.patch("os.rmdir", rmdir):
            code, said = self.run_action(lambda request, work: errors.RIGHT)
        self.assertEqual(code, errors.RIGHT)
        self.assertEqual(len(said), 1)
        self.assertRegex(said[0], "^note: .*/mount, .*: it is empty and stays .Device or resource busy.$")
        self.assertEqual(os.listdir(self.fetched), [])
        self.assertFalse(self.notes.exists())

    def test_what_can_not_be_removed_is_named_and_the_restore_counts_as_done(self):
        with mock.patch("shutil.rmtree", side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS))):
            code, said = self.run_action(lambda request, work: errors.RIGHT)
        self.assertEqual(code, errors.RIGHT)
        self.assertRegex(said[0], "not all of it could be removed .Read-only file system.$")
        self.assertTrue(self.notes.exists(), "a next run may still use what is there")

    def test_a_restore_that_failed_says_why_and_keeps_it_even_when_nobody_listens(self):
        def action(request, work):
            raise errors.Refused("why")

        with self.assertRaisesRegex(errors.Refused, "^why$"):
            self.run_action(action, mock.Mock(side_effect=BrokenPipeError))
        code, said = self.run_action(lambda request, work: errors.WRONG)
        self.assertEqual(code, errors.WRONG)
        self.assertRegex(said[0], "^the fetched repository stays in ")
        self.assertTrue(self.notes.exists() and (self.fetched / "data" / "0" / "1").exists())


class WithoutABucket(unittest.TestCase):
    def test_a_restore_needs_no_boto3(self):
        script = (
            "import sys, fixture\nsys.modules['boto3'] = sys.modules['botocore'] = None\n"
            "import chtbackup.restore.program, chtbackup.restore.part, chtbackup.drill.program"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Starting(unittest.TestCase):
    def test_containers_that_do_not_start_are_told_of_without_passwords(self):
        with tempfile.TemporaryDirectory() as home:
            os.mkdir(f"{home}/upgrade-service")
            Path(f"{home}/upgrade-service/.env").write_text("COUCHDB_PASSWORD=the-password\n")
            places = {
                "composeFiles": [f"{home}/compose/a.yml"],
                "environment": f"{home}/upgrade-service/.env",
                "volumes": {"cht_cht-ssl": "/v"},
            }
            archive = choose.Archive("t-1", "1", {"places": places}, {})
            failed = mock.Mock(returncode=1, stderr="first\nno service with the-password\n")
            with (
                mock.patch.object(start, "works", return_value=True),
                mock.patch.object(start.subprocess, "run", return_value=failed),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                found = start.start(archive, {}, "/outside", output.Output())
            self.assertEqual(found, ["the containers don't start: no service with ***"])


class BeforeTheRepositoryIsFetched(unittest.TestCase):
    """On a machine without Docker."""

    def run_main(self, program, *arguments, **request):
        """The exit code, what was said of errors, and whether the bucket was asked."""
        line = {"bucket": {}, "repository": "/r", "passphrase": "", "baseDirectory": "/b/borg", **request}
        complained, asked = io.StringIO(), bucket_fetch.Refused("the bucket was asked")
        with (
            tempfile.TemporaryDirectory() as work,
            mock.patch.dict(os.environ, {"PATH": work}),
            mock.patch.object(borg_client.Borg, "check_version"),
            mock.patch.object(perform, "read_line", return_value=json.dumps(line)),
            mock.patch.object(perform, "end_with_input"),
            mock.patch("signal.signal"),
            mock.patch("os.getuid", return_value=0),
            mock.patch("os.umask"),
            mock.patch("chtbackup.bucket.fetch.fetch", side_effect=asked) as fetch,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(complained),
        ):
            code = program.main([*arguments, work])
        return code, complained.getvalue(), fetch.called

    def test_a_restore_is_refused_at_once_and_so_is_its_dry_run(self):
        for options in ({}, {"dryRun": True}, {"start": True}):
            code, complained, fetched = self.run_main(restore, "restore", **options)
            self.assertEqual((code, fetched), (errors.REFUSED, False))
            self.assertRegex(
                complained,
                "^Docker is needed for a CHT's volumes, and doesn't answer: docker is not installed."
                " Nothing was fetched. Add --install-docker, or install and start it yourself\n$",
            )

    def test_what_needs_no_docker_goes_on(self):
        for program, arguments, request in [
            (restore, ["restore"], {"repositoryOnly": True}),
            (restore, ["list"], {"last": 0}),
            (part, [], {"databases": ["medic"]}),
            (part, [], {"databases": [], "paths": ["/home"]}),
        ]:
            code, complained, fetched = self.run_main(program, *arguments, **request)
            self.assertEqual((code, complained, fetched), (errors.REFUSED, "the bucket was asked\n", True))

    def test_a_restore_goes_on_where_docker_answers(self):
        with mock.patch.object(docker_client.Docker, "run", return_value="26.1.5\n"):
            self.assertEqual(self.run_main(restore, "restore")[1:], ("the bucket was asked\n", True))


class Words(unittest.TestCase):
    def test_what_compose_says_of_env_is_shown_without_its_passwords(self):
        env = "COUCHDB_PASSWORD='pass word'\nCOUCHDB_SECRET=0123456789\nCOUCHDB_IMAGE=cht/couchdb:4\nKEY=abc\n"
        said = 'pull of cht/couchdb:4: "pass word" and 0123456789 abc'
        self.assertEqual(secrets.scrub(said, secrets.secrets_in(env)), 'pull of cht/couchdb:4: "***" and *** abc')

    def test_an_archive_can_not_steer_the_terminal(self):
        evil, shown = (
            "/a\x1b[2J\r\nright: é\x9b\x7f\u202e\udcff",
            r"/a\x1b[2J\r\nright: é\x9b\x7f\u202e\udcff",
        )
        made = output.Output()
        for tell, before in ((made.remark, "note"), (made.right, "right"), (made.wrong, "WRONG")):
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                tell(evil)
            self.assertEqual(said.getvalue(), f"{before}: {shown}\n")

    def test_a_damaged_repository_is_named_in_plain_words(self):
        line = "Data integrity error: Segment entry checksum mismatch [segment 3, offset 8]"
        explained = str(
            borg_client.explain(2, [Message(line, "IntegrityError"), Message("borg.IntegrityError: the same")], "lab-1")
        )
        self.assertIn("the repository is damaged: a part of the archive lab-1 can't be read", explained)
        self.assertIn(f"({line})", explained)
        refused = borg_client.explain(2, [Message("ssh: connect to host x: Connection refused")])
        self.assertIn("can't be reached", str(refused))

    def test_a_server_that_is_out_of_reach_is_named_with_its_setting(self):
        said = "Remote: ssh: connect to host b port 22: Connection refused"
        text = str(borg_client.explain(2, [Message(said)], "", "b, port 22"))
        self.assertIn("must reach the server's SSH at b, port 22: see the setting cht-backup:server.address", text)
        denied = str(borg_client.explain(2, [Message("Remote: b: Permission denied (publickey)")], "", "b, port 22"))
        self.assertNotIn("must reach", denied)

    def test_too_little_space_is_said_with_what_is_needed(self):
        with contextlib.redirect_stdout(io.StringIO()), self.assertRaises(errors.Refused) as refused:
            targets.require_space([(targets.Place("/proc"), 5_000_000_000), (targets.Place("/proc/x"), 10**9)])
        self.assertRegex(str(refused.exception), "^too little space in .*: 6,200.0 MB needed .*, 0.0 MB free$")

    def test_times_are_for_people(self):
        self.assertEqual(
            [base_text.duration(s) for s in (1.24, 59, 61, 7260)], ["1.2 s", "59 s", "1 min 1 s", "2 h 1 min"]
        )


if __name__ == "__main__":
    unittest.main()
