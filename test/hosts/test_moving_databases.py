import os
import random
import shutil
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture

from chtbackup.backup import collect, data, describe
from chtbackup.backup.run import Run
from chtbackup.couchdb import scan as couch_scan
from chtbackup.manifest import copy as manifest_copy
from chtbackup.manifest import verify
from chtbackup.manifest import write as manifest

SETTINGS = {
    "deployment": "t",
    "chtHome": "/h",
    "composeProject": "cht",
    "repository": "r",
}


class Moving(threading.Thread):
    """Makes and deletes databases, shard by shard, as CouchDB does, from the shards of one that is there."""

    def __init__(self, data, seed):
        super().__init__()
        self.data = data
        self.random = random.Random(seed)
        self.shards = sorted(data.glob("shards/*/medic.*.couch"))
        self.made = {}
        self.epoch = 1_900_000_000
        self.over = threading.Event()

    def paths(self, name):
        return [path.with_name(f"{name}.{self.made[name]}.couch") for path in self.shards]

    def run(self):
        while not self.over.wait(self.random.random() / 20):
            name = f"moving-{self.random.randrange(6)}"
            if name in self.made:
                for path in self.paths(name):
                    path.unlink()
                    self.over.wait(0.0005)
                del self.made[name]
            else:
                self.epoch += 1
                self.made[name] = self.epoch
                for source, path in zip(self.shards, self.paths(name)):
                    path.write_bytes(b"")
                    shutil.copy(source, path)
                    self.over.wait(0.0005)


class ABackup(unittest.TestCase):
    def setUp(self):
        scratch, self.data = fixture.couchdb()
        self.addCleanup(scratch.cleanup)
        patched = mock.patch("time.sleep", lambda seconds, sleep=time.sleep: sleep(seconds / 20))
        patched.start()
        self.addCleanup(patched.stop)

    def begun(self):
        found = collect.Collection(Run({**SETTINGS, "couchdbData": [str(self.data)]}, True))
        found.data.directories = [str(self.data)]
        found.places = {"couchdb": [str(self.data)], "composeFiles": [], "environment": None, "volumes": {}}
        # The server's answer, of a moment of its own.
        found.counter.count = lambda: {
            "source": "server",
            "databases": manifest.counts_of(couch_scan.scan(str(self.data))["databases"]),
        }
        found.data.list_files(found.data.walk())
        return describe.Description(found)

    def stored(self, run, before, folder):
        """What borg does: copy the list in its order, and pass over what is gone."""
        for path in before["files"]:
            target = Path(folder + path)
            if os.path.isdir(path):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy(path, target)
            except FileNotFoundError:
                continue

    def judged(self, run, before, after, folder):
        verdict = verify.Verdict()
        verify.compare_databases(before, after, manifest_copy.Copy({"": folder}), verdict)
        return run.run.problems + verdict.problems

    def test_passes_its_own_checks_while_databases_are_made_deleted_and_made_again(self):
        moving = Moving(self.data, 7)
        moving.start()
        self.addCleanup(moving.join)
        self.addCleanup(moving.over.set)
        unsteady = set()
        for number in range(5):
            run = self.begun()
            before = run.before()
            with tempfile.TemporaryDirectory() as folder:
                self.stored(run, before, folder)
                after = run.after()
                self.assertEqual(self.judged(run, before, after, folder), [], f"backup {number}")
            unsteady.update(after["unsteady"])
            self.assertIn("medic", after["counts"]["databases"])
            self.assertNotIn("medic", after["unsteady"])
        self.assertTrue(unsteady)

    def test_holds_a_database_to_what_was_counted_when_it_stays(self):
        """A shard that is lost on the way is no database that was being deleted."""
        run = self.begun()
        before = run.before()
        with tempfile.TemporaryDirectory() as folder:
            self.stored(run, before, folder)
            lost = next(self.data.glob("shards/*/medic.*.couch"))
            Path(folder + str(lost)).unlink()
            lost.unlink()
            after = run.after()
            problems = self.judged(run, before, after, folder)
        self.assertEqual(after["unsteady"], [])
        self.assertTrue([text for text in run.run.problems if text.startswith("CouchDB's files: medic: no shard for")])
        self.assertTrue([text for text in problems if f"{lost.name}: missing" in text])

    def test_holds_a_database_to_what_was_counted_whatever_its_name(self):
        name = "shards/of-mine"
        for path in sorted(self.data.glob("shards/*/medic.*.couch")):
            (path.parent / "shards").mkdir(exist_ok=True)
            shutil.copy(path, path.parent / f"{name}.1900000000.couch")
        run = self.begun()
        before = run.before()
        self.assertIn(name, before["counts"]["databases"])
        path = f"{self.data}/shards/00000000-7fffffff/{name}.1.couch"
        self.assertEqual(couch_scan.database_of(path), name)
        self.assertNotIn(name, run.after()["unsteady"])

    def test_made_before_the_list_holds_a_database_that_is_made_while_it_is_counted(self):
        run = self.begun()
        source = sorted(self.data.glob("shards/*/medic.*.couch"))
        scan = couch_scan.scan

        def scan_and_make(*directories, **options):
            scanned = scan(*directories, **options)
            for path in source:
                shutil.copy(path, path.with_name("new.1900000000.couch"))
            return scanned

        with mock.patch.object(data, "scan", scan_and_make):
            before = run.before()
        self.assertEqual(len([path for path in before["files"] if "/new.19" in path]), len(source))


if __name__ == "__main__":
    unittest.main()
