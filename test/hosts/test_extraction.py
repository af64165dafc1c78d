"""Archives that change under a restore's hands, and ones without end. What is called borg here does what
an attacker wants."""

import contextlib
import dataclasses
import io
import json
import os
import tempfile
import textwrap
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401

from chtbackup.base import errors
from chtbackup.borg import bounded as borg_bounded
from chtbackup.borg import client as borg_client
from chtbackup.borg import errors as borg_errors
from chtbackup.manifest.copy import Copy
from chtbackup.restore import archives, choose, confined, extract, marker, part, targets

NAME = "t-2026-11-28T02:00:00Z"
FILES = [
    {"type": "d", "path": "srv"},
    {"type": "-", "path": "srv/a"},
    {"type": "l", "path": "srv/l", "linktarget": "a"},
]
EXTRACTED = "mkdir srv; echo right > srv/a; ln -s a srv/l"


class Repository(unittest.TestCase):
    """One archive, in a directory that stands for the repository: its name and id in `archives`, and what
    borg does for a list of its `items`, for its `manifest`, and to `extract` it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(os.path.realpath(folder.name))
        for name in ("bin", "repository", "base", "into"):
            (self.folder / name).mkdir()
        script = f"""\
            #!/bin/sh
            cd {self.folder}/repository
            echo "$*" >> asked
            case "$*" in
                *list*--json-lines*) . ./items ;;
                *list*) echo '{{"repository": {{"id": "r"}}, "archives": ['; cat archives; echo ']}}' ;;
                *--stdout*) . ./manifest ;;
                *extract*) cd "$OLDPWD"; . {self.folder}/repository/extract ;;
            esac
            """
        (self.folder / "bin" / "borg").write_text(textwrap.dedent(script))
        (self.folder / "bin" / "borg").chmod(0o755)
        self.does("items", "".join(f"echo '{json.dumps({'linktarget': '', **of})}'\n" for of in FILES))
        self.does("extract", EXTRACTED)
        self.becomes("first")
        path = mock.patch.dict(os.environ, PATH=f"{self.folder}/bin:{os.environ['PATH']}")
        path.start()
        self.addCleanup(path.stop)
        request = {"repository": str(self.folder / "repository"), "passphrase": "x"}
        self.request = {**request, "baseDirectory": str(self.folder / "base")}
        self.borg = borg_client.Borg(self.request)
        # That the kernel keeps borg to its directory takes root, and is tested with a real one.
        self.confined = mock.patch.object(
            confined, "command", side_effect=lambda program, directory, *others: program
        ).start()
        self.addCleanup(mock.patch.stopall)
        self.borg.names()
        self.archive = choose.Archive(NAME, self.borg.ids[NAME], {"time": "2026-11-28T02:00:00Z"}, {})
        self.marker = marker.Marker(f"{self.folder}/extracting.json", self.archive)

    def does(self, what, script):
        (self.folder / "repository" / what).write_text(script)

    def becomes(self, name):
        self.does("archives", json.dumps({"name": NAME, "id": name}))

    def asked(self, word):
        return [line for line in (self.folder / "repository" / "asked").read_text().splitlines() if word in line]

    def extract(self):
        """As a restore does it."""
        into, resumed = str(self.folder / "into"), self.marker.holds(False)
        with contextlib.redirect_stdout(io.StringIO()):
            extract.extract(self.borg, self.archive, Copy({"": into}), self.marker, resumed, {into: []}, 1)


class ExchangedArchives(Repository):
    def test_one_that_stays_what_it_was_is_extracted(self):
        self.extract()
        self.assertEqual((self.folder / "into" / "srv" / "a").read_text(), "right\n")
        self.assertEqual(len(self.asked("extract")), 1)
        self.assertLessEqual(len(self.asked("list --json ")), 3)

    def test_borg_writes_into_one_directory_and_its_own_ones_alone(self):
        self.extract()
        [call] = self.confined.call_args_list
        own = [str(self.folder / name) for name in ("into", "base", "repository")]
        self.assertEqual(list(call.args[1:]), own)
        self.assertIn("extract", call.args[0])
        self.borg.repository = "ssh://offsite/r"
        self.borg.extract(NAME, [], directory=own[0], progress=None)
        self.assertEqual(list(self.confined.call_args.args[1:]), own[:2])

    def test_one_that_became_another_before_is_not_extracted(self):
        self.becomes("second")
        with self.assertRaisesRegex(borg_errors.Hostile, "isn't the archive any more .* another one has got its name"):
            self.extract()
        self.assertEqual(self.asked("extract"), [])

    def test_one_that_becomes_another_meanwhile_is_refused(self):
        self.does("extract", f"{EXTRACTED}; sed -i s/first/second/ {self.folder}/repository/archives")
        with self.assertRaisesRegex(borg_errors.Hostile, "another one has got its name"):
            self.extract()

    def test_one_that_is_deleted_meanwhile_is_refused(self):
        self.does("extract", f"{EXTRACTED}; : > {self.folder}/repository/archives")
        with self.assertRaisesRegex(borg_errors.Hostile, "it was deleted"):
            self.extract()

    def test_one_that_was_another_for_the_time_of_the_extraction_alone_is_refused(self):
        for other, named in (
            ("ln -s /etc srv", "/srv"),
            (f"{EXTRACTED}; echo x > srv/more", "/srv/more"),
            (f"{EXTRACTED}; rm srv/a; mkdir srv/a", "/srv/a"),
            (f"{EXTRACTED}; ln -sfn /etc/shadow srv/l", "/srv/l"),
            (f"{EXTRACTED}; rm srv/a; mkfifo srv/a", "/srv/a"),
        ):
            self.does("extract", other)
            with self.assertRaisesRegex(borg_errors.Hostile, f": {named} was extracted, and isn't as it was listed"):
                self.extract()

    def test_what_another_one_of_the_same_name_left_is_not_built_on(self):
        self.extract()
        self.assertTrue(self.marker.holds(False))
        self.marker.archive = dataclasses.replace(self.archive, id="second")
        self.assertFalse(self.marker.holds(False))

    def test_a_part_of_one_is_guarded_alike(self):
        made = part.Part({**self.request, "databases": [], "paths": ["/srv"]}, str(self.folder))
        made.archive, made.borg = self.archive, self.borg
        made.place = targets.Place(str(self.folder / "out"))
        made.items = self.borg.items(NAME)
        sizes = mock.patch.object(part, "require_space")
        for item in made.items:
            item["size"], item["isomtime"] = 0, "2026-11-28T02:00:00"
        for script, named in (
            ("ln -s /etc srv", "/srv was"),
            (f"sed -i s/first/second/ {self.folder}/repository/archives", "its name"),
        ):
            self.does("extract", script)
            with (
                sizes,
                contextlib.redirect_stdout(io.StringIO()),
                self.assertRaisesRegex(borg_errors.Hostile, named),
            ):
                made.fetch(
                    marker.Marker(f"{made.place.base}/extracting.json", self.archive), f"{made.place.base}/files"
                )

    def test_in_the_list_one_that_changed_while_it_was_read_is_not_offered(self):
        archive = {"name": NAME, "finished": True}
        with (
            mock.patch.object(archives, "Borg", return_value=self.borg),
            mock.patch.object(archives, "summary", return_value=archive),
            mock.patch.object(self.borg, "check_version"),
            mock.patch.object(
                self.borg, "manifests", side_effect=lambda name: self.becomes("second") or ({"x": 1}, {})
            ),
            contextlib.redirect_stdout(io.StringIO()) as said,
        ):
            archives.list_archives({}, "")
        [found] = json.loads(said.getvalue())["archives"]
        self.assertFalse(found["finished"])
        self.assertIn("changed while it was read", found["unreadable"])

    def test_where_borg_cannot_be_kept_to_its_directory_nothing_is_extracted(self):
        self.does("extract", f"echo nothing was extracted: why >&2; exit {confined.IMPOSSIBLE}")
        with self.assertRaisesRegex(errors.Refused, "^nothing was extracted: why$"):
            self.extract()


class ArchivesWithoutEnd(Repository):
    """A few bytes of an archive can become any number, so there is an end to what is read."""

    def refused(self, text, look):
        began = time.monotonic()
        with self.assertRaisesRegex(borg_errors.Hostile, text):
            look(NAME)
        self.assertLess(time.monotonic() - began, 15)

    def test_a_list_of_files_that_does_not_end_is_refused(self):
        line = json.dumps({"type": "-", "path": "a" * 100, "linktarget": ""})
        self.does("items", f"yes '{line}'")
        with mock.patch.object(borg_bounded, "MOST_ITEMS", 1000):
            self.refused("may be hostile: it holds more than 1,000 files", self.borg.items)
        with mock.patch.object(borg_bounded, "LONGEST_LIST", 100_000):
            self.refused("may be hostile: it holds more than [0-9]+ files", self.borg.items)

    def test_a_path_that_does_not_end_is_refused(self):
        self.does("items", "cat /dev/zero")
        self.refused("it holds a path that is longer than any on a disk", self.borg.items)

    def test_a_manifest_that_does_not_end_is_refused(self):
        path = "run/cht-backup/t/collect/manifest-before.json"
        self.does("items", "echo '" + json.dumps({"type": "-", "path": path, "linktarget": ""}) + "'")
        self.does("manifest", "yes '[1,'")
        with mock.patch.object(borg_client, "LONGEST_MANIFEST", 1_000_000):
            self.refused("its manifest holds more than 1.0 MB", self.borg.manifests)
        self.does("manifest", """printf '{"part": "before", "x": ['; yes '{},' | head -n 3000; echo '1]}'""")
        with mock.patch.object(borg_bounded, "MOST_OBJECTS", 2000):
            self.refused("its manifest holds more than 2,000 objects", self.borg.manifests)
        paths = [path.replace("/t/", f"/t{number}/") for number in range(3)]
        items = [json.dumps({"type": "-", "path": each, "linktarget": ""}) for each in paths]
        self.does("items", "".join(f"echo '{item}'\n" for item in items))
        self.refused("it holds more than one manifest", borg_client.Borg(self.request).manifests)

    def test_one_of_a_large_cht_is_far_from_it(self):
        path = "home/ubuntu/cht/couchdb/shards/00000000-1fffffff/medic-user-some-chw-name-meta.1795302615.couch"
        item = {
            "type": "-",
            "path": path,
            "size": 10**9,
            "isomtime": "2026-11-28T02:00:00.123456",
            "linktarget": "",
        }
        line = json.dumps({**item, "mode": "-rw-r--r--", "user": "", "group": "", "uid": 5984, "gid": 5984}) + "\n"
        self.assertGreater(borg_bounded.LONGEST_LIST, 4 * 100_000 * len(line))
        self.assertGreaterEqual(borg_bounded.MOST_ITEMS, 4 * 100_000)
        file = {"kind": "file", "mode": "0644", "uid": 5984, "gid": 5984, "size": 10**9}
        shard = {"documents": 10**6, "updateSequence": 10**7}
        both = json.dumps({"files": {f"/{path}": file}, "shards": {f"/{path}": shard}}, indent=1)
        self.assertGreater(borg_client.LONGEST_MANIFEST, 3 * 100_000 * len(both))
        self.assertGreater(borg_bounded.MOST_OBJECTS, 3 * 100_000 * both.count("{"))

    def test_of_warnings_without_end_the_first_and_the_last_are_kept(self):
        said = io.StringIO("".join(f"warning {number}\n" for number in range(5000)))
        lines = []
        borg_client.Borg._read(said, lines, None)
        self.assertLess(len(lines), 1100)
        self.assertEqual((lines[0].text, lines[-1].text), ("warning 0", "warning 4999"))


if __name__ == "__main__":
    unittest.main()
