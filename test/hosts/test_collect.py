"""What a backup collects, on a deployment of real files and with a `docker` that answers what the test
says."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from fixture import couchdb

from chtbackup import docker as docker_client
from chtbackup.backup import collect, data
from chtbackup.backup import counts as backup_counts
from chtbackup.backup import program as backup
from chtbackup.borg import client as borg_client
from chtbackup.compose import files as compose
from chtbackup.couchdb import containers as couchdb_containers
from chtbackup.couchdb import files as couch_files
from chtbackup.manifest import copy as manifest_copy
from chtbackup.manifest import places, verify
from chtbackup.manifest import shape as manifest_shape
from chtbackup.manifest import write as manifest
from chtbackup.restore import choose, extract, listing, output, prove, switch, targets


class Deployment(unittest.TestCase):
    def setUp(self):
        self.scratch, self.data = couchdb()
        self.addCleanup(self.scratch.cleanup)
        self.top = self.data.parent.resolve()
        self.data = self.top / "couchdb"
        self.home = self.top / "cht"
        self.ssl, self.credentials = self.top / "volumes" / "ssl", self.top / "volumes" / "credentials"
        for folder in (self.home / "compose", self.home / "upgrade-service", self.ssl, self.credentials):
            folder.mkdir(parents=True)
        self.write("compose/cht-core.yml", "services: {nginx: {image: cht-nginx:4.0.0}}\n")
        self.write("upgrade-service/docker-compose.yml", "services: {}\n")
        self.env = self.write(
            "upgrade-service/.env",
            f"COUCHDB_DATA={self.data}\nCOUCHDB_PASSWORD=x\nCOUCHDB_SECRET=y\nCOUCHDB_UUID=z\n",
        )
        for name in ("cert.pem", "key.pem"):
            (self.ssl / name).write_text("-----BEGIN THING-----\n")
        self.containers = {
            "nginx1": self.container("nginx"),
            "couch1": self.container("couchdb", self.mount(self.data, couchdb_containers.DATA_IN_CONTAINER)),
        }
        self.hiccups, self.pipe = 0, False
        for patch in (
            mock.patch.object(docker_client.Docker, "run", self.docker),
            # Without Compose, as on a machine where it isn't installed.
            mock.patch.object(compose, "COMMANDS", ()),
            mock.patch.object(compose, "version", lambda: None),
            mock.patch.object(collect, "borg_version", lambda: "1.4.0"),
            mock.patch.object(docker_client, "DOCKER_PAUSE", 0),
            mock.patch.object(time, "sleep", lambda seconds: None),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def write(self, path, text):
        path = self.home / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    @staticmethod
    def mount(source, target, kind="bind", name=""):
        return {"Type": kind, "Source": str(source), "Destination": target, "Name": name}

    @staticmethod
    def container(service, *mounts, running=False, env=()):
        return {
            "Id": {"nginx": "nginx1", "couchdb": "couch1"}.get(service, service), "Name": f"/cht-{service}-1",
            "Image": "sha256:1", "State": {"Running": running}, "NetworkSettings": {"Networks": {}},
            "Config": {"Image": service, "Env": list(env), "Labels": {"com.docker.compose.service": service}},
            "Mounts": list(mounts),
        }  # fmt: skip

    def docker(self, *words):
        """What `docker` prints."""
        volumes = {"cht_cht-ssl": str(self.ssl), "cht_cht-credentials": str(self.credentials)}
        if words[0] == "version":
            return "28.0.0"
        if words[0] == "ps":
            return "\n".join(self.containers if words[-1].endswith("project=cht") else [])
        if words[0] == "inspect":
            if self.hiccups:
                self.hiccups -= 1
                raise subprocess.CalledProcessError(1, words, stderr="Error: No such object: couch1")
            return json.dumps([self.containers[name] for name in words[1:]])
        if words[0] == "image":
            return json.dumps([{"RepoDigests": []}])
        if words[0] == "volume":
            return volumes[words[-1]]
        self.assertEqual(words[0], "cp")
        source = self.ssl / os.path.basename(words[2])
        os.mkfifo(words[3]) if self.pipe else shutil.copy(source, words[3])
        return ""

    def collect(self, dry_run=False):
        """A run up to what borg would get. Returns it; its manifest's parts are `before` and `after`."""
        settings = {
            "deployment": "t", "chtHome": str(self.home), "composeProject": "cht", "couchdbData": [],
            "repository": "r", "compression": "zstd", "chunker": "fixed,262144", "uploadRate": 0, "lockWait": 600,
            "checkpointInterval": 300,
        }  # fmt: skip
        made = backup.Backup(settings, dry_run)
        made.run.state, made.run.scratch = str(self.top / "state"), str(self.top / "scratch")
        if dry_run:
            return made
        shutil.rmtree(made.run.scratch, ignore_errors=True)
        os.makedirs(made.run.state, exist_ok=True)
        os.makedirs(made.run.scratch)
        made.collection.collect()
        self.assertEqual(
            len(made.collection.contents.paths), len(set(made.collection.contents.paths)), "each path once"
        )
        self.before = json.loads(json.dumps(made.description.before()))
        self.after = json.loads(json.dumps(made.description.after()))
        return made

    def good(self, made):
        self.assertEqual(made.run.problems, [])
        return made

    def relative(self, made):
        return [path.removeprefix(f"{self.top}/") for path in made.collection.contents.paths]

    def copy(self, made):
        """A copy of what is in the list for borg, and of nothing else."""
        target = tempfile.TemporaryDirectory()
        self.addCleanup(target.cleanup)
        for path in made.collection.contents.paths:
            to = Path(target.name + path)
            to.parent.mkdir(parents=True, exist_ok=True)
            if os.path.islink(path):
                to.symlink_to(os.readlink(path))
            elif os.path.isdir(path):
                to.mkdir(exist_ok=True)
                shutil.copystat(path, to)
            else:
                shutil.copy2(path, to)
        self.assertIsNone(manifest_shape.unreadable(self.before, self.after, {}))
        return manifest_copy.Copy({"": target.name})

    def verdict(self, made):
        copy = self.copy(made)
        return verify.verify(self.before, self.after, copy, [], owners=False)

    def right(self, made):
        wrong = [text for text in self.verdict(made).problems if not text.startswith("TLS: ")]
        self.assertEqual(wrong, [])


class CompleteMeansComplete(Deployment):
    def test_a_plain_deployment_has_no_problem_and_a_right_copy(self):
        self.right(self.good(self.collect()))

    def test_a_dry_run_finds_the_same_and_writes_nothing(self):
        before = sorted(self.top.rglob("*"))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(self.collect(dry_run=True).dry(), backup.COMPLETE)
        self.assertIn("  medic: ", said.getvalue())
        self.assertEqual(sorted(self.top.rglob("*")), before)

    def test_data_that_is_mounted_below_couchdbs_directory_is_in_the_archive(self):
        shutil.move(self.data / "shards", self.top / "big")
        (self.data / "shards").mkdir()
        (self.data / "shards" / "hidden").write_text("CouchDB doesn't see this")
        self.containers["couch1"]["Mounts"].append(self.mount(self.top / "big", "/opt/couchdb/data/shards"))
        made = self.good(self.collect())
        paths = self.relative(made)
        self.assertNotIn("couchdb/shards/hidden", paths)
        self.assertTrue(any(path.startswith("big/") and "/medic." in path for path in paths))
        views = [at for at, path in enumerate(paths) if path.endswith(".view")]
        shards = [at for at, path in enumerate(paths) if path.startswith("big/")]
        self.assertLess(max(views), min(shards), "views before shards")
        self.right(made)
        self.assertEqual(
            places.targets_of(self.before["places"]), [str(self.home), str(self.data), str(self.top / "big")]
        )
        # The containers are gone the next night, and then Docker is down.
        containers, self.containers = self.containers, {"nginx1": self.containers["nginx1"]}
        self.assertTrue(any(path.startswith("big/") for path in self.relative(self.collect())))
        self.containers = containers
        with mock.patch.object(docker_client.Docker, "run", side_effect=subprocess.TimeoutExpired("docker", 120)):
            made = self.collect()
        self.assertTrue(any(path.startswith("big/") and "/medic." in path for path in self.relative(made)))

    def test_what_is_mounted_into_a_mount_is_in_the_archive_too(self):
        shutil.move(self.data / "shards", self.top / "big")
        (self.data / "shards").mkdir()
        name = sorted(path.name for path in (self.top / "big").iterdir())[0]
        shutil.move(self.top / "big" / name, self.top / "fast")
        (self.top / "big" / name).mkdir()
        (self.top / "big" / name / "hidden.1.couch").write_text("CouchDB doesn't see this")
        shards = "/opt/couchdb/data/shards"
        for mount in (
            self.mount(self.top / "big", shards),
            self.mount(self.top / "fast", f"{shards}/{name}"),
        ):
            self.containers["couch1"]["Mounts"].append(mount)
        made = self.good(self.collect())
        self.assertTrue(any(path.startswith("fast/medic.") for path in self.relative(made)))
        self.assertFalse([path for path in self.relative(made) if "hidden" in path])
        self.right(made)

    def test_data_behind_a_link_is_in_the_archive_as_couchdb_finds_it_in_its_container(self):
        (self.top / "big").mkdir()
        shutil.move(self.data / "shards", self.top / "big" / "shards")
        (self.data / "shards").symlink_to("/mnt/disk/shards")
        self.containers["couch1"]["Mounts"].append(self.mount(self.top / "big", "/mnt/disk"))
        made = self.good(self.collect())
        self.assertIn("couchdb/shards", self.relative(made))
        self.assertTrue(any(path.startswith("big/shards/") for path in self.relative(made)))
        self.right(made)

    def test_a_link_in_the_data_that_cant_be_followed_fails_the_run(self):
        (self.data / "shards" / "more").symlink_to("/nowhere/at/all")
        self.assertIn("is a link to /nowhere/at/all, which is not backed up", self.collect().run.problems[0])

    def test_a_database_that_couchdb_lists_and_the_files_lack_is_a_problem_of_the_backup(self):
        for path in self.data.rglob("medic-logs.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in [*self.data.rglob("medic-logs.*")]:
            path.unlink()
        self.assertIn("CouchDB lists the database medic-logs", " ".join(self.collect().run.problems))

    def test_a_database_that_the_server_lists_and_the_files_lack_is_a_problem_of_the_backup(self):
        counts = {"documents": 1, "deleted": 0, "updateSequence": 1}
        names = [*couch_files.listed_databases(str(self.data / "_dbs.couch")), "elsewhere"]
        server = {"source": "server", "databases": dict.fromkeys(names, counts)}
        with mock.patch.object(backup_counts.Counter, "count", lambda self: json.loads(json.dumps(server))):
            made = self.collect()
        self.assertEqual([text for text in made.run.problems if "lists the database" in text][0].split(",")[0],
                         "CouchDB lists the database elsewhere")  # fmt: skip
        self.assertEqual(len(made.run.problems), 1, "each problem once")

    def test_every_document_name_is_read_from_a_database_file(self):
        for path in self.data.rglob("*.couch"):
            documents = couch_files.database_counts(str(path))["documents"]
            self.assertEqual(len(couch_files.document_names(str(path))), documents, path)

    def test_a_relative_path_that_disagrees_with_the_container_is_a_problem_and_the_container_wins(self):
        self.env.write_text(self.env.read_text().replace(f"COUCHDB_DATA={self.data}", "COUCHDB_DATA=./srv"))
        self.write(
            "compose/cht-couchdb.yml",
            f"services: {{couchdb: {{volumes: ['${{COUCHDB_DATA}}:{couchdb_containers.DATA_IN_CONTAINER}']}}}}\n",
        )
        made = self.collect()
        self.assertEqual(made.collection.data.directories, [str(self.data)])
        self.assertEqual(len(made.run.problems), 1)
        self.assertIn(f"CouchDB's data is in {self.home}/compose/srv, but the container has", made.run.problems[0])

    def test_a_path_that_depends_on_an_environment_is_asked_of_the_container_and_said_to_be_unknown(self):
        self.env.write_text(self.env.read_text().replace(f"={self.data}", "=${HOME}/cht/couchdb"))
        made = self.good(self.collect())
        self.assertEqual(made.collection.data.directories, [str(self.data)])
        self.assertIn("COUCHDB_DATA depends on the variable HOME of whoever", " ".join(made.run.notes))
        # Without a container it is where it was.
        del self.containers["couch1"]
        self.assertEqual(self.collect().collection.data.directories, [str(self.data)])

    def test_a_relative_path_that_agrees_with_the_container_is_right(self):
        shutil.move(self.data, self.home / "compose" / "srv")
        self.env.write_text(self.env.read_text().replace(f"COUCHDB_DATA={self.data}", "COUCHDB_DATA=./srv"))
        source = self.home / "compose" / "srv"
        self.containers["couch1"]["Mounts"] = [self.mount(source, couchdb_containers.DATA_IN_CONTAINER)]
        made = self.good(self.collect())
        self.assertEqual(made.collection.data.directories, [str(source)])

    def test_an_env_that_is_a_link_is_saved_with_what_it_leads_to(self):
        real = self.top / "etc" / "env"
        real.parent.mkdir()
        shutil.move(self.env, real)
        self.env.symlink_to(real)
        made = self.good(self.collect())
        self.assertTrue({str(self.env), str(real)} <= set(made.collection.contents.paths))
        self.assertEqual(self.before["places"]["outside"], [str(real)])
        self.assertEqual(self.before["files"][str(real)]["sha256"], manifest.checksum(str(real)))
        self.assertEqual(places.real_path(str(self.env), self.before), str(real))
        self.right(made)

    def test_a_compose_file_that_is_a_link_is_saved_with_what_it_leads_to_or_is_a_problem(self):
        self.write("shared/extra.yml", "services: {}\n")
        (self.home / "compose" / "extra.yml").symlink_to("../shared/extra.yml")
        made = self.good(self.collect())
        self.assertTrue({"cht/compose/extra.yml", "cht/shared/extra.yml"} <= set(self.relative(made)))
        (self.home / "compose" / "gone.yml").symlink_to("/nowhere")
        self.assertIn("gone.yml (a link to /nowhere) can't be read", self.collect().run.problems[0])

    def test_files_that_compose_files_name_are_in_the_archive_when_they_are_below_the_home(self):
        self.write("nginx-extra/limits.conf", "x")
        self.write("compose/extra.env", "A=b\n")
        self.write("compose/secret.txt", "s")
        self.write("compose/base/base.yml", "services: {b: {env_file: [{path: b.env}]}}\n")
        self.write("compose/base/b.env", "B=c\n")
        self.write("conf/a/b.conf", "x")
        self.env.write_text(self.env.read_text() + "EXTRA=nginx-extra\n")
        self.write(
            "compose/more.yml",
            "include: [base/base.yml]\n"
            "services:\n"
            "  api:\n"
            "    env_file: extra.env\n"
            "    volumes:\n"
            "      - ../${EXTRA}/limits.conf:/etc/nginx/limits.conf:ro\n"
            "      - {type: bind, source: ../conf, target: /conf}\n"
            "      - named:/x\n"
            "      - !override ${MISSING:-../conf}:/y\n"
            "secrets: {s: {file: ./secret.txt}}\n",
        )
        made = self.good(self.collect())
        wanted = {
            "nginx-extra/limits.conf", "compose/extra.env", "compose/secret.txt", "compose/base/base.yml",
            "compose/base/b.env", "conf", "conf/a", "conf/a/b.conf",
        }  # fmt: skip
        self.assertEqual({f"cht/{path}" for path in wanted} - set(self.relative(made)), set())
        self.right(made)

    def test_what_a_container_has_mounted_is_saved_though_no_compose_file_names_it(self):
        self.write("by-hand/x.conf", "x")
        self.containers["nginx1"]["Mounts"].append(self.mount(self.home / "by-hand" / "x.conf", "/etc/x.conf"))
        self.assertIn("cht/by-hand/x.conf", self.relative(self.good(self.collect())))

    def test_what_is_named_outside_the_home_is_saved_or_named_in_a_problem(self):
        (self.top / "extra.env").write_text("A=b\n")
        (self.top / "folder").mkdir()
        self.write(
            "compose/more.yml",
            f"services: {{a: {{env_file: {self.top}/extra.env,"
            f" volumes: ['{self.top}/folder:/x', '/etc/localtime:/etc/localtime',"
            " '/var/run/docker.sock:/s']}}\n",
        )
        made = self.collect()
        self.assertEqual(self.before["places"]["outside"], [f"{self.top}/extra.env"])
        self.assertEqual(len(made.run.problems), 1)
        self.assertIn(
            f"{self.top}/folder, a mount of a ({self.home}/compose/more.yml), is not backed up",
            made.run.problems[0],
        )

    def test_a_file_that_isnt_there_is_told(self):
        self.write("compose/more.yml", "services: {a: {env_file: gone.env}}\n")
        self.assertIn("gone.env, env_file of a", " ".join(self.good(self.collect()).run.notes))

    def test_the_password_is_the_one_that_the_container_was_started_with(self):
        self.containers["couch1"]["Config"]["Env"] = ["COUCHDB_USER=medic", "COUCHDB_PASSWORD=#Mwananchi2026"]
        self.assertEqual(self.collect().collection.counter.logins, [("medic", "#Mwananchi2026"), ("medic", "x")])


class NothingHangsAndNoArchiveIsRefused(Deployment):
    def test_pipes_and_sockets_are_left_out_with_a_note_wherever_they_are(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        here = os.getcwd()
        os.chdir(self.ssl)  # a socket's path is short
        listener.bind("socket")
        os.chdir(here)
        pipes = [
            self.ssl / "pipe",
            self.data / "pipe",
            self.data / "shards" / "x.couch",
            self.home / "compose" / "p.yml",
        ]
        for path in pipes:
            os.mkfifo(path)
        made = self.good(self.collect())
        for path in [*pipes, self.ssl / "socket"]:
            self.assertNotIn(str(path), made.collection.contents.paths)
            self.assertTrue([text for text in made.run.notes if text.startswith(f"{path} is a ")], path)
        self.right(made)

    def test_an_env_or_a_certificate_that_is_a_pipe_is_a_problem_and_not_waited_for(self):
        self.env.unlink()
        os.mkfifo(self.env)
        self.pipe = True
        problems = "\n".join(self.collect().run.problems)
        self.assertIn(".env can't be read: it is no regular file", problems)
        self.assertIn("certificate /etc/nginx/private/cert.pem can't be copied", problems)

    def test_names_that_arent_utf_8_are_a_problem_and_not_in_the_archive(self):
        for name in (b"a\xff", b"a\xfe"):
            Path(os.fsdecode(os.fsencode(self.ssl) + b"/" + name)).write_text("x")
        (self.ssl / "link").symlink_to(os.fsdecode(b"a\xff"))
        made = self.collect()
        self.assertEqual(len(made.run.problems), 3)
        self.assertTrue(all("the name isn't UTF-8; rename it" in text for text in made.run.problems))
        self.right(made)

    @unittest.skipUnless(shutil.which("borg"), "borg isn't on this computer")
    def test_the_restore_takes_what_borg_makes_of_the_oddest_deployment(self):
        self.write("compose/odd.yml", "services: {a: {volumes: [../shared:/x, .:/docker-compose, ../compose:/y]}}\n")
        self.write("shared/a?", "x")
        self.write("shared/line\nbreak", "x")
        self.write("shared/é", "x")
        for name in (b"a\xff", b"a\xfe"):
            Path(os.fsdecode(os.fsencode(self.ssl) + b"/" + name)).write_text("x")
        (self.home / "shared" / "link").symlink_to("a?")
        os.link(self.home / "shared" / "a?", self.home / "shared" / "again")
        os.mkfifo(self.home / "shared" / "pipe")
        # The directory of compose files is a link.
        shutil.move(self.home / "compose", self.home / "compose-4")
        (self.home / "compose").symlink_to("compose-4")
        shutil.move(self.data / "shards", self.top / "big")
        (self.data / "shards").symlink_to(self.top / "big")
        made = self.collect()
        with tempfile.TemporaryDirectory() as top:
            borg = borg_client.Borg({"repository": f"{top}/r", "passphrase": "x", "baseDirectory": f"{top}/b"})
            borg.run("init", "--encryption", "repokey", f"{top}/r")
            paths = "".join(f"{path}\0" for path in made.collection.contents.paths)
            options = ["--paths-from-stdin", "--paths-delimiter", "\\0"]
            environment = {**os.environ, "BORG_BASE_DIR": f"{top}/b", "BORG_PASSPHRASE": "x"}
            for words, given in (
                (["create", *options, f"{top}/r::t"], paths),
                (["extract", f"{top}/r::t"], ""),
            ):
                os.makedirs(f"{top}/copy", exist_ok=True)
                subprocess.run(
                    ["borg", *words], input=os.fsencode(given), cwd=f"{top}/copy", env=environment, check=True
                )
            items = borg.items("t")
            self.assertIsNone(listing.unlisted(f"{top}/copy", items))
            self.assertIsNone(
                manifest_shape.unreadable(self.before, self.after, {of["path"]: of["type"] for of in items})
            )
            verdict = verify.verify(self.before, self.after, manifest_copy.Copy({"": f"{top}/copy"}), [], owners=False)
            self.assertEqual([text for text in verdict.problems if not text.startswith("TLS: ")], [])

    def test_a_directory_that_cant_be_read_is_a_problem_and_the_rest_is_saved(self):
        real = os.scandir

        def scandir(path):
            if str(path).endswith("00000000-15555554"):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        with mock.patch.object(os, "scandir", scandir):
            made = self.collect()
        self.assertTrue([text for text in made.run.problems if text.endswith("can't be read: Permission denied")])
        self.assertTrue([path for path in made.collection.contents.paths if "/15555555-2aaaaaa9/medic." in path])

    def test_a_file_that_cant_be_read_is_a_problem_and_the_manifest_stays_readable(self):
        def checksum(path):
            raise PermissionError(13, "Permission denied", path)

        with mock.patch.object(manifest, "checksum", checksum):
            made = self.collect()
        self.assertIn(f"{self.env} can't be read: Permission denied", made.run.problems)
        self.assertIsNone(manifest_shape.unreadable(self.before, self.after, {}))

    def test_a_file_that_changes_or_goes_meanwhile_is_no_false_alarm_later(self):
        self.write("logs/access.log", "1")
        self.write("logs/old.log", "1")
        self.write("compose/more.yml", "services: {a: {volumes: [../logs:/logs]}}\n")
        real = data.Data.scan

        def scan(made):
            if os.path.exists(self.home / "logs" / "old.log") and hasattr(self, "before"):
                self.write("logs/access.log", "12")
                (self.home / "logs" / "old.log").unlink()
            return real(made)

        with mock.patch.object(data.Data, "scan", scan):
            made = self.collect()
        self.assertEqual(self.after["changed"], [f"{self.home}/logs/access.log", f"{self.home}/logs/old.log"])
        made.collection.contents.paths.remove(f"{self.home}/logs/old.log")
        self.right(self.good(made))


class DockerHiccups(Deployment):
    def test_a_container_that_goes_between_list_and_look_is_asked_for_again(self):
        self.hiccups = 2
        self.right(self.good(self.collect()))

    def test_a_docker_that_stops_answering_is_a_problem_and_the_files_are_saved(self):
        self.hiccups = 99
        made = self.collect()
        self.assertIn("Docker doesn't answer", made.run.problems[0])
        self.assertTrue({str(self.env), str(self.data / "_dbs.couch"), str(self.ssl)} >= set())
        self.assertIn(str(self.data / "_dbs.couch"), made.collection.contents.paths)
        self.assertIn(str(self.env), made.collection.contents.paths)


class ModesOfParents(Deployment):
    def test_the_homes_modes_are_in_the_manifest_and_put_back(self):
        modes = {self.home: 0o700, self.home / "compose": 0o751, self.home / "upgrade-service": 0o710}
        for path, mode in modes.items():
            path.chmod(mode)
        self.env.chmod(0o644)
        made = self.good(self.collect())
        self.assertEqual(self.before["parents"][str(self.home)]["mode"], "0700")
        copy = self.copy(made)
        for path in modes:
            os.chmod(copy.at(str(path)), 0o755)
        archive = choose.Archive("t-1", "1", self.before, self.after)
        extract.own_directories(archive, copy, [targets.Place(str(self.home))])
        for path, mode in modes.items():
            self.assertEqual(os.stat(copy.at(str(path))).st_mode & 0o7777, mode, path)

    def test_directories_above_are_made_as_they_were(self):
        known = {"/a": 0o711, "/a/b": 0o700}
        with tempfile.TemporaryDirectory() as top:
            own = {"uid": os.getuid(), "gid": os.getgid()}
            parents = {top + path: {**own, "mode": f"{mode:04o}"} for path, mode in known.items()}
            targets.make_parents(f"{top}/a/b/c/home", parents)
            for path, mode in {**known, "/a/b/c": 0o755}.items():
                self.assertEqual(os.stat(top + path).st_mode & 0o7777, mode)


class OutsideTheHome(Deployment):
    def test_what_was_outside_is_kept_for_the_operator_and_put_nowhere(self):
        real = self.top / "etc" / "env"
        real.parent.mkdir()
        shutil.move(self.env, real)
        self.env.symlink_to(real)
        copy = self.copy(self.good(self.collect()))
        archive = choose.Archive("t-1", "1", self.before, self.after)
        text = real.read_text()
        real.unlink()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            switch.keep_outside(archive, copy, f"{self.top}/work/outside", output.Output())
        self.assertFalse(real.exists())
        self.assertEqual(Path(f"{self.top}/work/outside{real}").read_text(), text)
        self.assertIn(f"cp --archive {self.top}/work/outside{real} {real}", said.getvalue())

    def test_a_restore_that_goes_on_finds_all_right_when_the_operator_has_put_it_there(self):
        real = self.top / "etc" / "env"
        real.parent.mkdir()
        shutil.move(self.env, real)
        self.env.symlink_to(real)
        self.good(self.collect())
        self.assertEqual(self.before["places"]["outside"], [str(real)])
        # What is here is what was backed up, so it is as after a restore.
        archive = choose.Archive("t-1", "1", self.before, self.after)
        places = [targets.Place(str(self.home)), targets.Place(str(self.data))]
        with contextlib.redirect_stdout(io.StringIO()):
            verdict = prove.prove_in_place(archive, [], places, output.Output())
        self.assertEqual(verdict.problems, [])


if __name__ == "__main__":
    unittest.main()
