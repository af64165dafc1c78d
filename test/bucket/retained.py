"""What the tests of retention in a bucket share: an operator who gives the program its words, and copies to remove."""

import json
import subprocess
import sys
import time
import unittest

from parts import HOSTS, KEYS, Deployment, Proxy, Store

from chtbackup.bucket.client import Bucket
from chtbackup.bucket.index import Index, Stored, index_key, pack_index
from chtbackup.bucket.parallel import in_parallel

NOTHING = {"within": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0}
store = None


def setUpModule():
    """For a module of tests, which imports it."""
    global store
    store = Store()
    unittest.addModuleCleanup(store.stop)


class Operator:
    """What `npm run retention` is for the program: it sends the request, reads the plan, and gives the word."""

    def __init__(self, made, endpoint=None, **request):
        place = {name: made.settings[name] for name in ("bucket", "prefix", "region", "pathStyle")}
        access, secret = KEYS["reader"]
        repositories = request.get("repositories") or [made.borg("config", made.repository, "id").stdout.strip()]
        self.request = {
            **place, "endpoint": endpoint or made.settings["endpoint"], "accessKeyId": access,
            "secretAccessKey": secret, "policy": NOTHING, "keepDays": 0, "deployment": "moh",
            "repositories": repositories, "drill": {"succeeded": time.time(), "overdueAfterDays": 9},
        } | request  # fmt: skip
        command = [sys.executable, str(HOSTS / "chtbackup"), "bucket-retention"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.word_given = False
        self.send(self.request)
        first = self.process.stdout.readline()
        self.plan = json.loads(first) if first else None

    def send(self, line):
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def go(self, despite=(), key="deleter"):
        access, secret = KEYS[key]
        self.word_given = True
        self.send({"despite": list(despite), "deleter": {"accessKeyId": access, "secretAccessKey": secret}})
        return self

    def end(self):
        """Exit code, the result, what was said to the operator."""
        if not self.word_given:
            self.process.stdin.close()
        # That would close it, which means that the operator has gone.
        given, self.process.stdin = self.process.stdin, None
        output, errors = self.process.communicate(timeout=300)
        given.close()
        return self.process.returncode, json.loads(output) if output else None, errors


class Case(unittest.TestCase):
    number = 0

    def setUp(self):
        Case.number += 1
        self.bucket = f"copy-retention-{Case.number}"
        self.proxy = Proxy(store.port)
        self.addCleanup(self.proxy.stop)

    def make(self, **how):
        store.make_bucket(self.bucket, **{"lock": False, **how})
        versioning = {"Status": "Enabled"}
        store.admin.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration=versioning)
        self.made = Deployment(store, self.bucket)
        if how.get("lock"):
            self.made.set(mode=how["mode"])
        self.addCleanup(self.made.remove)
        self.there = Bucket(
            {**self.made.settings, "endpoint": f"http://127.0.0.1:{store.port}"},
            dict(zip(("aws_access_key_id", "aws_secret_access_key"), KEYS["admin"], strict=True)),
        )

    def copy(self):
        run = self.made.run()
        self.assertIn(run.code, (0, 1), run)
        self.assertEqual(run.report["outcome"], "copied", run)
        time.sleep(1.1)  # the bucket's clock counts seconds

    def put_copy(self, number, count, repository):
        """A copy of so many files, all put there anew, which is none of a repository but looks like one."""

        def put(path):
            return Stored(self.there.put(f"repository/{path}", path.encode()), len(path), "a" * 64)

        paths = ["config", f"index.{number}", *(f"data/{number}/{of}" for of in range(count))]
        objects = dict(zip(paths, in_parallel(put, paths), strict=True))
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        index = Index("moh", repository, number, number, made, objects)
        self.there.put(index_key(made, number), pack_index(index))
        time.sleep(1.1)  # the bucket's clock counts seconds

    def history(self, copies=4):
        """Copies of a repository from which archives go and which is compacted. Returns what the last archive holds."""
        for number in range(copies):
            before = f"a{number - 1}"
            if number:
                self.made.source.joinpath(before).unlink()
            held = self.made.backup(f"a{number}", 3)
            if number:
                self.made.borg("delete", f"{self.made.repository}::{before}")
                self.made.borg("compact", "--threshold", "0", self.made.repository)
            self.copy()
        return held

    def versions(self, folder=""):
        """Keys and versions that are there, without delete markers."""
        return {(of["Key"], of["VersionId"]) for page in self.there.pages(folder) for of in page.get("Versions", [])}

    def assert_whole(self, number):
        copies = self.made.copies()
        self.assertEqual([of["whole"] for of in copies], [True] * number, copies)
