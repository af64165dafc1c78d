"""What an archive can do to the machine that it is extracted on: with a real borg, and the kernel.

Needs borg, and root.
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hosts"))

import fixture  # noqa: E402, F401

from chtbackup.base import errors, pack, programs  # noqa: E402
from chtbackup.borg import client as borg_client  # noqa: E402
from chtbackup.borg import errors as borg_errors  # noqa: E402
from chtbackup.manifest.copy import Copy  # noqa: E402
from chtbackup.restore import choose, confined, extract, marker  # noqa: E402

# As root in most containers.
WITHOUT_MOUNTING = ("setpriv", "--bounding-set=-sys_admin")
NAME = "t-2026-11-28T02:00:00Z"


class Machine(unittest.TestCase):
    def setUp(self):
        # Not below /tmp, which may be in memory: a device's file must be one there.
        self.folder = Path(tempfile.mkdtemp(prefix="cht-backup-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("base", "into", "elsewhere"):
            (self.folder / name).mkdir()
        self.into, self.elsewhere = self.folder / "into", self.folder / "elsewhere"


class Confinement(Machine):
    def run_confined(self, script, *others):
        command = confined.command(["bash", "-c", script], str(self.into), *others)
        return subprocess.run(command, capture_output=True, text=True, cwd="/")

    def test_a_program_writes_into_its_directories_and_leaves_nothing_behind(self):
        base = self.folder / "base"
        script = "set -e; pwd; echo x > file; chown 5984:5984 file; chmod 2750 file; ln -s file link"
        done = self.run_confined(f"{script}; echo x > {base}/x", str(base))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{self.into}\n", ""))
        of = (self.into / "file").stat()
        self.assertEqual((of.st_uid, of.st_gid, of.st_mode & 0o7777), (5984, 5984, 0o2750))
        self.assertTrue((base / "x").exists())
        self.assertNotIn(str(self.folder), Path("/proc/self/mountinfo").read_text())

    def test_it_writes_nowhere_else_however_it_is_led_there(self):
        (self.elsewhere / "file").write_text("as it was")
        (self.into / "link").symlink_to(self.elsewhere)
        pipe = Path(f"/run/cht-backup-test-{os.getpid()}")
        os.mkfifo(pipe)
        self.addCleanup(pipe.unlink)
        # Somebody listens, else it would be waited for.
        listener = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, listener)
        device = next(path for path in ("/dev/full", "/dev/tty") if os.path.exists(path))
        for script in (
            "echo x > link/new",
            "chmod 0777 link",
            "echo x > ../elsewhere/file",
            "chmod 0777 ../elsewhere",
            "chown 1000 ../elsewhere/file",
            "ln ../elsewhere/file second && echo x > second",
            "echo x > /etc/cht-backup-test",
            "echo x > /dev/shm/cht-backup-test",
            f": 3<> {device}",
            f": 3<> ../../../..{pipe}",
            f"echo x > /proc/{os.getpid()}/root{self.elsewhere}/file",
            "echo x > /proc/sys/kernel/domainname",
            "mknod device c 1 3",
            f"umount {self.into}",
            "mount -o remount,rw /",
            "unshare --mount true",
        ):
            self.assertNotEqual(self.run_confined(script).returncode, 0, script)
        self.assertEqual([path.name for path in self.elsewhere.iterdir()], ["file"])
        self.assertEqual((self.elsewhere / "file").read_text(), "as it was")
        self.assertEqual((self.elsewhere / "file").stat().st_uid, 0)
        self.assertEqual(self.elsewhere.stat().st_mode & 0o777, 0o755)
        self.assertFalse(os.path.lexists("/dev/shm/cht-backup-test") or os.path.lexists("/etc/cht-backup-test"))

    def test_what_ssh_needs_is_there(self):
        script = "set -e; getent hosts localhost > /dev/null; [ $(head -c 8 /dev/urandom | wc -c) = 8 ]"
        done = self.run_confined(f"{script}; cat /etc/resolv.conf")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, Path("/etc/resolv.conf").read_text())

    def test_where_it_cannot_be_kept_there_it_is_not_started_and_the_reason_is_said(self):
        for starter, into in ((WITHOUT_MOUNTING, self.into), ((), self.folder / "missing")):
            command = confined.command(["touch", str(self.elsewhere / "started")], str(into))
            done = subprocess.run([*starter, *command], capture_output=True, text=True)
            self.assertEqual(done.returncode, confined.IMPOSSIBLE)
            self.assertRegex(done.stderr, f"^nothing was extracted: this machine can't keep borg to .*{into.name}")
            self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertEqual(os.listdir(self.elsewhere), [])

    def test_the_one_file_of_a_recovery_keeps_a_program_there_as_well(self):
        file = self.folder / "recover.pyz"
        file.write_bytes(pack.program().content)
        (self.into / "link").symlink_to(self.elsewhere)
        with mock.patch.object(programs, "PACKAGE", f"{file}/chtbackup"):
            done = self.run_confined("set -e; pwd; echo x > file")
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{self.into}\n", ""))
            for script in ("echo x > link/new", "echo x > ../elsewhere/file", f"echo x >> {file}"):
                self.assertNotEqual(self.run_confined(script).returncode, 0, script)
            command = confined.command(["touch", str(self.elsewhere / "started")], str(self.into))
        done = subprocess.run([*WITHOUT_MOUNTING, *command], capture_output=True, text=True)
        self.assertEqual(done.returncode, confined.IMPOSSIBLE)
        self.assertRegex(done.stderr, "^nothing was extracted: this machine can't keep borg to ")
        self.assertEqual(os.listdir(self.elsewhere), [])
        self.assertEqual(file.read_bytes(), pack.program().content)

    def test_it_ends_with_the_program_that_started_it(self):
        script = (
            "import subprocess, sys, time, fixture\nfrom chtbackup.base.process import end_with_parent\n"
            "subprocess.Popen(sys.argv[1:], preexec_fn=end_with_parent)\ntime.sleep(60)"
        )
        command = confined.command(["sh", "-c", "echo $$ > pid; exec sleep 60"], str(self.into))
        environment = {**os.environ, "PYTHONPATH": str(Path(fixture.__file__).parent)}
        parent = subprocess.Popen([sys.executable, "-c", script, *command], env=environment)
        try:
            deadline = time.monotonic() + 20
            while not (self.into / "pid").exists() or not (self.into / "pid").read_text():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            child = int((self.into / "pid").read_text())
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)


class Attacks(Machine):
    """By somebody who has the CHT host's key and passphrase, while a restore runs."""

    starter = ()

    def setUp(self):
        super().setUp()
        self.location = f"{self.folder}/repository"
        (self.folder / "from" / "home").mkdir(parents=True)
        (self.folder / "from" / "home" / "file").write_text("fine")
        request = {"repository": self.location, "passphrase": "x", "baseDirectory": f"{self.folder}/base"}
        self.borg = borg_client.Borg(request)
        self.borg.run("init", "--encryption", "repokey-blake2", self.location)
        self.borg.run("create", f"{self.location}::{NAME}", "home", directory=f"{self.folder}/from")
        os.mkdir(self.folder / "work")
        self.borg.names()

    def exchange(self, link):
        """Another archive gets the name: what was a directory is a link, and a file is written through it."""
        tar = self.folder / "other.tar"
        with tarfile.open(tar, "w") as file:
            leads = tarfile.TarInfo("home")
            leads.type, leads.linkname = tarfile.SYMTYPE, link
            file.addfile(leads)
            job = tarfile.TarInfo("home/cron-job")
            job.size = 4
            file.addfile(job, io.BytesIO(b"evil"))
        self.borg.run("delete", f"{self.location}::{NAME}")
        self.borg.run("import-tar", f"{self.location}::{NAME}", str(tar))

    def restore(self):
        archive = choose.Archive(NAME, self.borg.ids[NAME], {"time": "2026-11-28T02:00:00Z"}, {})
        into, note = str(self.into), marker.Marker(f"{self.folder}/work/extracting.json", archive)
        with contextlib.redirect_stdout(io.StringIO()):
            extract.extract(self.borg, archive, Copy({"": into}), note, False, {into: []}, 1)

    def test_what_is_not_attacked_is_extracted(self):
        self.restore()
        self.assertEqual((self.into / "home" / "file").read_text(), "fine")

    def test_an_archive_that_became_another_since_it_was_looked_at_is_refused(self):
        self.assertEqual([of["path"] for of in self.borg.items(NAME)], ["/home", "/home/file"])
        self.exchange(str(self.elsewhere))
        with self.assertRaisesRegex(borg_errors.Hostile, "another one has got its name"):
            self.restore()
        self.assertFalse(self.into.exists())

    def test_an_archive_that_becomes_another_just_then_writes_nothing_elsewhere_and_is_refused(self):
        """As if the names were right at each look."""
        self.borg.items(NAME)
        self.exchange(str(self.elsewhere))
        self.borg.ids.clear()
        self.borg.names()
        with self.assertRaises(errors.Refused):
            self.restore()
        self.assertEqual(os.listdir(self.elsewhere), [])


if __name__ == "__main__":
    unittest.main()
