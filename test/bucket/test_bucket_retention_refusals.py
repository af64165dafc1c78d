"""What retention refuses in a real S3 server, what it takes, and the operator's side of it."""

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import retained
from parts import KEYS, PREFIX, ROOT
from retained import Case, Operator, setUpModule  # noqa: F401

from chtbackup.bucket.client import Bucket
from chtbackup.bucket.index import Index, Stored, pack_index


class Keys(Case):
    def test_that_may_not_delete_remove_nothing_and_are_told(self):
        self.make()
        self.history(2)
        before = self.versions()
        for key in ("writer", "reader"):
            code, result, errors = Operator(self.made).go(key=key).end()
            self.assertEqual((code, result), (2, None))
            self.assertIn("s3:DeleteObjectVersion", errors)
            self.assertNotIn("Traceback", errors)
        self.assertEqual(self.versions(), before)

    def test_are_in_no_command_line_environment_or_output(self):
        self.make()
        self.history(2)
        operator = Operator(self.made)
        process = Path("/proc", str(operator.process.pid))
        seen = process.joinpath("cmdline").read_text() + process.joinpath("environ").read_text()
        _, result, errors = operator.go().end()
        for _, secret in KEYS.values():
            self.assertNotIn(secret, seen + errors + json.dumps([operator.plan, result]))


class BucketDoubts(Case):
    def forge(self, **changes):
        index = {
            "deployment": "moh", "repository": "ee" * 32, "transaction": 7, "number": 9,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "objects": {name: Stored("none", 5, "a" * 64) for name in ("config", "index.7", "data/0/7")},
        }  # fmt: skip
        packed = pack_index(Index(**{**index, **changes}))
        key = f"{PREFIX}index/20991122T020005Z-9.json.gz"
        retained.store.client("writer").put_object(Bucket=self.bucket, Key=key, Body=packed)

    def test_refuse_and_a_forged_index_changes_nothing(self):
        self.make()
        self.history(2)
        self.forge()
        before = self.versions()
        operator = Operator(self.made)
        self.assertEqual(set(operator.plan["doubts"]), {"repository", "incomplete"})
        code, result, errors = operator.go(["repository"]).end()
        self.assertEqual((code, result), (2, None))
        self.assertIn("incomplete", errors)
        self.assertEqual(self.versions(), before)
        code, result, errors = Operator(self.made).go(["repository", "incomplete"]).end()
        self.assertEqual(code, 0, errors)
        self.assertTrue(self.made.copies()[0]["whole"])

    def test_that_come_up_after_the_plan_refuse_as_well(self):
        self.make()
        self.history(2)
        operator = Operator(self.made)
        self.assertEqual(operator.plan["doubts"], {})
        before = self.versions()
        self.forge()
        code, _, errors = operator.go().end()
        self.assertEqual(code, 2)
        self.assertIn("nothing was removed", errors)
        self.assertLess(before, self.versions())

    def test_only_what_was_shown_goes_and_a_copy_made_meanwhile_is_whole(self):
        self.make()
        self.history(3)
        operator = Operator(self.made)
        newest = operator.plan["copies"][0]
        held = self.made.backup("meanwhile", 1)
        self.copy()
        code, result, errors = operator.go().end()
        self.assertEqual((code, result["done"]["problems"]), (0, []), errors)
        self.assertEqual(result["done"]["copies"], 2)
        self.assertIn(newest["key"], [of["key"] for of in result["whole"]])
        self.assert_whole(2)
        self.assertEqual(self.made.restore("meanwhile"), held)

    def test_one_word_for_a_bucket_that_cannot_be_reached_or_a_request_that_is_none(self):
        self.make()
        self.history(1)
        for request, words in (
            ({"bucket": "copy-nowhere"}, "there is no such bucket"),
            ({"secretAccessKey": "wrong"}, "secret key"),
            ({"policy": {}}, "isn't in order"),
        ):
            with self.subTest(words):
                operator = Operator(self.made, **request)
                code, _, errors = operator.end()
                self.assertEqual(code, 2)
                self.assertIn(words, errors)
                self.assertNotIn("Traceback", errors)


class OnTheOperatorsComputer(Case):
    """operations/bucket-retention.ts, which makes the Python environment and talks to the program."""

    def retain(self, environment=(), within=0, **task):
        bucket = {
            "name": self.bucket, "region": "us-east-1", "endpoint": f"http://127.0.0.1:{retained.store.port}",
            "pathStyle": True, "prefix": PREFIX, "keepDays": 0,
            "reader": dict(zip(("accessKeyId", "secretAccessKey"), KEYS["reader"], strict=True)),
        }  # fmt: skip
        policy = {"keepWithin": within, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0}
        settings = {"deployment": "moh", "bucket": bucket, "retention": policy}
        id = self.made.borg("config", self.made.repository, "id").stdout.strip()
        whole = {
            "stack": "test", "deployment": {"settings": settings, "key": f"BORG_KEY {id}\n"}, "dryRun": False,
            "drill": {"succeeded": time.time(), "overdueAfterDays": 9}, "yes": True, "despite": [], "quiet": False,
            "only": False, "held": False, **task,
        }  # fmt: skip
        command = ["node", "--require", "./toolchain/typescript.cjs", "test/bucket/retain.ts"]
        state = {"XDG_STATE_HOME": str(self.made.folder / "operator")}
        return subprocess.run(
            command, input=json.dumps(whole), env={**os.environ, **state, **dict(environment)}, cwd=ROOT, text=True,
            capture_output=True, timeout=600,
        )  # fmt: skip

    def seen(self):
        with open(self.made.folder / "operator" / "cht-backup" / "copies-test.json") as file:
            return json.load(file)

    def test_old_copies_go_with_the_key_from_the_environment_and_are_forgotten_there(self):
        self.make()
        held = self.history(2)
        variables = ("CHT_BACKUP_DELETER_ACCESS_KEY_ID", "CHT_BACKUP_DELETER_SECRET_ACCESS_KEY")
        key = dict(zip(variables, KEYS["deleter"], strict=True))
        before = self.versions()

        dry = self.retain(dryRun=True)
        self.assertEqual(dry.returncode, 0, dry.stderr)
        self.assertRegex(dry.stdout, r"1 of 2 copies go, and \d+ of \d+ versions of files")
        left_out = self.retain()
        self.assertEqual(left_out.returncode, 0, left_out.stderr)
        self.assertIn("the bucket's part is left out", left_out.stderr)
        self.assertEqual(self.retain(only=True).returncode, 2)
        self.assertFalse((self.made.folder / "operator").exists())
        wrong = self.retain({**key, variables[0]: "nobody"})
        self.assertEqual((wrong.returncode, wrong.stderr.count("not known there")), (2, 1), wrong.stderr)
        held_back = self.retain(key, held=True)
        self.assertEqual((held_back.returncode, "doubts about the server" in held_back.stderr), (1, True))
        self.assertEqual(len(self.seen()["copies"]), 2)
        self.assertEqual(self.versions(), before)

        done = self.retain(key)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 copies and ", done.stdout)
        self.assertIn("The copies that stay are complete", done.stdout)
        self.assertEqual(len(self.seen()["copies"]), 1)
        self.assert_whole(1)
        self.assertEqual(self.made.restore("a1"), held)
        self.assertIn("Everything stays (1 copies", self.retain(key).stdout)

        # And a copy that somebody else removes is missed, until somebody says that all is well.
        self.made.backup("a2", 1)
        self.copy()
        self.assertEqual(self.retain(key, within=1).returncode, 0)
        self.assertEqual(len(self.seen()["copies"]), 2)
        for index, version in self.versions("index/"):
            retained.store.admin.delete_object(Bucket=self.bucket, Key=index, VersionId=version)
        self.made.backup("a3", 1)
        self.copy()
        missed = self.retain(key, within=1)
        self.assertEqual(missed.returncode, 1, missed.stdout)
        self.assertIn("DOUBT (vanished)", missed.stderr)
        accepted = self.retain(key, within=1, despite=["vanished"])
        self.assertEqual(accepted.returncode, 0, accepted.stderr)
        self.assertEqual(len(self.seen()["copies"]), 1)


class ManyFiles(Case):
    COUNT = 5000

    def test_are_removed_by_a_request_each_and_few_others(self):
        retained.store.make_bucket(self.bucket, lock=False)
        versioning = {"Status": "Enabled"}
        retained.store.admin.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration=versioning)
        place = {"bucket": self.bucket, "prefix": PREFIX, "region": "us-east-1", "pathStyle": True}
        endpoint = f"http://127.0.0.1:{retained.store.port}"
        keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), KEYS["admin"], strict=True))
        self.there = Bucket({**place, "endpoint": endpoint}, keys)
        self.put_copy(1, self.COUNT, "ab" * 32)
        self.put_copy(2, 3, "ab" * 32)
        began = time.monotonic()
        operator = Operator(SimpleNamespace(settings=place), endpoint, repositories=["ab" * 32])
        self.assertEqual(operator.plan["doubts"], {})
        planned = time.monotonic() - began
        _, result, errors = operator.go().end()
        done = result["done"]
        self.assertEqual((done["copies"], done["versions"]), (1, self.COUNT + 2), errors)
        # Beside those for the list (a thousand with each, three times) and for two indexes.
        others = result["requests"] - done["copies"] - done["versions"]
        print(f"{result['requests']} requests, plan {planned:.1f} s, all {time.monotonic() - began:.1f} s", end=" ")
        self.assertLess(others, 40)
