"""What the watch asks over a network: real sockets, a real TLS server, each answer within its limit."""

import calendar
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401 (puts the package on the path)

from chtbackup.watch import probes


class Server(unittest.TestCase):
    def listen(self, serve):
        """The port of a server that does `serve` with each connection."""
        there = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(there.close)

        def loop():
            while True:
                try:
                    connection, _ = there.accept()
                    with connection:
                        serve(connection)
                except OSError:
                    if there.fileno() == -1:
                        return

        threading.Thread(target=loop, daemon=True).start()
        return there.getsockname()[1]

    def look(self, port, known=None):
        place = {"address": "127.0.0.1", "port": port, "knownHosts": "/nowhere"}
        with mock.patch.object(probes, "is_known", lambda _place: known):
            return probes.server(place, 1_800_000_000)

    def test_answers_as_ssh_does(self):
        found = self.look(self.listen(lambda of: of.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")), known=True)
        self.assertEqual((found["answers"], found["known"]), (True, True))

    def test_what_isnt_ssh_is_no_answer(self):
        found = self.look(self.listen(lambda of: of.sendall(b"HTTP/1.1 400 Bad Request\r\n")))
        self.assertEqual((found["answers"], found["reason"]), (False, "what answers there isn't SSH"))

    def test_one_that_keeps_us_away_for_a_while_is_asked_again(self):
        said = iter((b"Not allowed at this time\r\n", b"SSH-2.0-OpenSSH_10.0\r\n"))
        with mock.patch.object(probes, "AWAY", 0):
            found = self.look(self.listen(lambda of: of.sendall(next(said))), known=None)
        self.assertTrue(found["answers"])

    def test_nobody_there_is_said_with_the_systems_words(self):
        with socket.create_server(("127.0.0.1", 0)) as there:
            port = there.getsockname()[1]
        found = self.look(port)
        self.assertEqual((found["answers"], found["reason"]), (False, "Connection refused"))

    def test_one_that_says_nothing_is_given_up(self):
        began = time.monotonic()
        with mock.patch.object(probes, "LIMIT", 0.3):
            found = self.look(self.listen(lambda _of: time.sleep(30)))
        self.assertFalse(found["answers"])
        self.assertLess(time.monotonic() - began, 20)

    def test_whose_key_cant_be_read_is_not_called_another(self):
        place = {"address": "127.0.0.1", "port": 1, "knownHosts": "/nowhere"}
        self.assertIsNone(probes.is_known(place))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("offsite ssh-ed25519 AAAA\n")
            file.flush()
            self.assertIsNone(probes.is_known({**place, "knownHosts": file.name}))


class Keys(unittest.TestCase):
    """By `ssh-keyscan`'s own output, as OpenSSH prints it."""

    def known(self, shown):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("offsite ssh-ed25519 AAAAours\n")
            file.flush()
            place = {"address": "backup.example.org", "port": 2222, "knownHosts": file.name}
            done = subprocess.CompletedProcess([], 0, stdout=shown)
            with mock.patch("subprocess.run", return_value=done) as run:
                found = probes.is_known(place)
            self.assertEqual(run.call_args.args[0][3:], ["-t", "ed25519", "-p", "2222", "--", "backup.example.org"])
            return found

    def test_the_pinned_one_is_known_and_another_isnt(self):
        comment = "# backup.example.org:2222 SSH-2.0-OpenSSH_9.2\n"
        self.assertIs(self.known(f"{comment}[backup.example.org]:2222 ssh-ed25519 AAAAours\n"), True)
        self.assertIs(self.known(f"{comment}[backup.example.org]:2222 ssh-ed25519 AAAAother\n"), False)
        self.assertIsNone(self.known(comment))


class Accepted(unittest.TestCase):
    """By what ssh(1) says and how it ends; test/e2e/told.test.ts has a real server."""

    def accepts(self, code, said):
        done = subprocess.CompletedProcess([], code, stderr=said)
        with mock.patch("subprocess.run", return_value=done) as run:
            found = probes.accepts({"address": "x", "port": 22, "knownHosts": "/etc/cht-backup/moh/known_hosts"})
        self.assertEqual(run.call_args.args[0][:3], ["ssh", "-F", "/etc/cht-backup/moh/ssh_config"])
        return found

    def test_a_key_that_is_refused_is_told_from_a_server_that_ends_the_session(self):
        self.assertIs(self.accepts(0, ""), True)
        self.assertIs(self.accepts(2, "the guard has settings that it can't read\n"), True)
        self.assertIs(self.accepts(255, "cht-backup-moh@x: Permission denied (publickey).\n"), False)
        self.assertIsNone(self.accepts(255, "kex_exchange_identification: Connection closed by remote host\n"))

    def test_no_answer_in_time_is_none(self):
        with mock.patch("subprocess.run", side_effect=subprocess.TimeoutExpired("ssh", 20)):
            self.assertIsNone(probes.accepts({"knownHosts": "/nowhere"}))


class Login(unittest.TestCase):
    """By the journal's answers; test/e2e/drill-machine.test.ts has a real one."""

    KEY = "SHA256:" + 21 * "a+" + "/"

    def last(self, said, keys=(KEY,)):
        done = subprocess.CompletedProcess([], 0, stdout=said)
        with mock.patch("subprocess.run", return_value=done) as self.run:
            return probes.last_login(list(keys), 1_800_000_000)

    def test_of_a_key_is_the_newest_that_sshd_has_noted(self):
        said = "Accepted publickey for cht from 192.0.2.7 port 9 ssh2: ED25519"
        self.assertEqual(self.last(f"1799999000.731 server sshd-session[9]: {said} {self.KEY}\n"), 1799999001)
        [grep] = [word for word in self.run.call_args.args[0] if word.startswith("--grep=")]
        message = f"Accepted publickey for cht-backup-moh from 192.0.2.7 port 40404 ssh2: ED25519 {self.KEY}"
        self.assertRegex(message, grep.removeprefix("--grep="))
        self.assertNotRegex(message.replace("a+a", "aaa"), grep.removeprefix("--grep="))

    def test_is_unknown_where_there_is_no_key_or_no_message(self):
        self.assertIsNone(self.last(""))
        self.assertIsNone(self.last("1799999000.7 x", keys=()))
        self.assertIsNone(self.last("what isn't a time"))

    def test_is_remembered_when_the_journal_has_forgotten_it(self):
        settings = {"drillLogin": {"fingerprints": [self.KEY]}, "server": None, "certificate": False}
        for seen, expected in ((None, 5), (7, 7)):
            with mock.patch.object(probes, "last_login", lambda _keys, _now, seen=seen: seen):
                self.assertEqual(probes.look(settings, {"drillSeenAt": 5}, 9), {"drillSeenAt": expected})


class Certificate(unittest.TestCase):
    def test_its_end_is_read_from_the_server_that_shows_it(self):
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder, name)) for name in ("key", "certificate")}
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=cht", "-days", "30",
                 "-keyout", files["key"], "-out", files["certificate"]],
                check=True, capture_output=True,
            )  # fmt: skip
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files["certificate"], files["key"])
            with socket.create_server(("127.0.0.1", 0)) as there:

                def serve():
                    connection, _ = there.accept()
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(1)

                threading.Thread(target=serve, daemon=True).start()
                ends = probes.certificate_ends(("127.0.0.1", there.getsockname()[1]))
        self.assertAlmostEqual(ends, calendar.timegm(time.gmtime()) + 30 * 86400, delta=600)

    def test_where_none_is_shown_nothing_is_known(self):
        self.assertIsNone(probes.certificate_ends(("127.0.0.1", 1)))


if __name__ == "__main__":
    unittest.main()
