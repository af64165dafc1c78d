import contextlib
import io
import json
import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import yaml
from fixture import SERVER
from test_restore import SHARD, CopyOfADeployment

from chtbackup.alert import describe as alert_describe
from chtbackup.base import errors
from chtbackup.compose import anew as compose_text
from chtbackup.couchdb import scan as couch_scan
from chtbackup.drill import archive as drill_archive
from chtbackup.drill import configuration, container, database, findings, images, overdue, reports, room, tidy
from chtbackup.drill import fetch as drill_fetch
from chtbackup.drill import network as drill_network
from chtbackup.drill import program as drill
from chtbackup.drill import scratch as drill_scratch
from chtbackup.drill import settings as drill_settings
from chtbackup.manifest import copy as manifest_copy
from chtbackup.manifest import write as manifest
from chtbackup.restore import choose, secrets

SETTINGS = {
    "deployment": "t",
    "repository": "ssh://offsite/r",
    "scratch": "/s",
    "scratchGibibytes": 0,
    "keep": 2,
    "overdueAfterDays": 9,
    "network": "cht-drill-t",
    "image": None,
    "pull": True,
    "memoryMebibytes": 2048,
    "cpus": 1,
}
ALL_LIMITS = {"MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True, "PidsLimit": True}
NOW = 1_795_000_000


def report(**changes):
    made = {**reports.new_report("t"), "began": "2026-11-22T03:00:00Z", "beganAt": NOW - 60, "host": "cht"}
    made.update(seconds=60, finished="2026-11-22T03:01:00Z", finishedAt=NOW, lastSuccessAt=None)
    return {**made, **changes}


class TheData(CopyOfADeployment):
    """The drill's verification, on files of a real CouchDB."""

    def test_its_counts_are_those_of_the_couchdb_that_wrote_the_files(self):
        verdict = self.verify()
        self.assertEqual(verdict.problems, [])
        wanted = {
            name: {
                "documents": of["doc_count"],
                "deleted": of["doc_del_count"],
                "updateSequence": of["update_seq_number"],
            }
            for name, of in SERVER["databases"].items()
        }
        self.assertEqual(verdict.databases, wanted)

    def drill_verify(self):
        archive = choose.Archive("t-1", "1", self.before, self.after)
        kept = findings.Findings(report(), mock.Mock(), [])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            drill.verify_copy(archive, self.copy, kept)
        return kept.report

    def test_what_is_right_and_what_is_wrong_is_kept_for_the_report(self):
        self.assertEqual(self.drill_verify()["problems"], [])
        self.assertEqual(len(self.drill_verify()["checked"]), 5)
        self.at(self.data / SHARD).unlink()
        self.assertIn("CouchDB would silently recreate it empty", self.drill_verify()["problems"][0])

    def test_a_view_ahead_of_its_shard_is_wrong_though_a_restore_could_do_without_it(self):
        view = next(path for path in couch_scan.scan(str(self.data))["views"] if SHARD.split("/")[1] in path)
        empty = self.at(next(self.data.glob(f"{os.path.dirname(SHARD)}/_replicator.*.couch")))
        self.at(self.data / SHARD).write_bytes(empty.read_bytes())
        self.assertTrue([line for line in self.drill_verify()["problems"] if f"{view}: ahead of its shard" in line])


class Portions(unittest.TestCase):
    def items(self, *sizes):
        return [{"type": "-", "path": f"/d/{number}", "size": size} for number, size in enumerate(sizes)]

    def test_what_fits_into_one_is_fetched_at_once(self):
        self.assertEqual(drill_fetch.portions(self.items(3, 3, 4), 10), [])
        self.assertEqual(drill_fetch.patterns([], 0), "")

    def test_none_is_larger_than_allowed_but_for_a_single_file(self):
        items = self.items(6, 5, 30, 2, 2, 9)
        self.assertEqual(drill_fetch.portions(items, 10), [["/d/0"], ["/d/1"], ["/d/2"], ["/d/3", "/d/4"]])

    def test_every_file_is_fetched_once_whatever_it_is_called(self):
        items = [*self.items(9, 9, 9), {"type": "d", "path": "/d", "size": 0}]
        odd = [{"type": "-", "path": path, "size": 9} for path in ("/d/a\nb", "/d/a  b", "/d/b ")]
        portions = drill_fetch.portions([*odd, *items], 10)
        self.assertEqual(portions, [["/d/0"], ["/d/1"]])
        self.assertEqual(drill_fetch.patterns(portions, 0), "+ pf:d/0\n- re:.\n")
        self.assertEqual(drill_fetch.patterns(portions, 2), "- pf:d/0\n- pf:d/1\n")


class Room(unittest.TestCase):
    def test_enough_is_left_for_others(self):
        self.assertIsNone(room.too_little(10e9, 12e9, 50e9, 0))
        self.assertIn("make room", room.too_little(10e9, 10.5e9, 50e9, 0))
        self.assertIn("make room", room.too_little(10e9, 20e9, 1000e9, 0))

    def test_the_limit_of_the_settings_holds(self):
        self.assertIn("scratchGibibytes allows 1,000.0 MB", room.too_little(2e9, 90e9, 99e9, 1e9))
        self.assertIsNone(room.too_little(2e9, 90e9, 99e9, 3e9))

    def statvfs(self, **changes):
        of = {"f_bavail": 50e9, "f_blocks": 100e9, "f_frsize": 1, "f_files": 1_000_000, "f_favail": 100_000}
        return mock.Mock(**{**of, **changes})

    def test_files_need_inodes_too(self):
        self.assertIsNone(room.too_many(80_000, self.statvfs()))
        self.assertIn("80,001 files", room.too_many(80_001, self.statvfs()))
        self.assertIsNone(room.too_many(10**9, self.statvfs(f_files=0, f_favail=0)))

    def test_it_ends_before_the_disk_is_full_for_others(self):
        self.assertIsNone(room.filling_up(self.statvfs(), "/s"))
        self.assertIsNone(room.filling_up(self.statvfs(f_files=0, f_favail=0), "/s"))
        self.assertIn("1,900.0 MB are free", room.filling_up(self.statvfs(f_bavail=1.9e9), "/s"))
        self.assertIn("19,999 inodes are free", room.filling_up(self.statvfs(f_favail=19_999), "/s"))


class ComposeFile(unittest.TestCase):
    places = {
        "couchdb": ["/home/ubuntu/cht/couchdb"],
        "composeFiles": ["/home/ubuntu/cht/compose/cht-couchdb.yml"],
        "environment": "/home/ubuntu/cht/upgrade-service/.env",
        "volumes": {"cht_cht-credentials": "/var/lib/docker/volumes/cht_cht-credentials/_data"},
    }
    copy = manifest_copy.Copy({"": "/s/copy"})

    def config(self, **changes):
        service = {
            "image": "cht-couchdb:4",
            "environment": {"COUCHDB_PASSWORD": "pa$$word"},
            "container_name": "cht-couchdb-1",
            "restart": "always",
            "privileged": True,
            "devices": ["/dev/sda"],
            "ports": [{"target": 5984, "published": "5984"}],
            "networks": {"cht-net": {"aliases": ["db"]}},
            "volumes": [
                {"type": "bind", "source": "/home/ubuntu/cht/couchdb", "target": "/opt/couchdb/data"},
                {"type": "volume", "source": "cht-credentials", "target": "/opt/couchdb/etc/local.d"},
            ],
        }
        return {
            "services": {"couchdb": {**service, **changes}, "nginx": {"image": "nginx", "volumes": []}},
            "volumes": {"cht-credentials": {"name": "cht_cht-credentials"}},
        }

    def render(self, config, places=None, engine=ALL_LIMITS, **settings):
        return container.compose_file(config, places or self.places, self.copy, {**SETTINGS, **settings}, engine)

    def test_only_the_database_on_the_copy_alone(self):
        made, notes = self.render(self.config())
        self.assertEqual(notes, [])
        self.assertEqual(list(made["services"]), ["couchdb"])
        service = made["services"]["couchdb"]
        self.assertEqual(
            [(mount["source"], mount["target"]) for mount in service["volumes"]],
            [
                ("/s/copy/home/ubuntu/cht/couchdb", "/opt/couchdb/data"),
                ("/s/copy/var/lib/docker/volumes/cht_cht-credentials/_data", "/opt/couchdb/etc/local.d"),
            ],
        )
        self.assertEqual(service["environment"], {"COUCHDB_PASSWORD": "pa$$word"})
        self.assertEqual(service["networks"], {"drill": {"aliases": ["couchdb", "db"]}})
        self.assertEqual(made["networks"], {"drill": {"external": True, "name": "cht-drill-t"}})
        self.assertEqual(service["labels"], {"cht-backup.drill": "t"})

    def test_nothing_of_the_production_and_no_privilege_comes_along(self):
        service = self.render(self.config())[0]["services"]["couchdb"]
        for name in ("ports", "container_name", "privileged", "devices", "expose", "depends_on"):
            self.assertNotIn(name, service)
        self.assertEqual((service["restart"], service["cap_drop"]), ("no", ["ALL"]))

    def test_a_file_of_the_machine_is_not_mounted(self):
        for source in ("/var/run/docker.sock", "/", "/home/ubuntu/cht/couchdb/../.."):
            mounts = [
                *self.config()["services"]["couchdb"]["volumes"],
                {"type": "bind", "source": source, "target": "/x"},
            ]
            made, notes = self.render(self.config(volumes=mounts))
            self.assertEqual(len(made["services"]["couchdb"]["volumes"]), 2)
            self.assertEqual(notes, [f"couchdb: {source} at /x isn't in the archive; left out"])

    def test_every_node_of_a_cluster_with_its_own_data_and_a_share_of_the_limits(self):
        mount = {"type": "bind", "target": "/opt/couchdb/data"}
        nodes = {
            f"couchdb-{number}.local": {"image": "i", "volumes": [{**mount, "source": f"/db{number}"}]}
            for number in (1, 2)
        }
        places = {**self.places, "couchdb": ["/db1", "/db2"]}
        made = self.render({"services": nodes}, places)[0]["services"]
        self.assertEqual(made["couchdb-2.local"]["volumes"][0]["source"], "/s/copy/db2")
        self.assertEqual(made["couchdb-2.local"]["networks"]["drill"]["aliases"], ["couchdb-2.local"])
        self.assertEqual((made["couchdb-1.local"]["mem_limit"], made["couchdb-1.local"]["cpus"]), ("1024m", 0.5))

    def test_a_relative_path_is_the_only_data_directory(self):
        mounts = [{"type": "bind", "source": "/somewhere/srv", "target": "/opt/couchdb/data"}]
        made = self.render(self.config(volumes=mounts))[0]["services"]["couchdb"]
        self.assertEqual(made["volumes"][0]["source"], "/s/copy/home/ubuntu/cht/couchdb")

    def test_the_index_of_cht_5_is_not_started(self):
        config = self.config()
        mount = {"type": "bind", "source": "/home/ubuntu/cht/couchdb/nouveau", "target": "/data/nouveau"}
        config["services"]["couchdb-nouveau"] = {"image": "n", "volumes": [mount]}
        self.assertEqual(list(self.render(config)[0]["services"]), ["couchdb"])

    def test_an_archive_without_a_database_or_its_credentials_is_refused_in_words(self):
        with self.assertRaisesRegex(errors.Refused, "no service couchdb"):
            self.render({"services": {"nginx": {}}})
        with self.assertRaisesRegex(errors.Refused, "cht_cht-credentials, not in the archive"):
            self.render(self.config(), {**self.places, "volumes": {}})
        with self.assertRaisesRegex(errors.Refused, "data in /elsewhere, which is not in the archive"):
            mounts = [{"type": "bind", "source": "/elsewhere", "target": "/opt/couchdb/data"}]
            self.render(self.config(volumes=mounts), {**self.places, "couchdb": ["/a", "/b"]})

    def test_limits_that_the_engine_cannot_set_are_left_out_and_said(self):
        service = self.render(self.config(), engine={"MemoryLimit": True})[0]["services"]["couchdb"]
        self.assertEqual(service["mem_limit"], "2048m")
        self.assertNotIn("cpus", service)
        self.assertIn("can't limit CPU", container.unlimited({"MemoryLimit": True}))
        self.assertIsNone(container.unlimited(ALL_LIMITS))

    def test_the_image_of_the_settings_takes_the_place_of_the_archives(self):
        self.assertEqual(self.render(self.config())[0]["services"]["couchdb"]["image"], "cht-couchdb:4")
        made = self.render(self.config(), image="x@sha256:1")[0]
        self.assertEqual(made["services"]["couchdb"]["image"], "x@sha256:1")


class FilesThatComposeReads(unittest.TestCase):
    def test_those_of_a_cht_read_no_others(self):
        own = """
services:
  couchdb:
    image: ${COUCHDB_IMAGE}
    environment: {COUCHDB_USER: "${COUCHDB_USER:-medic}"}
    volumes: ["${COUCHDB_DATA:-./srv}:/opt/couchdb/data"]
    command: [include, env_file]
"""
        written, foreign = compose_text.anew(own)
        self.assertEqual(foreign, [])
        self.assertEqual(yaml.safe_load(written), yaml.safe_load(own))
        self.assertEqual(compose_text.anew(""), ("", []))

    def test_what_compose_gets_means_what_was_written(self):
        text = """
x-log: &log {driver: json-file, options: {max-size: "10m"}}
services:
  couchdb: {logging: *log, restart: no, cpus: 022, ports: [22:22, "80:80"]}
  haproxy:
    <<: {logging: *log}
    environment: {A: yes, B: "yes", C: 'it''s', D: ~, E: "\u0085 $$x ${Y:-z}", F: 1.10}
    command: |
      one
      two
"""
        written, foreign = compose_text.anew(text)
        self.assertEqual((yaml.safe_load(written), foreign), (yaml.safe_load(text), []))
        for plain in ("restart: no\n", "cpus: 022\n", "- 22:22\n", "A: yes\n", "D: ~\n", "F: 1.10\n"):
            self.assertIn(plain, written)
        self.assertNotRegex(written, "[&*]log")
        override = compose_text.anew("services: {a: {ports: !override [1], command: !reset null}}")[0]
        self.assertRegex(override, "(?s)ports: !override.*command: !reset")

    def test_what_another_parser_could_take_for_something_else_is_refused(self):
        for text, named in (
            ("services: {couchdb: {!!binary ZW52X2ZpbGU=: /root/x}}", r"a tag .* \(line 1\)"),
            ("%TAG ! tag:yaml.org,2002:\n---\na: {!binary ZW52X2ZpbGU=: /root/x}", "a tag"),
            ("a: !!python/object:os.system x", "a tag"),
            ("a: !!str 5", "a tag"),
            ("a:\n  !reset env_file: /root/x", r"a key that isn't plain text \(line 2\)"),
            ("? {include: a}\n: b", "a key that isn't plain text"),
            ("a: &a [*a]", "it isn't YAML"),
            (
                "\n".join(f"x{n}: &a{n} [{f'*a{n - 1}, ' * 10 if n else 1}]" for n in range(9)),
                "it is larger than",
            ),
        ):
            with self.assertRaisesRegex(ValueError, named):
                compose_text.anew(text)

    def test_a_key_that_reads_another_file_is_found_however_it_is_written(self):
        for text, wanted in (
            ("services: {couchdb: {env_file: /etc/cht-backup/other/passphrase}}", ["env_file"]),
            ("services:\n  a:\n    extends: {file: ../x.yml, service: a}", ["extends", "file"]),
            ("include: [/root/x.yml]", ["include"]),
            ("x-a: &a {label_file: /root/x}\nservices: {a: {<<: *a}}", ["label_file"]),
            ("services: {}\n---\nsecrets: {a: {file: /root/x}}", ["file"]),
            ('"env\\u005ffile": a', ["env_file"]),
            ("&k env_file: a\nb: {c: [{*k : d}]}", ["env_file"]),
            ("include: a\ninclude: b", ["include"]),
        ):
            self.assertEqual(compose_text.anew(text)[1], wanted, text)

    def test_a_file_that_the_archive_holds_may_be_read_and_no_other(self):
        there = {"a.env": "/copy/a.env", "$b.env": "/copy/$b.env"}
        text = (
            "services: {couchdb: {env_file: [a.env, {path: $b.env, required: false}], label_file: a.env}}\n"
            "secrets: {s: {file: a.env}}\n"
        )
        written, foreign = compose_text.anew(text, there.get)
        self.assertEqual(foreign, [])
        self.assertEqual(
            yaml.safe_load(written),
            {
                "services": {
                    "couchdb": {
                        "env_file": ["/copy/a.env", {"path": "/copy/$$b.env", "required": False}],
                        "label_file": "/copy/a.env",
                    }
                },
                "secrets": {"s": {"file": "/copy/a.env"}},
            },
        )
        for names in ("/root/x", "[a.env, ../x]", "{path: a.env, other: x}", "{path: [a.env], path: y}"):
            self.assertEqual(compose_text.anew(f"a: {{env_file: {names}}}", there.get)[1], ["env_file"], names)
        self.assertEqual(
            compose_text.anew("extends: {file: a.env}\ninclude: a.env", there.get)[1], ["extends", "include"]
        )
        many = "\n".join(f"x{n}: &a{n} [{f'*a{n - 1}, ' * 10 if n else 'a.env'}]" for n in range(7))
        with self.assertRaisesRegex(ValueError, "it is larger than"):
            compose_text.anew(f"{many}\nenv_file: *a6", there.get)

    def test_what_is_not_yaml_is_named_by_its_line_and_not_quoted(self):
        for text in ("a: [\n*secret", "a: b\nb: 'secret", "[" * 5000, "a: \x07secret"):
            with self.assertRaisesRegex(ValueError, r"^it isn't YAML( \(line \d+\))?$"):
                compose_text.anew(text)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(os.path.realpath(folder.name))

    def test_only_a_file_of_the_copys_own_is_read(self):
        (self.folder / "secret").write_text("PASSWORD=of-another")
        (self.folder / "copy").mkdir()
        (self.folder / "copy" / "link").symlink_to(self.folder / "secret")
        (self.folder / "copy" / "folder").symlink_to(self.folder)
        os.link(self.folder / "secret", self.folder / "copy" / "second-name")
        for name in ("link", "folder/secret", "second-name", "."):
            with self.assertRaisesRegex(ValueError, "^it is a link or no file$"):
                configuration.own_text(str(self.folder / "copy" / name))
        with self.assertRaisesRegex(ValueError, "^it can't be read: No such file"):
            configuration.own_text(str(self.folder / "copy" / "missing"))
        (self.folder / "copy" / ".env").write_text("A=1\n")
        self.assertEqual(configuration.own_text(str(self.folder / "copy" / ".env")), "A=1\n")

    def resolve(self, compose, environment="COUCHDB_PASSWORD=the-password\n", done=None, files=None):
        """What a drill says of an archive with such files; Compose itself is the real thing's stand-in."""
        home = "/home/ubuntu/cht"
        for path, text in ((f"{home}/compose/a.yml", compose), (f"{home}/upgrade-service/.env", environment)):
            place = self.folder / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if isinstance(text, Path):
                place.symlink_to(text)
            else:
                place.write_text(text)
        copy = manifest_copy.Copy({"": str(self.folder)})
        places = {
            **ComposeFile.places,
            "composeFiles": [f"{home}/compose/a.yml"],
            "volumes": {"cht_cht-credentials": "/v"},
        }
        with mock.patch.object(subprocess, "run", side_effect=[done] if done else AssertionError) as run:
            archive = choose.Archive("t-1", "1", {"files": files or {}, "places": places}, {})
            resolved = configuration.resolve(archive, copy, str(self.folder), f"{self.folder}/work")
        return resolved, run.call_args.args[0]

    def test_compose_gets_what_was_looked_at_written_anew_and_no_file_of_the_archive(self):
        done = mock.Mock(returncode=0, stdout='{"services": {}}')
        resolved, command = self.resolve("x: &a [1]\nservices: {b: *a}", done=done)
        self.assertEqual(resolved, {"services": {}})
        [file] = [command[at + 1] for at, word in enumerate(command) if word == "--file"]
        self.assertTrue(file.startswith(f"{self.folder}/work/"))
        self.assertEqual(yaml.safe_load(Path(file).read_text()), {"x": [1], "services": {"b": [1]}})
        self.assertNotIn("*", Path(file).read_text())
        # What is relative in it is so to where it was.
        self.assertEqual(command[command.index("--project-directory") + 1], f"{self.folder}/home/ubuntu/cht/compose")

    def test_compose_is_not_started_on_a_link_or_on_what_reads_other_files(self):
        (self.folder / "secret").write_text("PASSWORD=of-another")
        with self.assertRaisesRegex(errors.Refused, r"compose/a.yml in the archive reads other files \(env_file\)"):
            self.resolve("services: {couchdb: {env_file: /root/x}}")
        with self.assertRaisesRegex(errors.Refused, r"compose/a.yml in the archive: it has a tag"):
            self.resolve("services: {couchdb: {!!binary ZW52X2ZpbGU=: /root/x}}")
        with self.assertRaisesRegex(errors.Refused, r"upgrade-service/\.env in the archive: it is a link"):
            self.resolve("services: {}", self.folder / "secret")

    def test_a_deployment_whose_env_is_a_link_and_whose_services_have_env_files_can_be_drilled(self):
        home, real = "/home/ubuntu/cht", "/etc/cht/env"
        for path in (f"{self.folder}{home}/compose/extra.env", f"{self.folder}{real}"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_text("A=b\n")
        files = {
            f"{home}/compose/extra.env": {"kind": "file"},
            f"{home}/upgrade-service/.env": {"kind": "link", "target": real},
            real: {"kind": "file"},
        }
        text = f"services: {{a: {{env_file: extra.env}}, b: {{env_file: {home}/compose/extra.env}}}}"
        done = mock.Mock(returncode=0, stdout='{"services": {}}')
        _, command = self.resolve(text, Path(real), done, files)
        self.assertEqual(command[command.index("--env-file") + 1], f"{self.folder}{real}")
        written = yaml.safe_load(Path(command[command.index("--file") + 1]).read_text())
        named = [of["env_file"] for of in written["services"].values()]
        self.assertEqual(named, [f"{self.folder}{home}/compose/extra.env"] * 2)

    def test_the_words_of_compose_are_not_shown(self):
        said = "time=x level=warning\nyaml: line 7: interpolation of the-password failed"
        done = mock.Mock(returncode=15, stderr=said)
        with self.assertRaisesRegex(errors.Refused, "exit code 15; its words aren't shown") as caught:
            self.resolve("services: {}", done=done)
        self.assertNotIn("the-password", str(caught.exception))


class Images(unittest.TestCase):
    def test_one_that_is_not_here_is_not_fetched_where_only_the_archive_names_it(self):
        docker = mock.Mock()
        docker.run.side_effect = subprocess.CalledProcessError(1, "docker")
        with mock.patch.object(subprocess, "run", side_effect=AssertionError):
            with self.assertRaisesRegex(
                errors.Refused, "^CouchDB's image evil/image:1 isn't on this machine, and what"
            ):
                images.have_image(docker, "evil/image:1", False, mock.Mock())


class NoWayOut(unittest.TestCase):
    def test_the_network_is_there_internal_and_its_own(self):
        self.assertIsNone(drill_network.network_problem({"Internal": True, "Containers": {}}, "n"))
        # `pulumi up` doesn't make it where the stack doesn't look after Docker.
        by_hand = r"`docker network create --internal n` on this machine, .* with .*manageDocker `pulumi up`"
        self.assertRegex(drill_network.network_problem(None, "n"), f"n is missing: {by_hand}")
        self.assertRegex(
            drill_network.network_problem({"Internal": False}, "n"), f"isn't internal.*network rm n.*{by_hand}"
        )
        others = {"Internal": True, "Containers": {"1": {"Name": "cht-nginx-1"}}}
        self.assertIn("these use it: cht-nginx-1", drill_network.network_problem(others, "n"))

    def test_a_default_route_is_a_way_out(self):
        head = "Iface\tDestination\tGateway \tFlags\n"
        own = "eth0\t000014AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        lo6 = f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"
        self.assertFalse(drill_network.way_out(head + own, lo6))
        self.assertTrue(drill_network.way_out(f"{head}eth0\t00000000\t010014AC\t0003\t0\t0\t0\t00000000\n", ""))
        self.assertTrue(drill_network.way_out(head + own, lo6.replace("      lo", "    eth0")))

    def test_a_docker_that_gives_every_network_a_way_out_is_named_with_the_version_it_takes(self):
        for version in ("20.10.24+dfsg1", "24.0.7"):
            told = drill_network.open_network("n", version)
            self.assertIn(f"this machine's Docker, {version}, ", told)
            self.assertIn("Drills take 25 or newer", told)
        for version in ("26.1.5", ""):
            self.assertNotIn("Docker", drill_network.open_network("n", version))

    def container(self, **state):
        labels = {"com.docker.compose.service": "couchdb"}
        return {"State": {"Status": "running", **state}, "Config": {"Labels": labels}}

    def test_a_dead_container_is_named_with_its_cause(self):
        self.assertIsNone(database.death([self.container()], 99, 1))
        self.assertIsNone(database.death([self.container(Health={"Status": "starting"})], 99, 1))
        for state, words in (
            ({"Status": "exited", "ExitCode": 3}, r"ended at once \(exit code 3\)"),
            ({"Status": "exited", "OOMKilled": True}, "more memory than the limit of 99 MiB"),
            ({"Health": {"Status": "unhealthy"}}, "health check fails"),
        ):
            self.assertRegex(database.death([self.container(**state)], 99, 1), words)
        self.assertIn("is gone", database.death([], 99, 1))

    def test_no_value_of_the_environment_is_in_a_text(self):
        values = container.secrets_of({"COUCHDB_PASSWORD": "pass$$word", "LONGER": "pass$$word-2", "X": None, "N": 7})
        self.assertEqual(secrets.scrub("a pass$word-2, pass$word; 7", values), "a ***, ***; 7")


class Overdue(unittest.TestCase):
    day = 86400

    def overdue(self, latest, since):
        return overdue.overdue(latest, NOW - since * self.day, NOW, 9, "t")

    def test_no_sentence_while_the_last_success_is_young(self):
        self.assertIsNone(self.overdue(report(lastSuccessAt=NOW - 8.9 * self.day), 100))

    def test_a_success_too_long_ago_and_the_latest_failure(self):
        text = self.overdue(report(lastSuccessAt=NOW - 10 * self.day, problems=["disk full"]), 100)
        self.assertRegex(text, r"has succeeded since 2026-11-\d\dT.*; 9 days are allowed.*disk full")

    def test_without_any_success_it_counts_from_the_set_up(self):
        self.assertIsNone(self.overdue(None, 8))
        self.assertIn("has succeeded ever", self.overdue(None, 10))
        self.assertIn("has succeeded ever", self.overdue(report(lastSuccessAt=NOW + 2 * self.day), 10))
        self.assertIn("has succeeded ever", self.overdue(report(problems=["x"]), 10))


class Reports(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name
        self.reports = reports.Reports(f"{self.folder}/drills", 2)
        self.settings = {**SETTINGS, "scratch": f"{self.folder}/scratch"}

    def write(self, number, **changes):
        began = f"2026-11-22T03:00:0{number}Z"
        self.reports.write(report(began=began, beganAt=time.time() - 1, **changes))
        return self.reports.latest()

    def test_the_newest_are_kept_and_the_last_success_is_remembered(self):
        last = self.write(1, outcome="right")["lastSuccessAt"]
        self.assertTrue(last)
        for number in (2, 3):
            latest = self.write(number, problems=["x"])
            self.assertEqual((latest["ok"], latest["lastSuccessAt"]), (False, last))
        names = sorted(os.listdir(self.reports.directory))
        times = [f"2026-11-22T03:00:0{number}Z.{kind}" for number in (2, 3) for kind in ("json", "txt")]
        self.assertEqual(names, [*times, "latest.json", "latest.txt"])
        self.assertEqual(os.stat(f"{self.reports.directory}/latest.json").st_mode & 0o777, 0o600)

    def test_the_page_is_for_people(self):
        made = report(
            outcome="right", archive="t-2026-11-22T02:00:00Z", archiveAgeSeconds=3600, fetchSeconds=2.0,
            sizes={"files": 109, "bytes": 2_800_000}, image="cht-couchdb:4", lastSuccessAt=NOW,
            counts={"medic": 419, "_users": 3}, checked=["files: all"], notes=["a note"],
        )  # fmt: skip
        text = reports.page(made)
        self.assertTrue(text.startswith("Restore drill of the CHT deployment t: RIGHT\n"))
        for words in (
            "1 h 0 min old",
            "109 files, 2.8 MB",
            "cht-couchdb:4",
            "- files: all",
            "- a note",
            "all together",
        ):
            self.assertIn(words, text)
        self.assertRegex(text, r"medic +419\n")
        self.assertRegex(text, r"all together +422\n")
        self.assertNotIn("What is wrong", text)

    def test_the_page_of_a_failure_begins_with_what_it_means(self):
        text = reports.page(report(outcome="wrong", problems=["\x1b[2Jx\nWhat was checked and is right"]))
        self.assertIn("  - \\x1b[2Jx\\nWhat was checked and is right\n", text)
        text = reports.page(report(outcome="wrong", stage="verifying the files", problems=["x.couch: missing"]))
        self.assertRegex(text, r"^Restore drill .*: WRONG\n.*\n\nA restore .* NOT .*\n\nWhat is wrong\n  - x.couch")
        text = reports.page(report(stage="getting ready", problems=["no disk"], log=["dying"]))
        self.assertRegex(text, r"(?s)FAILED \(impossible\).*NOT known whether.*How far it came\n  getting ready")
        self.assertIn("  | dying\n", text)
        self.assertIn("No drill has succeeded yet", text)

    def settle(self):
        docker = mock.Mock(stopped=None, run=lambda *words: "")
        with mock.patch.object(tidy, "Docker", lambda: docker):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                return tidy.settle(self.settings, self.reports), said.getvalue()

    def test_a_drill_that_was_killed_is_reported_and_its_files_are_removed(self):
        scratch = drill_scratch.Scratch(self.settings)
        scratch.make()
        Path(f"{scratch.path}/copy").mkdir()
        self.reports.mark(report(stage="fetching the archive", beganAt=time.time()))
        interrupted, said = self.settle()
        self.assertTrue(interrupted)
        self.assertIn("fetching the archive", said)
        self.assertEqual(os.listdir(self.settings["scratch"]), [])
        latest = self.reports.latest()
        self.assertEqual((latest["ok"], latest["outcome"]), (False, "interrupted"))
        self.assertIn("the drill was killed, or the machine restarted", latest["problems"][0])
        self.assertEqual(self.settle(), (False, ""))

    def test_one_that_was_killed_after_its_report_is_not_reported_again(self):
        self.write(1, outcome="right")
        self.reports.mark(report(began="2026-11-22T03:00:01Z"))
        self.assertEqual(self.settle(), (False, ""))
        self.assertTrue(self.reports.latest()["ok"])
        self.assertIsNone(self.reports.running())


class ScratchDirectory(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        (self.top / "precious").write_text("mine")
        self.scratch = drill_scratch.Scratch({**SETTINGS, "scratch": scratch.name})

    def test_only_what_a_drill_made_is_removed(self):
        self.scratch.make()
        Path(self.scratch.copy).mkdir()
        Path(self.scratch.path, "repository.fetched.json").touch()
        self.scratch.remove()
        self.assertEqual([path.name for path in self.top.iterdir()], ["precious"])

    def test_what_has_its_name_but_not_its_mark_is_refused(self):
        place = Path(self.scratch.path)
        place.mkdir()
        (place / "mine").touch()
        for action in (self.scratch.remove, self.scratch.make):
            with self.assertRaisesRegex(errors.Refused, "no mark of a drill"):
                action()
        self.assertTrue((place / "mine").exists())

    def test_a_link_is_refused_and_not_followed(self):
        (self.top / "other").mkdir()
        (self.top / "other" / drill_scratch.MARKER).touch()
        os.symlink(self.top / "other", self.scratch.path)
        with self.assertRaisesRegex(errors.Refused, "isn't a directory that a drill made"):
            self.scratch.remove()
        self.assertTrue((self.top / "other" / drill_scratch.MARKER).exists())

    def test_killed_before_it_left_its_mark(self):
        Path(self.scratch.path).mkdir()
        self.scratch.make()
        self.assertTrue(Path(self.scratch.path, drill_scratch.MARKER).exists())

    def test_a_disk_that_is_not_mounted(self):
        scratch = drill_scratch.Scratch({**SETTINGS, "scratch": f"{self.top}/disk/drill"})
        with self.assertRaisesRegex(errors.Refused, "is its disk mounted"):
            scratch.make()


class Settings(unittest.TestCase):
    def refusal(self, **changes):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "drill.json")
            Path(path).write_text(json.dumps({**SETTINGS, **changes}))
            try:
                drill_settings.read_settings(path)
            except errors.Refused as error:
                return str(error).removeprefix(f"{path}: ")

    def test_a_wrong_setting_is_one_line_with_its_name(self):
        self.assertIsNone(self.refusal())
        self.assertIsNone(self.refusal(scratchGibibytes=0.5, image="i@sha256:0"))
        for name, value in (
            ("deployment", "../x"), ("repository", ""), ("scratch", "/a/../b"), ("scratch", "x"), ("keep", 0),
            ("keep", True), ("overdueAfterDays", 0), ("network", "a b"), ("image", ""),
            ("memoryMebibytes", "2g"), ("cpus", 0), ("scratchGibibytes", -1), ("scratch", "/"),
        ):  # fmt: skip
            self.assertRegex(self.refusal(**{name: value}) or "", f"^{name} must be ")
        self.assertIn("must not be below /tmp", self.refusal(scratch="/var/tmp/x"))

    def test_the_archive_is_the_newest_that_was_finished(self):
        kept = findings.Findings(report(beganAt=1_795_312_800), mock.Mock(), [])
        ledger = kept.reports.ledger.return_value
        ledger.compare.return_value = None
        borg = mock.Mock()
        names = [f"t-2026-11-{day}T02:00:00Z" for day in (20, 21, 22)]
        borg.names.return_value = [*names, "t-2999-01-01T00:00:00Z"]

        borg.ids = {name: name for name in names}

        def manifests(name):
            places = {"couchdb": [], "composeFiles": [], "environment": None, "volumes": {}}
            of = {"time": name[2:], "host": "h", "problems": [], "places": places, "files": {}}
            of["format"] = manifest.FORMAT
            return of, (None if "22T" in name else {})

        borg.manifests = manifests
        clock = mock.patch.object(choose.time, "time", return_value=1_795_312_800)

        def chosen():
            drill_archive.check_archive(choose.choose(borg, {}, kept), borg, SETTINGS, kept)

        with clock, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            chosen()
            self.assertEqual(kept.report["archive"], names[1])
            self.assertIn(f"{names[2]} is unfinished", kept.report["notes"][0])
            self.assertEqual(len(kept.report["problems"]), 1)
            self.assertIn("t-2999-01-01T00:00:00Z is dated in the future", kept.report["problems"].pop())
            kept.report["beganAt"] += 9 * 86400
            chosen()
        self.assertIn("9 days are allowed: backups have stopped", kept.report["problems"][1])
        ledger.compare.return_value = "an archive is gone"
        with clock, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            chosen()
        self.assertIn("an archive is gone", kept.report["problems"])


class Alerts(unittest.TestCase):
    def describe(self, latest, units):
        names = {f"cht-drill-t{part}.service": of for part, of in units.items()}
        seen = {"finishedAt": NOW, "late": True, "doubts": []}
        return alert_describe.describe_drill("t", "cht", latest, names, NOW - 1000, seen)

    def failed(self, at, result="exit-code"):
        began = str(at * 1_000_000)
        return {"ActiveState": "failed", "Result": result, "ExecMainStartTimestampMonotonic": began}

    def test_it_says_what_the_report_says(self):
        latest = report(problems=["x.couch: missing"], archive="t-1", lastSuccessAt=NOW - 86400)
        title, text = self.describe(latest, {"": self.failed(940), "-overdue": {}})
        self.assertEqual(title, "CHT restore drill t failed on cht")
        self.assertRegex(
            text, r"^archive t-1 \(2026-11-22T03:01:00Z\): x.couch: missing. The last good one ended at 2026"
        )

    def test_an_older_report_is_not_taken_for_that_of_a_drill_that_could_not_start(self):
        latest = report(problems=["old"], finishedAt=NOW - 500)
        text = self.describe(latest, {"": self.failed(940)})[1]
        self.assertIn("see: journalctl -u cht-drill-t", text)
        self.assertNotIn("old", text)
        self.assertIn("No drill has succeeded so far", self.describe(None, {"": self.failed(940, "timeout")})[1])

    def test_after_a_restart_it_says_interrupted(self):
        latest = report(problems=["interrupted at the stage"], finishedAt=NOW)
        text = self.describe(latest, {"": {}, "-cleanup": self.failed(990)})[1]
        self.assertIn("no archive was restored (2026-11-22T03:01:00Z): interrupted", text)

    def test_overdue_is_said_when_that_failed_last(self):
        units = {"": self.failed(100), "-overdue": self.failed(900)}
        title, text = self.describe(report(problems=["disk full"]), units)
        self.assertEqual(title, "CHT restore drill t is overdue on cht")
        self.assertRegex(text, "No drill has succeeded so far. The latest drill failed .*disk full")
        self.assertIn("failed on", self.describe(None, {**units, "": self.failed(950)})[0])


if __name__ == "__main__":
    unittest.main()
