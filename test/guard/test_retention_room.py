"""Retention on a disk that is full, with real borg and a small file system of its own."""

import contextlib
import shutil
import subprocess
import unittest

from parts import with_newest_borg

from removing import Removing, end_with_children

RESERVE, ROOM = 45, 60  # MB


@with_newest_borg
class RetentionOnAFullDisk(Removing):
    def setUp(self):
        """The repository, and the reserve beside it, on a disk that a large file fills."""
        super().setUp()
        made, self.known = self.made, self.ids().values()
        server = made.repository.parent
        with made.sealing:
            shutil.move(server, f"{server}.before")
            server.mkdir()
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}m,mode=755", "tmpfs", str(server)],
                                     capture_output=True, text=True)  # fmt: skip
            if mounted.returncode != 0:
                raise unittest.SkipTest(f"nothing can be mounted here: {mounted.stderr}")
            self.addCleanup(subprocess.run, ["umount", "--lazy", str(server)], check=True)
            subprocess.run(["cp", "-a", f"{server}.before/.", str(server)], check=True)
            config = made.repository / "config"
            # borg's own size, and some that an operator wants to be free.
            text = config.read_text().replace("max_segment_size = 100000", "max_segment_size = 524288000")
            config.write_text(text.replace("additional_free_space = 0", "additional_free_space = 10M"))
            self.config = config.read_text()
        made.settle()  # root keeps a copy of it
        self.reserve = server / "reserve"
        self.reserve.write_bytes(bytes(RESERVE << 20))
        with contextlib.suppress(OSError), open(server / "something-large", "wb", buffering=0) as file:
            while file.write(bytes(65536)):
                pass
        self.assertEqual(shutil.disk_usage(server).free, 0)

    def test_says_what_to_do_and_works_when_the_reserve_is_gone(self):
        names = self.made.archives
        code, result, errors = self.run_it(shown=list(self.known))
        self.assertEqual((code, result), (2, None))
        self.assertRegex(errors, "the disk is full.* Delete the reserve: docs/retention.md")
        self.assertNotIn("Traceback", errors)
        self.assertFalse((self.made.state / "open").exists())
        self.reserve.unlink()
        self.assertEqual(self.made.list(), list(names))
        self.finished_by_the_next()
        self.assertEqual((self.made.repository / "config").read_text(), self.config)

    def test_is_finished_by_the_next_one_and_gives_borg_its_sizes_back(self):
        self.reserve.unlink()
        config = self.made.repository / "config"
        process = self.stopped_at("delete", shown=list(self.known))
        self.assertIn("max_segment_size = 5000000", config.read_text())
        end_with_children(process)
        self.finished_by_the_next()
        self.assertEqual(config.read_text(), self.config)
