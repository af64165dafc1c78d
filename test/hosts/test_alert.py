"""Alarms reach people: later where they can't at once, and with whatever is left of the machine's Python."""

import contextlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from pathlib import Path
from unittest import mock

import fixture

from chtbackup.alert import deliver as alert_deliver
from chtbackup.alert import program as alert
from chtbackup.alert import queue as alert_queue
from chtbackup.alert import tell as alert_tell

HOUR = 3600
FIRST, SECOND = "mailtos://user:hunter2@example.org", "json://cht:hunter2@example.org/"


class World:
    """A clock, a network, and a stand-in for apprise that sends by it."""

    def __init__(self):
        self.now = 1_800_000_000.0
        self.up = True
        self.pauses = []
        self.attempts = 0
        self.got = []
        self.good = []
        self.wrong = set()
        self.happens = lambda: None

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds
        self.happens()

    def deliver(self, address, title, text, good):
        self.attempts += 1
        if not self.up or address in self.wrong:
            return "was not delivered"
        self.got.append((address, title, text))
        self.good.append(good)
        return ""


class Later(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name, "alerts")
        self.queue = alert_queue.Queue(str(self.folder))
        self.world = World()
        self.addresses = [FIRST, SECOND]
        for patch in (
            mock.patch.object(alert_tell, "deliver", self.world.deliver),
            mock.patch("time.time", lambda: self.world.now),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.said = io.StringIO()
        out = contextlib.redirect_stdout(self.said)
        err = contextlib.redirect_stderr(self.said)
        for of in (out, err):
            of.__enter__()
            self.addCleanup(of.__exit__, None, None, None)

    def test_one_that_a_full_disk_keeps_out_is_sent_and_leaves_nothing_there(self):
        # Found by a campaign: each left an empty file with a name of its own.
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            self.assertEqual(
                alert.raise_alarm(self.queue, self.addresses, "failed", "the disk is full"), alert.DELIVERED
            )
        self.assertEqual(len(self.world.got), 2)
        self.assertEqual(os.listdir(self.folder), [])

    def raise_alarm(self, text="no backup was made (2027-01-15T02:00:00Z): no network", title="failed"):
        return alert.raise_alarm(self.queue, self.addresses, title, text)

    def keep_trying(self):
        alert.keep_trying(self.queue, lambda: self.addresses, self.world.sleep)

    def kept(self):
        return "".join(of.read_text() for of in sorted(self.folder.iterdir()))

    def test_an_alarm_of_a_night_without_a_network_arrives_when_the_network_is_back(self):
        world, began = self.world, self.world.now
        world.up = False
        self.assertEqual(self.raise_alarm(), alert_tell.UNDELIVERED)

        def happens():
            world.up = world.now >= began + HOUR

        world.happens = happens
        self.keep_trying()
        self.assertEqual([address for address, _, _ in world.got], [FIRST, SECOND])
        self.assertIn("no network", world.got[0][2])
        self.assertIn("(This happened at 2027-01-15T08:00:00Z, and couldn't be sent until now.)", world.got[0][2])
        self.assertLessEqual(world.now, began + HOUR + 15 * 60, "it came too long after the network")
        self.assertLessEqual(world.attempts, 2 * 12, "it was tried too often")
        self.assertEqual(world.pauses, sorted(world.pauses), "it isn't tried more and more rarely")
        self.assertTrue(self.queue.empty())

    def test_an_alarm_that_is_delivered_at_once_leaves_nothing_and_comes_once(self):
        self.assertEqual(self.raise_alarm(), alert.DELIVERED)
        self.keep_trying()
        self.assertEqual(len(self.world.got), 2)
        self.assertEqual(self.world.got[0][2], "no backup was made (2027-01-15T02:00:00Z): no network")
        self.assertTrue(self.queue.empty())

    def test_an_all_clear_that_had_to_wait_is_still_good_news(self):
        self.world.up = False
        alert.raise_alarm(self.queue, [FIRST], "over", "the disk has room again", True)
        self.raise_alarm()
        self.world.up = True
        self.keep_trying()
        told = {(title, good) for (_, title, _), good in zip(self.world.got, self.world.good)}
        self.assertEqual(told, {("over", True), ("failed", False)})

    def test_whoever_has_been_told_isnt_told_again(self):
        self.world.wrong = {SECOND}
        self.assertEqual(self.raise_alarm(), alert_tell.UNDELIVERED)
        self.world.happens = self.world.wrong.clear
        self.keep_trying()
        self.assertEqual([address for address, _, _ in self.world.got], [FIRST, SECOND])

    def test_an_address_that_is_set_right_meanwhile_gets_it(self):
        self.addresses = ["mailto://wrong"]
        self.world.wrong = {"mailto://wrong"}
        self.raise_alarm()
        self.world.happens = lambda: self.addresses.__setitem__(0, FIRST)
        self.keep_trying()
        self.assertEqual([address for address, _, _ in self.world.got], [FIRST])

    def test_three_nights_of_the_same_are_one_message_in_the_newest_words(self):
        self.world.up = False
        for night in range(3):
            self.raise_alarm(f"no backup was made (2027-01-{15 + night}T02:00:00Z): no network")
            self.world.now += 24 * HOUR
        self.world.up = True
        self.keep_trying()
        [(_, _, text), _] = self.world.got
        self.assertIn("(2027-01-17T02:00:00Z)", text)
        self.assertIn("(It happened 3 times since 2027-01-15T08:00:00Z.)", text)

    def test_other_words_are_kept_beside_it(self):
        self.world.up = False
        for text in ("no network", "somebody has deleted archives", "no network"):
            self.raise_alarm(text)
            self.world.now += HOUR
        self.world.up = True
        self.addresses = [FIRST]
        self.keep_trying()
        texts = [text for _, _, text in self.world.got]
        self.assertEqual(len(texts), 2)
        self.assertTrue(texts[0].startswith("somebody has deleted archives"))
        self.assertTrue(texts[1].startswith("no network"))

    def test_however_many_come_the_newest_are_kept_and_the_disk_isnt_filled(self):
        self.world.up = False
        names = [chr(97 + of // 26) + chr(97 + of % 26) for of in range(60)]
        for name in names:
            self.raise_alarm(f"reason {name} {'x' * 100_000}")
            self.world.now += 60
        size = sum(of.stat().st_size for of in self.folder.iterdir())
        self.assertLess(size, 200_000)
        self.world.up = True
        self.addresses = [FIRST]
        self.keep_trying()
        self.assertEqual([text.split()[1] for _, _, text in self.world.got], names[-alert_queue.MOST :])
        self.assertIn("older alarms couldn't be kept", self.world.got[-1][2])

    def test_one_that_was_cut_off_while_it_was_sent_is_kept(self):
        def cut_off(*_):
            raise KeyboardInterrupt

        with mock.patch.object(alert_tell, "deliver", cut_off), self.assertRaises(KeyboardInterrupt):
            self.raise_alarm()
        self.keep_trying()
        self.assertEqual(len(self.world.got), 2)

    def test_an_address_that_never_takes_it_ends_after_a_week(self):
        self.world.wrong = {SECOND}
        self.raise_alarm()
        self.keep_trying()
        self.assertTrue(self.queue.empty())
        self.assertIn("1 alert(s) couldn't be delivered for days, and are given up", self.said.getvalue())
        self.assertLess(self.world.now, 1_800_000_000 + 8 * 24 * HOUR)

    def test_with_nobody_left_to_tell_it_ends(self):
        self.world.up = False
        self.raise_alarm()
        self.addresses = []
        self.keep_trying()
        self.assertTrue(self.queue.empty())

    def test_no_part_of_an_address_is_written_and_nobody_else_reads_it(self):
        self.world.up = False
        self.raise_alarm()
        self.world.wrong, self.world.up = {SECOND}, True
        alert.send_kept(self.queue, self.addresses)
        self.assertIn("no network", self.kept())
        for part in ("hunter2", "example.org", "mailto", "json://"):
            self.assertNotIn(part, self.kept() + self.said.getvalue().replace("(mailtos)", ""))
        self.assertEqual({of.stat().st_mode & 0o777 for of in self.folder.iterdir()}, {0o600})
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)

    def test_what_is_no_alarm_is_taken_away_and_keeps_nothing_up(self):
        self.folder.mkdir(0o700)
        for name, text in (("1.json", "{"), ("2.json", "[]"), ("3.json", '{"title": 1}'), ("4", "\xff")):
            (self.folder / name).write_text(text, encoding="latin-1")
        self.raise_alarm()
        self.assertEqual(len(self.world.got), 2)
        self.assertTrue(self.queue.empty())

    def test_where_nothing_can_be_written_it_is_sent_all_the_same(self):
        self.folder.parent.joinpath("alerts").write_text("no directory")
        self.assertEqual(self.raise_alarm(), alert.DELIVERED)
        self.assertEqual(len(self.world.got), 2)
        self.assertIn("can't be kept", self.said.getvalue())


class Listener(http.server.BaseHTTPRequestHandler):
    got: list = []

    def do_POST(self):  # noqa: N802 (http.server's name)
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


APPRISE = """
import json, types, urllib.request
class NotifyType: FAILURE = "failure"
class NotifyFormat: TEXT = "text"
class Apprise:
    def add(self, address):
        self.to = address.replace("json://", "http://")
        return address.startswith("json://")
    def notify(self, title, body, **_):
        data = json.dumps({"title": title, "message": body}).encode()
        urllib.request.urlopen(urllib.request.Request(self.to, data, method="POST"), timeout=5)
        return True
"""


class AnotherPython(unittest.TestCase):
    """The system has a new Python: the environment's interpreter finds none of its packages any more."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.programs = Path(scratch.name, "opt/lab")
        shutil.copytree(
            fixture.ROOT / "hosts" / "chtbackup",
            self.programs / "chtbackup",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        self.settings = Path(scratch.name, "etc")
        self.settings.mkdir()
        (self.settings / "settings.json").write_text('{"deployment": "nowhere-lab"}')
        Listener.got = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (self.settings / "alerts").write_text(f"json://127.0.0.1:{server.server_port}/\n")

    def environment(self, folder, version="python3.2", text=APPRISE):
        packages = self.programs / folder / "lib" / version / "site-packages"
        (packages / "apprise").mkdir(parents=True)
        (packages / "apprise" / "__init__.py").write_text(text)
        return packages

    def alarm(self):
        unit = (fixture.ROOT / "hosts/cht/cht-backup-failed.service").read_text()
        [line] = [of for of in unit.splitlines() if of.startswith("ExecStart=")]
        interpreter = line.removeprefix("ExecStart=").split(" /opt/")[0].split()
        self.assertTrue(interpreter[0].startswith("/usr/bin/"), "it runs in the environment that it watches")
        return subprocess.run(
            [*interpreter, str(self.programs / "chtbackup"), "alert", str(self.settings / "settings.json")],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ["PATH"], "STATE_DIRECTORY": str(self.programs / "state")},
        )

    def test_an_upgrade_of_the_systems_python_doesnt_silence_the_alarm(self):
        self.environment("venv")
        done = self.alarm()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(Listener.got[0]["title"], f"CHT backup nowhere-lab failed on {os.uname().nodename}")

    def test_an_environment_that_is_half_made_doesnt_either_while_there_is_another(self):
        found = [
            str(self.environment("venv", text="import somebody_took_this_away")),
            str(self.environment("other", version="python3.1")),
        ]
        known = dict(sys.modules)
        path = list(sys.path)
        try:
            sys.modules.pop("apprise", None)
            self.assertTrue(alert_deliver.load_apprise(found).__file__.startswith(found[1]))
        finally:
            sys.path[:] = path
            for name in set(sys.modules) - set(known):
                del sys.modules[name]

    def test_with_no_environment_left_the_alarm_is_in_the_journal_and_kept_until_there_is_one(self):
        done = self.alarm()
        self.assertEqual(done.returncode, 1)
        self.assertIn("CHT backup nowhere-lab failed on", done.stdout)
        self.assertIn("no apprise on this machine works; `npm run pulumi -- up` installs it", done.stderr)
        self.environment("venv")
        self.assertEqual(self.alarm().returncode, 0)
        self.assertIn("It happened 2 times since", Listener.got[0]["message"])

    def test_it_says_that_the_programs_were_made_for_another_python(self):
        self.environment("venv", version="python3.2")
        self.assertIn("`npm run pulumi -- up` installs them anew", alert_deliver.outdated(str(self.programs / "venv")))
        self.environment("venv", version=f"python3.{sys.version_info.minor}")
        self.assertEqual(alert_deliver.outdated(str(self.programs / "venv")), "")
        self.assertEqual(alert_deliver.outdated("/nowhere"), "")


class WatchItself(unittest.TestCase):
    """The watch fails every hour: somebody hears of it once a day, also when the disk takes no note."""

    def test_is_told_once_a_day(self):
        with tempfile.TemporaryDirectory() as folder:
            queue = os.path.join(folder, "alerts")
            os.mkdir(queue)
            hours = []
            for hour in range(48):
                with mock.patch("time.time", lambda of=hour: 1_800_000_000.0 + of * HOUR):
                    if alert.is_news("watch", "moh", "", queue, 0):
                        hours.append(hour)
            self.assertEqual(hours, [0, 20, 40])
            self.assertTrue(alert.is_news("watch", "moh", "", os.path.join(folder, "nowhere", "alerts"), 0))

    def test_is_told_with_what_systemd_says_of_it(self):
        with mock.patch.dict(os.environ, SERVICE_RESULT="exit-code", EXIT_STATUS="70"):
            title, text, _ = alert.what_happened("watch", "moh")
        self.assertIn("nobody watches the backups", title)
        self.assertIn("exit-code (exit status 70, a fault of the program itself); see: journalctl -u", text)


class Tried(unittest.TestCase):
    def test_settings_that_cannot_be_read_keep_no_alarm_back(self):
        for content in (None, "", "{", "[]", "{}"):
            with tempfile.TemporaryDirectory() as folder:
                settings = os.path.join(folder, "moh", "watch.json")
                os.mkdir(os.path.dirname(settings))
                if content is not None:
                    Path(settings).write_text(content, encoding="utf-8")
                Path(folder, "moh", "alerts").write_text("json://127.0.0.1:9/\n", encoding="utf-8")
                sent = mock.Mock(return_value=0)
                said = io.StringIO()
                with (
                    mock.patch.object(alert, "raise_alarm", sent),
                    mock.patch.dict(os.environ, SERVICE_RESULT="exit-code", STATE_DIRECTORY=f"{folder}/alerts"),
                    contextlib.redirect_stdout(said),
                    contextlib.redirect_stderr(said),
                ):
                    self.assertEqual(alert.main(["--about", "watch", settings]), 0)
                self.assertIn("CHT backup moh: nobody watches the backups on", sent.call_args.args[2])

    def test_a_test_that_goes_to_nobody_says_so(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = os.path.join(folder, "settings.json")
            Path(settings).write_text('{"deployment": "moh"}', encoding="utf-8")
            Path(folder, "alerts").write_text("", encoding="utf-8")
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                code = alert.main(["--test", settings])
        self.assertEqual(code, 2)
        self.assertIn("cht-backup:alerts names no address", said.getvalue())


class Types(unittest.TestCase):
    def test_an_all_clear_is_good_news_to_the_services(self):
        sent = []
        apprise = types.SimpleNamespace(
            NotifyType=types.SimpleNamespace(FAILURE="failure", SUCCESS="success"),
            NotifyFormat=types.SimpleNamespace(TEXT="text"),
            Apprise=lambda: mock.Mock(notify=lambda notify_type, **_: sent.append(notify_type) or True),
        )
        with (
            mock.patch.dict(sys.modules, apprise=apprise),
            mock.patch("logging.disable"),
            mock.patch("socket.setdefaulttimeout"),
        ):
            self.assertEqual(alert_deliver.deliver("json://x", "title", "text"), "")
            self.assertEqual(alert_deliver.deliver("json://x", "title", "text", good=True), "")
        self.assertEqual(sent, ["failure", "success"])


class Slow(unittest.TestCase):
    def test_a_service_that_never_answers_is_given_up(self):
        apprise = types.SimpleNamespace(
            URLBase=types.SimpleNamespace(),
            NotifyType=types.SimpleNamespace(FAILURE="failure", SUCCESS="success"),
            NotifyFormat=types.SimpleNamespace(TEXT="text"),
            Apprise=lambda: mock.Mock(notify=lambda **_: time.sleep(30)),
        )
        began = time.monotonic()
        with (
            mock.patch.dict(sys.modules, apprise=apprise),
            mock.patch("logging.disable"),
            mock.patch("socket.setdefaulttimeout"),
            mock.patch.object(alert_deliver, "LIMIT", 1),
        ):
            self.assertEqual(alert_deliver.deliver("json://x", "title", "text"), "was not delivered")
        self.assertLess(time.monotonic() - began, 10)
        # One that answers within half a minute has taken the message, and isn't sent it again.
        limits = [apprise.URLBase.socket_connect_timeout, apprise.URLBase.socket_read_timeout]
        self.assertEqual(limits, [30, 30])


if __name__ == "__main__":
    unittest.main()
