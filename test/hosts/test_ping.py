"""Calls to a service outside: what is said, and that neither a run nor the address suffers whatever happens there."""

import contextlib
import http.server
import io
import json
import os
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401 (puts the package on the path)

from chtbackup.watch import ping


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802 (http.server's name)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append((self.path, body))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        pass


class Ping(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        self.server.got, self.server.answer = [], 200
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.pings = self.folder / "pings.json"
        address = f"http://127.0.0.1:{self.server.server_port}/hunter2"
        self.pings.write_text(json.dumps({"backup": address, "copy": address}))
        reports = {what: f"{self.folder}/{{}}-{what}.json" for what in ping.REPORTS}
        for patch in (mock.patch.object(ping, "REPORTS", reports), mock.patch.object(ping, "PAUSE", 0)):
            patch.start()
            self.addCleanup(patch.stop)

    def call(self, when, what="backup", result="success", report=None):
        """What it says; the exit code must be 0, and the address nowhere."""
        if report is not None:
            now = round(time.time())
            content = {"startedAt": now - 90, "finishedAt": now, **report}
            (self.folder / f"moh-{what}.json").write_text(json.dumps(content))
        said = io.StringIO()
        with (
            mock.patch.dict(os.environ, SERVICE_RESULT=result),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(said),
        ):
            self.assertEqual(ping.main([when, what, "moh", str(self.pings)]), 0)
        self.assertNotIn("hunter2", said.getvalue())
        return said.getvalue()

    def test_a_start_and_a_success_with_its_figures(self):
        self.assertEqual(self.call("start"), "")
        self.call("end", report={"originalSize": 20_000_000_000, "deduplicatedSize": 7_000_000, "problems": []})
        body = "size 20,000.0 MB, new 7.0 MB, took 90 s"
        self.assertEqual(self.server.got, [("/hunter2/start", ""), ("/hunter2", body)])

    def test_a_failure_with_its_reason(self):
        self.call("end", result="exit-code", report={"problems": ["Connection refused", "no archive"]})
        self.assertEqual(self.server.got, [("/hunter2/fail", "Connection refused; no archive")])

    def test_a_run_that_was_killed_says_nothing_of_the_one_before(self):
        self.call("end", result="timeout", report={"finishedAt": time.time() - 9000, "problems": ["of yesterday"]})
        self.assertEqual(self.server.got, [("/hunter2/fail", "the unit ended with timeout")])

    def test_a_copy_that_only_waited_is_no_success(self):
        self.call("end", "copy", report={"outcome": "busy", "problems": []})
        self.assertEqual([path for path, _ in self.server.got], ["/hunter2/log"])

    def test_a_long_reason_is_cut_at_a_whole_character(self):
        self.call("end", result="exit-code", report={"problems": ["ä" * 9_000]})
        self.assertEqual(self.server.got[0][1], "ä" * 2_500)

    def test_nobody_is_called_where_nobody_is_named(self):
        self.call("end", "drill")
        self.pings.unlink()
        self.assertEqual(self.call("end"), "")
        self.assertEqual(self.server.got, [])

    def test_a_service_that_refuses_is_asked_twice_and_the_run_goes_on(self):
        self.server.answer = 500
        self.assertIn("it answers 500", self.call("start"))
        self.assertEqual(len(self.server.got), 2)

    def test_a_service_that_is_gone_or_an_address_that_is_none_does_no_harm(self):
        for text in ('{"backup": "http://127.0.0.1:1/hunter2"}', '{"backup": "hunter2"}', "[]", "{"):
            self.pings.write_text(text)
            self.assertIn("wasn't reached", self.call("start"))

    def test_a_service_that_says_nothing_is_given_up(self):
        with mock.patch.object(ping, "LIMIT", 0.2), mock.patch.object(Service, "do_POST", lambda _self: time.sleep(9)):
            began = time.monotonic()
            self.assertIn("wasn't reached", self.call("start"))
        self.assertLess(time.monotonic() - began, 8)


if __name__ == "__main__":
    unittest.main()
