import contextlib
import io
import json
import sys
import tempfile
import threading
import unittest
import urllib.request
from http.server import ThreadingHTTPServer
from unittest import mock

from fixture import ROOT, SERVER, couchdb

from chtbackup.couchdb import http as couch_server
from chtbackup.couchdb import scan as couch_scan
from chtbackup.drill import findings, reading, reports
from chtbackup.manifest import write as manifest
from chtbackup.restore import choose, running, secrets

sys.path.insert(0, str(ROOT / "lab" / "images" / "couchdb" / "stand-in"))
import documents  # noqa: E402

import server as stand_in  # noqa: E402

COUNTS = {name: of["doc_count"] for name, of in SERVER["databases"].items()}
PASSWORD = "drill test"


class ARunningCouchDB(unittest.TestCase):
    """The lab's stand-in, on files of a real CouchDB."""

    def setUp(self):
        self.scratch, self.data = couchdb()
        self.addCleanup(self.scratch.cleanup)
        credentials = self.data.parent / "cluster-credentials.ini"
        credentials.write_text(f"[admins]\nmedic = {PASSWORD}\n")
        for name, value in (("DATA", str(self.data)), ("CREDENTIALS", str(credentials)), ("ITERATIONS", 1),
                            ("databases", stand_in.Databases()), ("login", stand_in.Login())):  # fmt: skip
            patch = mock.patch.object(stand_in, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        stand_in.write_credentials()
        self.assertNotIn(PASSWORD, credentials.read_text())
        silent = mock.patch.object(stand_in.Handler, "log_message", lambda *_: None)
        silent.start()
        self.addCleanup(silent.stop)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), stand_in.Handler)
        self.addCleanup(self.http.server_close)
        self.addCleanup(self.http.shutdown)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.server = couch_server.Server("127.0.0.1", "medic", PASSWORD, self.http.server_port)

    def read(self, position=None, failed=(), **options):
        made = reading.Reading(self.server, COUNTS, position or {}, lambda: None, list(failed), **options)
        made.run()
        return made

    def find(self, wanted, database="medic"):
        """A document for which something holds: its id, its file, and where its body is in that."""
        for path in sorted(self.data.glob(f"shards/*/{database}.*.couch")):
            for id, trees in documents.File(str(path)).documents():
                document = documents.Document(str(path), id, trees)
                if wanted(document):
                    return document, path
        raise LookupError("no such document")

    def flip(self, path, position):
        content = bytearray(path.read_bytes())
        content[position] ^= 0x55
        path.write_bytes(content)


class Documents(ARunningCouchDB):
    def test_a_drill_reads_every_document_and_attachment_of_an_archive_that_is_right(self):
        made = self.read()
        self.assertEqual(made.problems(), [])
        self.assertEqual((made.documents, made.attachments), (sum(COUNTS.values()), 40))
        self.assertRegex(made.told(), r"^documents: 863 of 863 were read by CouchDB with 40 attachments, [\d.]+ MB$")

    def test_a_byte_that_changed_in_a_document_is_named_although_all_counts_are_right(self):
        document, path = self.find(lambda of: True)
        self.flip(path, document.value[1] + 40)
        self.assertEqual(couch_scan.scan(str(self.data))["problems"], [])
        counts = manifest.counts_of(couch_scan.scan(str(self.data))["databases"])
        self.assertEqual({name: of["documents"] for name, of in counts.items()}, COUNTS)
        made = self.read()
        self.assertEqual(made.bad, [f"medic: the document {document.id} can't be read (it answers 500)"])
        self.assertEqual(made.documents, 863, "all others are read all the same")
        self.assertEqual(made.failed, [("medic", document.id)])

    def test_a_byte_that_changed_in_an_attachment_is_named(self):
        document, path = self.find(lambda of: "_attachments" in of.json())
        with open(path, "rb") as file:
            ((_name, _kind, at, *_rest),) = document._stored(file)[1][:1]
        self.flip(path, (at[0][0] if isinstance(at[0], tuple) else at[0]) + 30)
        made = self.read()
        self.assertEqual(len(made.bad), 1)
        self.assertRegex(made.bad[0], rf"^medic: the attachment .+ of the document {document.id} can't be read")
        self.assertIn("so this was damaged before", made.problems()[1])

    def test_what_a_server_gives_back_changed_is_noticed_by_its_checksum(self):
        given = stand_in.Document.attachment

        def changed(document, name):
            kind, encoding, content = given(document, name)
            return kind, encoding, content[:-1] + b"?"

        with mock.patch.object(stand_in.Document, "attachment", changed):
            made = self.read()
        self.assertEqual(len(made.bad), 39, "one document has two")
        self.assertIn("its content is not what was stored", made.bad[0])
        self.assertIn("29 more can't be read either", made.problems())

    def test_a_damaged_list_of_documents_is_named_and_the_other_databases_are_read(self):
        path = next(iter(sorted(self.data.glob("shards/*/medic-sentinel.*.couch"))))
        self.flip(path, documents.File(str(path)).root + 30)
        made = self.read()
        self.assertEqual(made.bad, ["medic-sentinel: its list of documents can't be read (it answers 500)"])
        self.assertEqual(made.documents, sum(COUNTS.values()) - COUNTS["medic-sentinel"])

    def test_in_portions_each_document_is_read_once_in_so_many_drills(self):
        position, seen, given = {}, [], stand_in.Document.json
        with (
            mock.patch.object(reading, "LEAST", 100),
            mock.patch.object(stand_in.Document, "json", lambda of, _: seen.append((of.path, of.id)) or given(of)),
            mock.patch.object(reading, "BATCH", 30),
        ):
            made = self.read()
            self.assertEqual(made.documents, 108)
            self.assertIn("each is read once in 8 drills", made.told())
            for _ in range(7):
                position = made.position
                made = self.read(position)
                self.assertEqual((made.documents, made.bad), (108, []))
        self.assertEqual(len(set(seen)), 863)

    def test_when_the_time_is_over_it_ends_and_the_next_goes_on(self):
        made = self.read(seconds=0)
        self.assertEqual(made.documents, 1)
        self.assertEqual((made.bad, made.late), ([], True))
        self.assertEqual(self.read(made.position).bad, [])

    def test_what_could_not_be_read_is_tried_first_in_each_drill_until_it_can_or_is_deleted(self):
        document, path = self.find(lambda of: True)
        whole = path.read_bytes()
        self.flip(path, document.value[1] + 40)
        bad = ("medic", document.id)
        elsewhere = {"database": "medic-users-meta", "after": ""}
        with mock.patch.object(reading, "LEAST", 1), mock.patch.object(reading, "DRILLS", 863):
            made = self.read(elsewhere, [bad, ("medic", "deleted since"), ("deleted", "too")])
            self.assertEqual((made.documents, made.failed, len(made.bad)), (1, [bad], 1))
            path.write_bytes(whole)
            self.assertEqual(self.read(elsewhere, [bad]).failed, [])

    def test_a_server_that_dies_meanwhile_is_the_cause_and_not_every_document(self):
        self.http.shutdown()
        self.http.server_close()
        made = reading.Reading(self.server, COUNTS, {}, lambda: "needed more memory", [])
        with self.assertRaisesRegex(reading.Died, "needed more memory"):
            made.run()

    def test_a_server_that_lists_less_than_it_counts_is_wrong(self):
        made = reading.Reading(self.server, {**COUNTS, "medic": 500}, {}, lambda: None, [])
        made.run()
        self.assertEqual(made.bad, ["CouchDB lists only 863 of 944 documents"])

    def drill(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        kept = findings.Findings(reports.new_report("t"), reports.Reports(folder.name), [])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            reading.read_portion(self.server, COUNTS, lambda: None, "r", kept)
        return kept

    def test_a_drill_with_a_document_that_cannot_be_read_is_wrong_and_remembers_it(self):
        document, path = self.find(lambda of: True)
        self.flip(path, document.value[1] + 40)
        made = self.drill()
        self.assertIn(document.id, made.report["problems"][0])
        self.assertEqual(made.report["checked"], [])
        known = made.reports.reading("r")
        self.assertEqual(known["failed"], [["medic", document.id]])
        self.assertEqual(known["position"]["database"], "medic-users-meta")
        self.assertEqual(made.reports.reading("another"), {"position": {}, "failed": []})


class AnotherNode(ARunningCouchDB):
    def setUp(self):
        super().setUp()
        patch = mock.patch.object(stand_in, "node", "nonode@nohost")
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_couchdb_under_another_name_than_its_datas_is_told_with_how_to_mend_it(self):
        text = couch_server.of_another_node(self.server, list(COUNTS))
        self.assertIn("runs as nonode@nohost, but the data belongs to couchdb@127.0.0.1", text)
        self.assertIn("NODENAME=127.0.0.1", text)
        with mock.patch.object(stand_in, "node", "couchdb@127.0.0.1"):
            self.assertIsNone(couch_server.of_another_node(self.server, list(COUNTS)))

    def test_restore_and_drill_say_so_at_once(self):
        archive = choose.Archive("t-1", "1", {"places": {"couchdb": ["/d"], "volumes": {}}}, {})
        env = self.data.parent / ".env"
        env.write_text(f"COUCHDB_USER=medic\nCOUCHDB_PASSWORD={PASSWORD}\n")
        port = self.http.server_port

        class Opener:
            def __init__(self, real):
                self.real = real

            def open(self, request, timeout):
                request.full_url = request.full_url.replace(":5984", f":{port}")
                return self.real.open(request, timeout=timeout)

        real = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with (
            mock.patch.object(running, "address", lambda *_: "127.0.0.1"),
            mock.patch.object(urllib.request, "build_opener", lambda *_: Opener(real)),
        ):
            counts = {name: {"documents": of, "deleted": 0, "updateSequence": 0} for name, of in COUNTS.items()}
            answer = running.ask_database("cht", archive, counts, str(env), lambda: None, mock.Mock())
            (problem,) = answer.problems
        self.assertIn("the data belongs to couchdb@127.0.0.1", problem)


class WhatBecameOfAContainer(unittest.TestCase):
    CONTAINER = {
        "Id": "1", "Name": "/cht-couchdb-1", "RestartCount": 7,
        "State": {"Status": "restarting", "ExitCode": 126},
        "Config": {"Env": ["COUCHDB_PASSWORD=secret word", "A=b"]},
    }  # fmt: skip

    def test_its_state_and_its_last_line_are_told_without_its_passwords(self):
        line = secrets.scrub("first\ncan't open secret word", secrets.environment_of(self.CONTAINER))
        self.assertEqual(
            secrets.became(self.CONTAINER, line),
            "its container cht-couchdb-1 is restarting, last exit code 126, started 8 times,"
            ' its last line: "can\'t open ***"',
        )
        running = {**self.CONTAINER, "RestartCount": 0, "State": {"Status": "running", "ExitCode": 0}}
        self.assertEqual(secrets.became(running, ""), "its container cht-couchdb-1 is running")

    def test_a_restore_does_not_wait_for_a_database_that_never_starts(self):
        docker = mock.Mock(containers=lambda _: [{"id": "1", "service": "couchdb"}])
        docker.run.return_value = json.dumps([self.CONTAINER])
        said = mock.Mock(stdout="exec /cht-entrypoint.sh: permission denied\n")
        with (
            mock.patch.object(running, "Docker", lambda: docker),
            mock.patch.object(running.subprocess, "run", return_value=said),
        ):
            self.assertIn(
                'exit code 126, started 8 times, its last line: "exec /cht-entrypoint.sh: perm',
                running.never_starts("cht"),
            )
            runs = {"State": {"Status": "running", "ExitCode": 0}}
            for changes in ({"RestartCount": 1}, runs):
                docker.run.return_value = json.dumps([{**self.CONTAINER, **changes}])
                self.assertIsNone(running.never_starts("cht"))


if __name__ == "__main__":
    unittest.main()
