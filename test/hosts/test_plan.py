import os
import socket
import tempfile
import unittest
from pathlib import Path

from fixture import couchdb

from chtbackup.backup import plan, report
from chtbackup.couchdb import order


class DataDirectories(unittest.TestCase):
    def test_the_setting_wins_over_the_containers_and_those_over_env(self):
        env = {"COUCHDB_DATA": "/srv/couchdb/"}
        self.assertEqual(plan.data_directories(["/a"], env, ["/m"]), ["/a"])
        self.assertEqual(plan.data_directories([], env, ["/m"]), ["/m"])
        self.assertEqual(plan.data_directories([], env, []), ["/srv/couchdb"])
        self.assertEqual(plan.data_directories([], {}, ["/m"]), ["/m"])

    def test_every_node_of_a_cluster_is_taken_in_order(self):
        env = {f"DB{number}_DATA": f"/srv/couchdb{number}" for number in (10, 2, 1)}
        self.assertEqual(plan.data_directories([], env, []), ["/srv/couchdb1", "/srv/couchdb2", "/srv/couchdb10"])

    def test_a_relative_path_is_not_guessed(self):
        self.assertEqual(plan.data_directories([], {"COUCHDB_DATA": "./srv"}, ["/home/x/srv"]), ["/home/x/srv"])
        self.assertEqual(plan.data_directories([], {"COUCHDB_DATA": "./srv"}, []), [])


class Order(unittest.TestCase):
    def setUp(self):
        self.scratch, self.data = couchdb()
        self.addCleanup(self.scratch.cleanup)

    def order(self):
        tree = plan.walk(str(self.data), [order.LEFT_OUT])
        return [path.removeprefix(f"{self.data}") for path in order.copied_in_order({str(self.data): tree.paths})]

    def test_views_then_sentinel_then_others_then_medic(self):
        files = [path for path in self.order() if path.endswith((".couch", ".view"))]
        kinds = []
        for path in files:
            name = path.rsplit("/", 1)[1].split(".")[0]
            kind = "view" if path.endswith(".view") else name if name in ("medic-sentinel", "medic") else "other"
            kind = "node" if path.count("/") == 1 else kind
            if not kinds or kinds[-1] != kind:
                kinds.append(kind)
        self.assertEqual(kinds, ["view", "node", "medic-sentinel", "other", "medic"])

    def test_everything_is_there_once_and_directories_come_before_what_they_hold(self):
        order = self.order()
        self.assertEqual(len(order), len(set(order)))
        self.assertEqual(len(order), 1 + sum(len(folders) + len(files) for _, folders, files in os.walk(self.data)))
        for place, path in enumerate(order):
            parent = path.rpartition("/")[0]
            if path:
                self.assertIn(parent, order[:place])

    def test_the_order_holds_across_the_nodes_of_a_cluster(self):
        medic, sentinel = (f"shards/00000000-ffffffff/{name}.1.couch" for name in ("medic", "medic-sentinel"))
        nodes = {node: ["", medic, sentinel] for node in ("/a", "/b")}
        self.assertEqual(
            [path for path in order.copied_in_order(nodes) if path.endswith(".couch")],
            [f"/a/{sentinel}", f"/b/{sentinel}", f"/a/{medic}", f"/b/{medic}"],
        )

    def test_nouveau_and_unfinished_compactions_are_left_out_but_a_finished_one_is_kept(self):
        (self.data / "nouveau").mkdir()
        (self.data / "nouveau" / "index").write_text("x")
        folder = self.data / "shards" / "00000000-15555554"
        for name in ("medic.1.couch.compact.data", "medic.1.couch.compact.meta", "medic.1.couch.compact"):
            (folder / name).write_text("x")
        names = {path.rsplit("/", 1)[-1] for path in self.order()}
        self.assertIn("medic.1.couch.compact", names)
        self.assertFalse(names & {"nouveau", "index", "medic.1.couch.compact.data", "medic.1.couch.compact.meta"})

    def test_a_socket_is_passed_over_and_links_are_kept_as_links(self):
        with tempfile.TemporaryDirectory() as folder:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(f"{folder}/socket")
                os.symlink("/nowhere", f"{folder}/link")
                Path(folder, "file").write_text("abc")
                tree = plan.walk(folder)
        self.assertEqual((tree.paths, tree.sizes), (["", "file", "link"], {"file": 3}))


class Versions(unittest.TestCase):
    def test_chts_version_is_the_tag_of_its_images(self):
        images = {
            "api": "public.ecr.aws/medic/cht-api:4.21.1",
            "nginx": "public.ecr.aws/medic/cht-nginx:4.0.0",
        }
        self.assertEqual(plan.cht_version(images), "4.21.1")
        self.assertEqual(plan.cht_version({"nginx": "reg:5000/medic/cht-nginx:5.0.0@sha256:ab"}), "5.0.0")
        self.assertIsNone(plan.cht_version({"couchdb": "couchdb:3.5", "other": "cht-backup-lab:1"}))


class Metrics(unittest.TestCase):
    def test_the_text_is_in_prometheus_format(self):
        result = {
            "deployment": "lab", "startedAt": 100, "finishedAt": 160, "ok": True, "exitCode": 0,
            "originalSize": 5, "compressedSize": None, "deduplicatedSize": 1, "files": 9,
        }  # fmt: skip
        lines = report.metrics(result, 160).splitlines()
        self.assertIn('cht_backup_last_run_duration_seconds{deployment="lab"} 60', lines)
        self.assertIn('cht_backup_last_success_timestamp_seconds{deployment="lab"} 160', lines)
        self.assertFalse([line for line in lines if "compressed_bytes{" in line])
        for line in lines:
            self.assertRegex(line, r'^(# (HELP|TYPE) cht_backup_\w+ .+|cht_backup_\w+\{deployment="lab"\} \d+)$')


if __name__ == "__main__":
    unittest.main()
