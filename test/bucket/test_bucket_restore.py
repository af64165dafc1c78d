"""A restore from the bucket against real parts: borg, and an S3 server with versions, locks and policies. The server's
repository is gone before it begins.

Needs what test_copy.py needs, and root: a restore gives files their owners.
"""

import gzip
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from parts import KEYS, PREFIX, RESTORE, ROOT, Deployment, Proxy, Run, Store, wait_for

sys.path.insert(0, str(ROOT / "test" / "hosts"))

import test_restore as hosts  # noqa: E402

ARCHIVE = "t-2026-11-21T02:00:05Z"
# This computer's borg may be older than what a restore asks for.
PROGRAM = "import sys, restore, {0}; restore.OLDEST_BORG = (1, 2); sys.exit({0}.main())"
store = None


def setUpModule():
    global store
    store = Store()
    unittest.addModuleCleanup(store.stop)


class FromBucket(hosts.CopyOfADeployment):
    """A backup of a CHT, copied to a bucket, whose server is gone."""

    number = 0

    def setUp(self):
        super().setUp()
        FromBucket.number += 1
        self.proxy = Proxy(store.port)
        self.addCleanup(self.proxy.stop)
        store.make_bucket(f"copy-restore-{FromBucket.number}")
        self.made = Deployment(store, f"copy-restore-{FromBucket.number}")
        self.addCleanup(self.made.remove)
        self.tree = Path(self.copy.bases[""])
        collected = self.tree / "run" / "cht-backup" / "t" / "collect"
        collected.mkdir(parents=True)
        for name, of in (("before", self.before), ("after", self.after)):
            (collected / f"manifest-{name}.json").write_text(json.dumps(of))
        # As a backup has it: paths below the root, which isn't in the archive itself.
        self.made.borg("create", f"{self.made.location}::{ARCHIVE}", *sorted(os.listdir(self.tree)), cwd=self.tree)
        self.copy_now()
        self.id = self.made.borg("config", self.made.repository, "id").stdout.strip()
        scratch = tempfile.TemporaryDirectory(prefix="cht-backup-restore-")
        self.addCleanup(scratch.cleanup)
        self.work, self.runs = Path(scratch.name, "work"), itertools.count()
        self.fetched, self.into = self.work / "repository", Path(scratch.name, "out")

    def copy_now(self):
        done = self.made.run()
        self.assertEqual(done.code, 0, done)

    def lose_server(self):
        shutil.rmtree(self.made.home)

    def request(self, place=(), **wanted):
        key, secret = KEYS["reader"]
        return {
            "repository": str(self.fetched),
            "passphrase": "correct horse",
            "baseDirectory": f"{self.work}/run.{next(self.runs)}/borg",  # of this run only, as in real life
            "bucket": {
                "bucket": self.made.bucket,
                "prefix": PREFIX,
                "region": "us-east-1",
                "endpoint": self.proxy.endpoint,
                "pathStyle": True,
                "accessKeyId": key,
                "secretAccessKey": secret,
                "repositories": [self.id],
                **dict(place),
            },
            **wanted,
        }

    def start(self, request, program, *words):
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(program), *words, str(self.work)],
            text=True, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.stdin.write(json.dumps(request) + "\n")
        running.stdin.flush()
        return running

    def end(self, running):
        # Its standard input stays open until it has ended: that it ends is the sign to stop.
        output, errors = running.stdout.read(), running.stderr.read()
        code = running.wait(60)
        running.stdin.close(), running.stdout.close(), running.stderr.close()
        for secret in ("correct horse", KEYS["reader"][1]):
            self.assertNotIn(secret, output + errors)
        return Run(code, output, errors, None)

    def restore(self, place=(), **wanted):
        wanted = {"databases": ["medic"], "into": str(self.into), **wanted}
        return self.end(self.start(self.request(place, **wanted), "part"))

    def test_one_database_comes_back_from_the_bucket_alone(self):
        self.lose_server()
        dry = self.restore(dryRun=True)
        self.assertEqual(dry.code, 0, dry)
        self.assertRegex(dry.output, r"copy 1, .*\n\d+ files, .* MB\nspace for the repository: .* needed")
        self.assertFalse(self.fetched.exists() or self.into.exists(), dry)
        done = self.restore()
        self.assertEqual(done.code, 0, done)
        self.assertIn("right: counts: 1 database with 419 documents", done.output)
        self.assertIn(f"removed: {self.fetched}, the repository that was fetched", done.output)
        self.assertEqual([path for path in self.work.iterdir() if "repository" in path.name], [], done)
        shard = f"{self.data}/{hosts.SHARD}"
        self.assertEqual(Path(f"{self.into}{shard}").read_bytes(), Path(shard).read_bytes())

    def test_what_was_cut_off_goes_on_where_it_was(self):
        self.lose_server()
        gets = []

        def slow(method, path):
            if method == "GET" and "/repository/data/" in path:
                gets.append(path)
                time.sleep(0.3)

        self.proxy.answer = slow
        running = self.start(self.request(databases=["medic"], into=str(self.into)), "part")
        wait_for(lambda: len(gets) > 1, 60, "the fetching")
        wait_for(lambda: (self.fetched / "config").exists(), 60, "the first file")
        running.stdin.close()  # the operator's computer is gone
        errors, code = running.stderr.read(), running.wait(60)
        running.stdout.close(), running.stderr.close()
        self.assertEqual(code, 143, errors)
        self.assertIn("stopped by SIGTERM; the next run goes on from here", errors)
        self.proxy.answer = lambda method, path: None
        done = self.restore()
        self.assertEqual(done.code, 0, done)
        self.assertRegex(done.output, r"files, .* MB, of which .* MB are here already")

    def test_archives_are_listed_as_json_and_what_was_fetched_serves_the_restore(self):
        self.lose_server()
        listed = self.end(self.start(self.request(last=0), "restore", "list"))
        self.assertEqual(listed.code, 0, listed)
        self.assertEqual([of["name"] for of in json.loads(listed.output)["archives"]], [ARCHIVE])
        self.assertIn("fetched and compared", listed.errors)
        before = len(self.proxy.requests)
        self.assertEqual(self.restore().code, 0)
        asked = [path for method, path in self.proxy.requests[before:] if "/repository/" in path]
        self.assertEqual(asked, [], "nothing is fetched twice")

    def test_a_repository_that_was_harmed_is_left_for_an_earlier_copy(self):
        earlier = self.made.copies()[-1]["finished"]
        wait_for(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > earlier)
        # Root on the server spoils what is stored, and the copy takes it for the repository's.
        segments = sorted(self.made.repository.glob("data/*/*"), key=lambda path: path.stat().st_size)
        content = bytearray(segments[-1].read_bytes())
        for at in range(1000, len(content), 1000):
            content[at] ^= 255
        shutil.rmtree(self.made.state)
        self.made.state.mkdir()
        segments[-1].write_bytes(content)
        (self.made.source / "more").write_text("more")
        self.made.borg("create", f"{self.made.location}::t-2026-11-22T02:00:05Z", ".", cwd=self.made.source)
        self.copy_now()
        self.assertEqual(len(self.made.copies()), 2)
        self.lose_server()
        harmed = self.restore(archive=ARCHIVE)
        self.assertEqual(harmed.code, 2, harmed)
        self.assertRegex(harmed.errors, "the repository is damaged: .*For an earlier copy in the bucket: --copy-as-of")
        done = self.restore({"asOf": earlier})
        self.assertEqual(done.code, 0, done)

    def test_a_repository_that_was_begun_anew_is_told_of_with_the_copy_of_the_one_before(self):
        earlier = self.made.copies()[-1]["finished"]
        self.lose_server()
        for folder in (self.made.repository, self.made.snapshot):
            folder.mkdir(parents=True)
        self.made.borg("init", "--encryption", "repokey-blake2", self.made.location)
        self.assertEqual(self.made.run().report["outcome"], "copied")
        new = self.made.borg("config", self.made.repository, "id").stdout.strip()
        ours = {"repositories": [new, self.id]}
        empty = self.restore(ours)
        self.assertEqual(empty.code, 2, empty)
        self.assertIn(f"To take the last of them: --copy-as-of {earlier}\n", empty.output)
        self.assertIn("holds no archive. For an earlier copy in the bucket: --copy-as-of", empty.errors)
        done = self.restore({**ours, "asOf": earlier})
        self.assertEqual(done.code, 0, done)

    def test_the_repository_alone_is_left_for_a_new_server_without_the_passphrase(self):
        self.lose_server()
        wanted = {"repositoryOnly": True, "passphrase": ""}
        dry = self.end(self.start(self.request(**wanted, dryRun=True), "restore", "restore"))
        self.assertEqual((dry.code, dry.output.splitlines()[-1]), (0, "dry run: nothing was fetched"), dry)
        done = self.end(self.start(self.request(**wanted), "restore", "restore"))
        self.assertEqual((done.code, done.output.splitlines()[-1]), (0, f"the repository is in {self.fetched}"), done)
        self.made.borg("check", "--verify-data", self.fetched)
        # It is somebody else's from now on: another run must not set it back.
        again = self.end(self.start(self.request(**wanted), "restore", "restore"))
        self.assertEqual(again.code, 2, again)
        self.assertIn("repository isn't empty; nothing was changed", again.errors)

    def test_a_forged_copy_of_another_repository_is_passed_over(self):
        self.lose_server()
        self.forge({**self.true_index(), "repository": "66" * 32, "number": 9})
        done = self.restore()
        self.assertEqual(done.code, 0, done)
        self.assertRegex(done.output, "note: index/20991122T020005Z-9.json.gz of .* is passed over, it is of another")

    def kits_frame(self):
        """The folder of a recovery by the kit, and what pastes the kit's frame there."""
        kit = self.work / "kit"
        kit.mkdir(parents=True)
        (kit / "settings").write_text(f"KIT={kit}\nSTAGE={kit}/stage\n")
        page = (ROOT / "operations" / "recovery-kit" / "bucket.md").read_text()
        frame = re.search(r"^```new\n(.*?)^```$", page, re.S | re.M)[1]
        key, secret = KEYS["reader"]
        values = {
            "BUCKET": self.made.bucket, "BUCKET_PREFIX": PREFIX, "BUCKET_REGION": "us-east-1",
            "BUCKET_ENDPOINT": self.proxy.endpoint, "BUCKET_STYLE": "path", "BUCKET_KEY_ID": key,
            "REPOSITORY_ID": self.id,
        }  # fmt: skip
        for name, value in values.items():
            frame = frame.replace(f"@{name}@", value)
        frame = frame.replace("/root/cht-recovery", str(kit)).replace("/run/cht-recovery", f"{kit}/run")
        self.assertNotRegex(frame, "@[A-Z_]+@")

        def paste(number, word):
            environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
            done = subprocess.run(
                ["bash", "-c", frame], input=f"{number}\n{word}\n", capture_output=True, text=True, env=environment
            )
            return Run(done.returncode, done.stdout, done.stderr, None)

        return kit, paste

    def test_the_recovery_kits_frame_fetches_it_without_any_program_of_ours(self):
        self.lose_server()
        kit, paste = self.kits_frame()
        secret = KEYS["reader"][1]
        wrong = paste("", "mistyped")
        self.assertNotEqual(wrong.code, 0)
        self.assertRegex(wrong.errors, "^STOP: .*SignatureDoesNotMatch")
        none = paste("7", secret)
        self.assertIn("STOP: there is no copy 7", none.errors)
        # What somebody did to the names since, and what a broken connection left.
        intruder = store.client("intruder")
        for of in store.admin.list_objects_v2(Bucket=self.made.bucket, Prefix=f"{PREFIX}repository/")["Contents"]:
            intruder.put_object(Bucket=self.made.bucket, Key=of["Key"], Body=b"x")
            intruder.delete_object(Bucket=self.made.bucket, Key=of["Key"])
        (kit / "stage-repository" / "data" / "0").mkdir(parents=True)
        (kit / "stage-repository" / "data" / "0" / "999999").write_text("of another copy")
        done = paste("", secret)
        self.assertEqual(done.code, 0, done)
        self.assertRegex(done.output, r"\n\d+ files are right\nDONE: step 4, from the bucket\n$")
        repository = (kit / "repository").read_text().strip()
        environment = {**self.made.environment, "BORG_BASE_DIR": f"{kit}/borg"}
        listed = subprocess.run(
            ["borg", "list", "--short", repository], env=environment, capture_output=True, text=True
        )
        self.assertEqual(listed.stdout, f"{ARCHIVE}\n", listed.stderr)
        check = subprocess.run(["borg", "check", repository], env=environment, capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stderr)

    def forge(self, content, name="20991122T020005Z-9"):
        """Put an index there with the writer's key, as whoever took over the server can."""
        packed = content if isinstance(content, bytes) else gzip.compress(json.dumps(content).encode())
        key = f"{PREFIX}index/{name}.json.gz"
        store.client("writer").put_object(Bucket=self.made.bucket, Key=key, Body=packed)

    def true_index(self):
        listed = store.admin.list_objects_v2(Bucket=self.made.bucket, Prefix=f"{PREFIX}index/")["Contents"]
        found = store.admin.get_object(Bucket=self.made.bucket, Key=listed[0]["Key"])["Body"].read()
        return json.loads(gzip.decompress(found))

    def test_the_recovery_kits_frame_passes_over_whatever_was_forged(self):
        true = self.true_index()
        config = true["objects"]["config"]
        steering = "\x1b[2J\u202e"
        for forged in (
            b"no gzip",
            gzip.compress(json.dumps(true).encode())[:-20],
            gzip.compress(b"[" * 200_000),
            gzip.compress(b" " * (33 << 20)),
            [],
            {**true, "repository": "\ud800x"},
            {**true, "objects": ["config"]},
            {**true, "objects": {}},
            {**true, "objects": {**true["objects"], f"../{steering}": config}},
            {**true, "objects": {**true["objects"], "config": {**config, "version": "\ud800"}}},
            {**true, "objects": {**true["objects"], "config": {**config, "version": 5}}},
            {**true, "objects": {**true["objects"], "config": {**config, "size": -1}}},
            {**true, "objects": {**true["objects"], "config": {"size": 1}}},
        ):
            self.forge(forged)
        self.forge(true, f"x{steering}")
        # Where the writer's policy isn't as ours: encrypted by a key that nobody else has.
        store.client("intruder").put_object(
            Bucket=self.made.bucket, Key=f"{PREFIX}index/20991122T020005Z-10.json.gz", Body=b"x",
            SSECustomerAlgorithm="AES256", SSECustomerKey=b"k" * 32,
        )  # fmt: skip
        self.lose_server()
        _kit, paste = self.kits_frame()
        done = paste("", KEYS["reader"][1])
        self.assertEqual(done.code, 0, done)
        self.assertEqual(done.output.count("is no index: "), 14, done)
        self.assertRegex(done.output, r"\n1 finished .* transaction \d+ \d+ MB\nfetching 1\n")
        self.assertRegex(done.output, r"\n\d+ files are right\nDONE: step 4, from the bucket\n$")
        self.assertNotRegex(done.output + done.errors, "[\x1b\u202e]|Traceback")
        # What the network or the storage does ends it, so that no older copy is taken for the newest.
        self.proxy.answer = lambda method, path: (500, "InternalError") if "versionId" in path else None
        ended = paste("", KEYS["reader"][1])
        self.assertNotEqual(ended.code, 0, ended)
        self.assertRegex(ended.errors, "^STOP: .*InternalError")

    def as_a_drill(self, action, *words, **asked):
        """Runs bucket_fetch.py as a drill does: the key is in a file."""
        place, credentials = self.request()["bucket"], self.work.parent / "credentials"
        key, secret = place.pop("accessKeyId"), place.pop("secretAccessKey")
        credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        place["credentials"] = str(credentials)
        done = subprocess.run(
            [sys.executable, str(RESTORE / "bucket_fetch.py"), action, *words], text=True, capture_output=True,
            input=json.dumps({**place, **asked}) + "\n",
        )  # fmt: skip
        return Run(done.returncode, done.stdout, done.stderr, None)

    def newest(self):
        done = self.as_a_drill("newest")
        self.assertEqual(done.code, 0, done)
        return json.loads(done.output)

    def test_a_drill_is_told_of_the_newest_whole_copy_and_what_speaks_against_it(self):
        self.lose_server()
        right = self.newest()
        self.assertEqual((right["number"], right["remarks"]), (1, []))
        true = self.true_index()
        lost = {**true["objects"], "config": {**true["objects"]["config"], "version": "gone"}}
        self.forge(b"no gzip", "20991122T020005Z-9")
        self.forge({**true, "objects": lost}, "20991122T020005Z-8")
        found = self.newest()
        self.assertEqual({**right, "remarks": []}, {**found, "remarks": []})
        self.assertRegex(
            found["remarks"][0], "^note: index/2099.*-9.json.gz .* is passed over, it is no index of a copy"
        )
        self.assertRegex(found["remarks"][1], "-8.json.gz .* 1 of its files are not in the bucket, config for one$")
        self.forge({**true, "made": "2020-01-01T00:00:00Z"}, "20991122T020005Z-7")
        self.assertIn("somebody put an old index there again", self.newest()["remarks"][-1])
        # What was looked at is what is fetched, whatever came meanwhile.
        target = str(self.fetched)
        fetched = self.as_a_drill("fetch", target, copy=right["copy"], version=right["version"])
        self.assertEqual(fetched.code, 0, fetched)
        self.assertNotIn("WARNING", fetched.output)
        self.assertEqual(set(os.listdir(target)), {path.split("/")[0] for path in true["objects"]})
        foreign = self.as_a_drill("newest", repositories=["0" * 64])
        self.assertEqual(foreign.code, 2, foreign)
        self.assertRegex(foreign.errors, "^no copy that was asked for is whole; .* is passed over, ")

    def test_the_recovery_kits_frame_says_when_an_old_copy_was_put_there_again(self):
        old = self.true_index()
        self.made.backup("more", 1)
        self.copy_now()
        finished = self.made.copies()[-1]["finished"]
        wait_for(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > finished)
        self.forge(old)
        self.lose_server()
        _kit, paste = self.kits_frame()
        done = paste("", KEYS["reader"][1])
        self.assertIn("WARNING: copy 2 was finished before copy 1, but holds\na later state", done.output)
        self.assertNotIn("WARNING", paste("2", KEYS["reader"][1]).output)


if __name__ == "__main__":
    unittest.main()
