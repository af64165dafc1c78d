"""A restore from the bucket against real parts: borg, and an S3 server with versions, locks and policies. The server's
repository is gone before it begins.

Needs what test_copy.py needs, and root: a restore gives files their owners.
"""

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from parts import HOSTS, KEYS, PREFIX, ROOT, Deployment, Proxy, Run, Store, wait_for

sys.path.insert(0, str(ROOT / "test" / "hosts"))

import test_restore as hosts  # noqa: E402
from chtbackup.base import pack  # noqa: E402
from chtbackup.recover import access, key, paper  # noqa: E402

ARCHIVE = "t-2026-11-21T02:00:05Z"
# This computer's borg may be older than what a restore asks for.
PROGRAM = f"""import sys
sys.path.insert(0, {str(HOSTS)!r})
from chtbackup.base import programs
from chtbackup.borg import client
client.OLDEST_BORG = (1, 2)
programs.run(sys.argv[1:])"""
RELAY = """
import os, socket, sys, threading
there = socket.create_connection(("127.0.0.1", {port}))
def send():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := there.recv(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
"""
store = None


def setUpModule():
    global store
    store = Store()
    unittest.addModuleCleanup(store.stop)


class CopiedDeployment(hosts.CopyOfADeployment):
    """A backup of a CHT, copied to a bucket."""

    number = 0

    def setUp(self):
        super().setUp()
        CopiedDeployment.number += 1
        self.proxy = Proxy(store.port)
        self.addCleanup(self.proxy.stop)
        store.make_bucket(f"copy-restore-{CopiedDeployment.number}")
        self.made = Deployment(store, f"copy-restore-{CopiedDeployment.number}")
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

    def forge(self, content, name="20991122T020005Z-9"):
        """Put an index there with the writer's key, as whoever took over the server can."""
        packed = content if isinstance(content, bytes) else gzip.compress(json.dumps(content).encode())
        key = f"{PREFIX}index/{name}.json.gz"
        store.client("writer").put_object(Bucket=self.made.bucket, Key=key, Body=packed)

    def true_index(self):
        listed = store.admin.list_objects_v2(Bucket=self.made.bucket, Prefix=f"{PREFIX}index/")["Contents"]
        found = store.admin.get_object(Bucket=self.made.bucket, Key=listed[0]["Key"])["Body"].read()
        return json.loads(gzip.decompress(found))

    def slow_segments(self):
        """Let each segment take a while to come, and give the list of those that were asked for so far."""
        gets = []

        def slow(method, path):
            if method == "GET" and "/repository/data/" in path:
                gets.append(path)
                time.sleep(0.3)

        self.proxy.answer = slow
        return gets


class FromBucket(CopiedDeployment):
    """A restore by the programs of `npm run restore`. The server is gone before it begins."""

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
            [sys.executable, "-c", PROGRAM, program, *words, str(self.work)],
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
        gets = self.slow_segments()
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

    def as_a_drill(self, action, *words, **asked):
        """Runs `fetch` as a drill does: the key is in a file."""
        place, credentials = self.request()["bucket"], self.work.parent / "credentials"
        key, secret = place.pop("accessKeyId"), place.pop("secretAccessKey")
        credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        place["credentials"] = str(credentials)
        done = subprocess.run(
            [sys.executable, str(HOSTS / "chtbackup"), "fetch", action, *words], text=True, capture_output=True,
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


class Recovery(CopiedDeployment):
    """With nothing but the recovery kit's page, and the program as one file."""

    def setUp(self):
        super().setUp()
        self.deployment = f"recovery-{os.getpid()}"
        self.notes = Path("/var/lib/cht-restore", self.deployment)
        self.addCleanup(shutil.rmtree, self.notes, ignore_errors=True)
        self.place = self.work.parent / "root"
        self.bin, self.volumes = self.work.parent / "bin", self.work.parent / "volumes"
        for folder in (self.bin, self.place):
            folder.mkdir()
        self.program = pack.program()
        self.kit = self.place / "kit"
        borg = shutil.which("borg")
        # This computer's borg may be older than what a restore asks for.
        self.tool("borg", f'[ "$1" != --version ] || {{ echo borg 1.2.8; exit; }}\nexec {borg} "$@"')
        # The server: what its sshd runs, whatever a client asks for; not as a child of the client, which may not write.
        serve = [borg, "serve", "--append-only", "--restrict-to-repository", str(self.made.repository)]
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve_one(client):
            with client:
                subprocess.run(serve, stdin=client, stdout=client, stderr=subprocess.DEVNULL)

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=serve_one, args=(client,), daemon=True).start()

        threading.Thread(target=answer, daemon=True).start()
        (self.bin / "relay.py").write_text(RELAY.format(port=listener.getsockname()[1]))
        self.tool("ssh", f"[ $# -gt 3 ] || exit 0\nexec {sys.executable} {self.bin}/relay.py")
        point = f"{self.volumes}/$name"
        self.tool(
            "docker",
            f"""for name; do :; done
case "$1 $2" in
"version "*) echo 27.0 ;;
"volume create") mkdir -p "{point}" ;;
"volume inspect") test -d "{point}" && echo "{point}" ;;
esac""",
        )
        self.facts()

    def tool(self, name, text):
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def facts(self, **changed):
        """The page's lines, as `operations/recovery-kit/page.ts` writes them, in a file of root's."""
        key, secret = KEYS["reader"]
        facts = {
            "deployment": self.deployment,
            "server": "192.0.2.1 22 cht-backup-t",
            "host-key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII8nyxMn8svM1ThCPAgYniADvs7y5zvM1uSd7V2YtxyT",
            "repository": str(self.made.repository),
            "id": self.id,
            "bucket": f"{self.made.bucket} us-east-1 path {self.proxy.endpoint} {PREFIX}",
            "reader": f"{key} {secret}",
            "passphrase": "correct horse",
            **changed,
        }
        lines = [paper.TITLE, *(f"{name} {value}" for name, value in facts.items())]
        self.kit.write_text("\n".join([*lines, f"check {paper.check_of(lines)}", ""]))
        self.kit.chmod(0o600)

    def environment(self):
        # What the new machine's environment says about another repository must not matter.
        foreign = {"BORG_PASSPHRASE": "theirs", "BORG_KEY_FILE": "/theirs", "BORG_REPO": "/theirs", "HOME": "/nowhere"}
        return {**os.environ, **foreign, "PATH": f"{self.bin}:{os.environ['PATH']}", "TMPDIR": str(self.place)}

    def begin(self, action, *words):
        file = self.place / "recover.pyz"
        file.write_bytes(self.program.content)
        command = [sys.executable, str(file), action, "--kit", str(self.kit), *words]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.place, env=self.environment(), start_new_session=True,
        )  # fmt: skip

    def recover(self, action, *words):
        return self.done(self.begin(action, *words))

    def done(self, running):
        output, errors = running.communicate(timeout=300)
        for secret in ("correct horse", KEYS["reader"][1]):
            self.assertNotIn(secret, output + errors)
        self.assertNotIn("Traceback", output + errors)
        # No mess, however it ended.
        self.assertLessEqual(set(os.listdir(self.place)), {"recover.pyz", "kit"})
        return Run(running.returncode, output, errors, None)

    def new_machine(self):
        """What was backed up is on no disk any more."""
        for path in (self.home, self.data, self.volume.parent, self.collected):
            shutil.rmtree(path)

    def assert_restored(self, done):
        self.assertEqual(done.code, 0, done)
        self.assertIn("7 databases with 863 documents", done.output)
        self.assertRegex(done.output, f"{ARCHIVE} is restored to .* and right")
        for path in (self.data / hosts.SHARD, self.env, self.home / "compose" / "cht-core.yml"):
            self.assertEqual(path.read_bytes(), Path(f"{self.tree}{path}").read_bytes(), path)
        self.assertTrue((self.volumes / "cht_cht-ssl" / "key.pem").exists())

    def fetch_program(self, secret):
        """The page's own lines for it."""
        page = (ROOT / "operations" / "recovery-kit" / "bucket.md").read_text()
        frame = re.search(r"^```new\n(.*?)^```$", page, re.S | re.M)[1]
        self.facts(reader=f"{KEYS['reader'][0]} {secret}")
        values = {
            "BUCKET_REGION": "us-east-1",
            "RECOVER_URL": f"{self.proxy.endpoint}/{self.made.bucket}/{PREFIX}{self.program.name}",
        }
        for name, value in values.items():
            frame = frame.replace(f"@{name}@", value)
        self.assertNotRegex(frame, "@[A-Z_]+@")
        # Nobody who looks at the processes may see the secret.
        self.tool("curl", f"tr '\\0' ' ' < /proc/$$/cmdline >> {self.bin}/seen\nexec {shutil.which('curl')} -sS \"$@\"")
        return subprocess.run(
            ["bash", "-c", frame.replace("/run/kit", str(self.kit))], cwd=self.bin, env=self.environment(),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def test_the_program_is_fetched_by_one_signed_request_and_is_the_one_of_the_page(self):
        before = len(self.proxy.requests)
        done = self.fetch_program(KEYS["reader"][1])
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(len(self.proxy.requests) - before, 1)
        self.assertEqual(hashlib.sha256((self.bin / "recover.pyz").read_bytes()).hexdigest(), self.program.sha256)
        (self.bin / "recover.pyz").unlink()
        wrong = self.fetch_program("mistyped")
        self.assertNotEqual(wrong.returncode, 0)
        self.assertIn("403", wrong.stderr)
        self.assertFalse((self.bin / "recover.pyz").exists())
        self.assertNotRegex((self.bin / "seen").read_text(), f"{KEYS['reader'][1]}|mistyped")

    def test_a_cht_comes_back_from_the_bucket(self):
        self.lose_server()
        # What somebody did to the names since.
        intruder = store.client("intruder")
        for of in store.admin.list_objects_v2(Bucket=self.made.bucket, Prefix=f"{PREFIX}repository/")["Contents"]:
            intruder.put_object(Bucket=self.made.bucket, Key=of["Key"], Body=b"x")
            intruder.delete_object(Bucket=self.made.bucket, Key=of["Key"])
        self.new_machine()
        listed = self.recover("list", "--from", "bucket")
        self.assertEqual(listed.code, 0, listed)
        self.assertRegex(listed.output, f"repository {self.id}, as on the page\n{ARCHIVE}  863 documents, [0-9.]+ MB\n")
        dry = self.recover("restore", "--from", "bucket", "--dry-run")
        self.assertEqual(dry.code, 0, dry)
        self.assertIn("\ndry run: nothing was changed\n", dry.output)
        self.assertFalse(self.data.exists())
        self.assert_restored(self.recover("restore", "--from", "bucket"))
        again = self.recover("restore", "--from", "bucket")
        self.assertIn("this archive is in place already; it is checked again", again.output)
        self.assertEqual(self.recover("tidy").code, 0)
        self.assertFalse(self.kit.exists() or (self.notes / "recover").exists() or (self.notes / "repository").exists())
        self.assertEqual(self.recover("tidy").code, 2)  # asks for the deployment, and there is nobody to answer

    def test_a_cht_comes_back_from_the_server(self):
        self.new_machine()
        listed = self.recover("list")
        self.assertIn(f"\n{ARCHIVE}  863 documents", listed.output, listed)
        self.assert_restored(self.recover("restore", "--archive", ARCHIVE))
        tidied = self.recover("tidy")
        self.assertIn(access.shut_out(str(self.made.repository)), tidied.output)

    def test_a_cht_comes_back_from_a_repository_at_hand_whose_key_was_lost(self):
        self.new_machine()
        exported = self.made.borg("key", "export", self.made.location).stdout
        config = self.made.repository / "config"
        lost = re.sub(r"(?ms)^key = .*", "", config.read_text())
        config.write_text(lost)
        none = self.recover("list", "--from", str(self.made.repository))
        self.assertEqual(none.code, 2, none)
        self.assertRegex(none.errors, "(?i)key")
        file = self.place / "recover.pyz"
        for text, code in ((exported.replace("A", "B"), 2), (exported, 0)):
            done = subprocess.run(
                [sys.executable, str(file), "key", str(self.made.repository), key.sum_of(key.typed(exported))],
                input=text, capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual(done.returncode, code, done)
        self.assert_restored(self.recover("restore", "--from", str(self.made.repository)))
        nowhere = self.recover("list", "--from", "/nowhere")
        self.assertRegex(
            nowhere.errors, "^--from /nowhere: it must be server, bucket, or the directory of a repository"
        )

    def test_the_archive_brings_the_program_and_it_is_found_without_any_of_ours(self):
        """As a backup puts it there: the manifest names it, and a restore proves it."""
        made = self.tree / "run" / "cht-backup" / "t" / "collect" / "recover.pyz"
        made.write_bytes(self.program.content)
        self.before["files"]["/run/cht-backup/t/collect/recover.pyz"] = {
            "kind": "file", "mode": f"{made.stat().st_mode & 0o7777:04o}", "uid": 0, "gid": 0,
            "size": len(self.program.content), "sha256": self.program.sha256,
        }  # fmt: skip
        (made.parent / "manifest-before.json").write_text(json.dumps(self.before))
        name = "t-2026-11-21T03:00:05Z"
        self.made.borg("create", f"{self.made.location}::{name}", *sorted(os.listdir(self.tree)), cwd=self.tree)
        out = subprocess.run(
            ["borg", "extract", "--stdout", f"{self.made.location}::{name}", "sh:run/cht-backup/*/collect/recover.pyz"],
            env=self.made.environment, capture_output=True,
        )  # fmt: skip
        self.assertEqual(hashlib.sha256(out.stdout).hexdigest(), self.program.sha256)
        self.new_machine()
        done = self.recover("restore")
        self.assertEqual(done.code, 0, done)
        self.assertRegex(done.output, f"{name} is restored to .* and right")

    def test_a_mistyped_secret_is_told_and_nothing_is_left(self):
        for changed, words, reason in (
            ({"reader": f"{KEYS['reader'][0]} mistyped"}, ["--from", "bucket"], "the secret key doesn't belong"),
            ({"passphrase": "wrong horse"}, [], "passphrase"),
            ({"id": "66" * 32}, ["--from", "bucket"], "no copy that was asked for is whole"),
        ):
            self.facts(**changed)
            done = self.recover("list", *words)
            self.assertEqual(done.code, 2, done)
            self.assertIn(reason, done.output + done.errors)
        self.facts(id="66" * 32)
        other = self.recover("list")
        self.assertIn(f"WARNING: the page is of another repository, {'66' * 32}", other.errors, other)

    def test_ctrl_c_leaves_no_mess_and_the_next_run_goes_on(self):
        self.lose_server()
        self.new_machine()
        gets = self.slow_segments()
        running = self.begin("restore", "--from", "bucket")
        wait_for(lambda: len(gets) > 1, 60, "the fetching")
        wait_for((self.notes / "repository" / "config").exists, 60, "the first file")
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        done = self.done(running)
        self.assertEqual(done.code, 143, done)
        self.assertIn("stopped by SIGINT; the next run goes on from here", done.errors)
        self.proxy.answer = lambda method, path: None
        again = self.recover("restore", "--from", "bucket")
        self.assertRegex(again.output, r"files, .* MB, of which .* MB are here already")
        self.assert_restored(again)

    def test_whatever_was_forged_in_the_bucket_is_passed_over(self):
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
        done = self.recover("list", "--from", "bucket")
        self.assertEqual(done.code, 0, done)
        passed = re.findall(
            r"note: index/.* is passed over, (?:it (?:is no index|can't be read)|1 of its files are not)", done.errors
        )
        # The last one's name is none of a copy, so it isn't looked at.
        self.assertEqual(len(passed), 14, done)
        self.assertIn(f"\n{ARCHIVE}  863 documents", done.output)
        self.assertNotRegex(done.output + done.errors, "[\x1b\u202e]")
        # What the network or the storage does ends it, so that no older copy is taken for the newest.
        self.proxy.answer = lambda method, path: (500, "InternalError") if "versionId" in path else None
        ended = self.recover("list", "--from", "bucket")
        self.assertEqual(ended.code, 2, ended)
        self.assertIn("InternalError", ended.errors)

    def test_an_old_copy_that_was_put_there_again_is_told(self):
        old = self.true_index()
        self.made.backup("more", 1)
        self.copy_now()
        finished = self.made.copies()[-1]["finished"]
        wait_for(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > finished)
        self.forge(old)
        self.lose_server()
        done = self.recover("list", "--from", "bucket")
        self.assertRegex(done.errors, "WARNING: .* somebody put an old index there again. .*--copy-as-of")
        earlier = self.recover("list", "--from", "bucket", "--copy-as-of", finished)
        self.assertEqual(earlier.code, 0, earlier)
        self.assertNotIn("WARNING", earlier.output + earlier.errors)


if __name__ == "__main__":
    unittest.main()
