"""The seals alone, the audit, and an honest year that none of them hinders."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from parts import (
    CREATE,
    LIMIT,
    MANIFEST,
    PASSPHRASE,
    ROOT,
    Case,
    Ended,
    Refused,
    contents,
    machine,
    with_each_borg,
)

from chtbackup.repository import segment_log

NEW = b"\x01" * 32


@with_each_borg
class TheSealsAlone(Case):
    """The guard is taken away: the forced command is bare `borg serve --append-only`. Whatever it is told to do, every
    archive is still in the server's files."""

    guarded = False

    def still_there(self):
        """Every earlier archive extracts from the server's files, with the small ones put back that aren't sealed."""
        made = self.made
        self.assertEqual(made.lost_segments(), [])
        with tempfile.TemporaryDirectory(prefix="cht-backup-guard-", dir=machine().folder) as folder:
            copy = Path(folder, "repository")
            # The kernel keeps even root from writing to another's file in a directory as sealed
            # (fs.protected_regular), so the copy is root's.
            subprocess.run(["cp", "-a", "--no-preserve=ownership", str(made.repository), str(copy)], check=True)
            shutil.copy(made.state / "config", copy)
            newest = max(int(os.path.basename(path)) for path in made.segments)
            for number, path in segment_log.segments(str(copy)).items():
                if number > newest:
                    os.remove(path)
            for path in copy.iterdir():
                if path.name.split(".")[0] in ("index", "hints", "integrity", "lock"):
                    subprocess.run(["rm", "-rf", str(path)], check=True)
            for name, expected in made.archives.items():
                target = Path(folder, name)
                target.mkdir()
                base = {"BORG_BASE_DIR": f"{folder}/base"}
                made.borg("extract", f"{copy}::{name}", directory=target, environment=base)
                self.assertEqual(contents(target), expected)

    def test_keep_what_a_destroyed_repository_held(self):
        session = self.made.session()
        path = str(self.made.repository)
        self.refused(session.call, "open", path=path, create=True, append_only=False, lock=True, exclusive=True)
        self.refused(session.call, "destroy")
        session.close()
        self.still_there()

    def test_keep_what_a_session_prepared_before_would_remove(self):
        made = self.made
        reader = made.opened(exclusive=False)
        writer = made.session()
        writer.call("open", path=str(made.repository), lock=True, exclusive=None)
        writer.call("get", id=MANIFEST)  # its index is of now
        writer.send("put", {"id": NEW, "data": b"zz"})
        # Archives made while both wait: the hostile host lets its own sessions ask for no lock.
        for number in range(2):
            other = made.session()
            other.call("open", path=str(made.repository), lock=False, exclusive=True)
            for part in range(4):
                other.call("put", id=bytes([7, number, part, 0]) * 8, data=os.urandom(40_000))
            other.call("commit")
            other.close()
        made.mark()
        reader.close()
        try:
            writer.answer()
            writer.call("commit")
        except (Refused, Ended):
            pass
        writer.close()
        self.still_there()

    def test_keep_what_is_deleted_and_compacted(self):
        made = self.made
        made.borg("delete", made.location, "archive-0", "archive-1", check=False)
        made.borg("compact", "--threshold", "0", made.location, check=False)
        made.borg("delete", made.location, environment={"BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "YES"}, check=False)
        self.still_there()
        self.assertNotEqual(made.audit(), [])

    def test_keep_what_the_account_itself_removes_renames_and_empties(self):
        made = self.made
        of, repository = machine(), str(made.repository)
        script = """
            cd "$1"
            for path in data/*/* config; do : >"$path"; chmod 777 "$path"; mv "$path" "$path-2"; rm -f "$path"; done
            for path in data/* data .; do chmod 777 "$path"; mv "$path" "$path-2"; rmdir "$path"; done
            mkdir mine; mv data mine/; ln -f data/0/1 mine/1 && : >mine/1
            rm -rf data "$1" index.* hints.* integrity.* nonce transactions
            python3 -c 'import os, sys; os.truncate(sys.argv[1], 0)' data/0/1
        """
        ids = {"user": of.uid, "group": of.gid, "extra_groups": []}
        subprocess.run(["sh", "-c", script, "sh", repository], capture_output=True, cwd="/", **ids)
        self.still_there()

    def test_keep_the_key(self):
        made = self.made
        config = (made.repository / "config").read_bytes()
        session = made.opened()
        try:
            session.call("save_key", keydata=b"x\rid = " + b"00" * 32)
        except (Refused, Ended):
            pass
        session.close()
        self.assertEqual((made.state / "config").read_bytes(), config)
        self.still_there()

    def test_hinder_no_honest_backup(self):
        for number in range(3):
            self.made.backup(f"honest-{number}")
        self.extract_all()


def ids(made):
    """Ids of objects by the first bytes of their tag: what the log has of the archives."""
    return list(made.replay())


@with_each_borg
class TheAudit(Case):
    """It raises the alarm for what the guard would have refused."""

    guarded = False

    def finds(self, pattern):
        self.assertRegex("\n".join(self.made.audit()), pattern)
        self.assertRegex("\n".join(self.made.audit()), pattern)  # until somebody has looked
        self.made.approve("it was me")
        self.assertEqual(self.made.audit(), [])
        if self.made.borg("list", self.made.location, check=False).code == 0:
            self.made.backup("honest")
            self.assertEqual(self.made.audit(), [])

    def test_finds_a_deleted_archive(self):
        self.made.borg("delete", f"{self.made.location}::archive-1")
        self.finds("marked as deleted")

    def test_finds_pruned_archives(self):
        self.made.borg("prune", "--keep-last", "1", self.made.location)
        self.finds("marked as deleted")

    def test_finds_a_renamed_archive(self):
        self.made.borg("rename", f"{self.made.location}::archive-1", "other")
        self.finds("marked as deleted")

    def test_finds_an_archive_that_was_made_anew(self):
        self.made.borg("recreate", "--exclude", "*archive-1-0", f"{self.made.location}::archive-1")
        self.finds("marked as deleted")

    def test_finds_an_archive_that_was_replaced_by_one_of_its_name(self):
        made = self.made
        made.borg("delete", f"{made.location}::archive-1")
        made.borg("create", *CREATE, f"{made.location}::archive-1", ".")
        self.assertRegex("\n".join(made.audit()), "marked as deleted")

    def test_finds_an_object_that_was_deleted(self):
        id = ids(self.made)[0].hex()
        self.made.borg("debug", "delete-obj", self.made.location, id)
        self.finds("marked as deleted")

    def test_finds_an_object_that_was_written_over(self):
        session = self.made.opened()
        session.call("put", id=ids(self.made)[0], data=b"rubbish")
        session.call("commit")
        session.close()
        self.finds("marked as deleted|written over")  # borg itself deletes what it writes over

    def test_finds_that_the_list_of_archives_is_gone(self):
        session = self.made.opened()
        session.call("delete", id=MANIFEST)
        session.call("commit")
        session.close()
        self.finds("manifest")

    def test_finds_segments_that_are_gone_or_changed(self):
        made = self.made
        path = sorted(made.segments, key=lambda path: int(os.path.basename(path)))[1]
        content = Path(path).read_bytes()
        os.remove(path)
        self.assertRegex("\n".join(made.audit()), "gone or were changed")
        Path(path).write_bytes(content)
        made.approve()
        Path(path).write_bytes(content + b"\x00")
        self.assertNotEqual(made.audit(), [])
        shutil.rmtree(made.repository)
        self.assertRegex("\n".join(made.audit()), "repository is gone|can't be read")

    def test_finds_a_counter_that_went_back_or_is_near_its_end(self):
        nonce = self.made.repository / "nonce"
        before = nonce.read_text()
        for value, words in (("f" * 16, "near its end"), ("0" * 16, "went back")):
            nonce.unlink()  # root may not write to another's file in a directory as sealed (fs.protected_regular)
            nonce.write_text(value)
            self.assertRegex("\n".join(self.made.audit()), words)
        nonce.write_text(before)


@with_each_borg
class AnHonestYear(Case):
    """With guard and seals. Each test ends with `holds`, without an alarm."""

    def test_has_nights_with_and_without_something_new(self):
        made = self.made
        for number in range(4):
            made.backup(f"night-{number}", over_sshd=number % 2 == 0)
            made.borg("create", *CREATE, f"{made.location}::quiet-{number}", ".")
            made.archives[f"quiet-{number}"] = contents(made.source)
        listed = json.loads(made.borg("list", "--json", made.location).output)["archives"]
        made.audit()
        self.assertEqual(made.ledger(), [of["id"] for of in listed])
        self.holds()

    def feed(self, name, checkpoints, kill=False):
        """A backup of what comes slowly, with a checkpoint each second, until there were some; `kill` ends it then."""
        made = self.made
        transactions = made.repository / "transactions"

        def count():
            return len(transactions.read_text().splitlines())

        before, content = count(), b""
        here, there = os.pipe()
        with tempfile.TemporaryFile() as said:
            words = [
                "--lock-wait",
                "20",
                "create",
                *CREATE,
                "--checkpoint-interval",
                "1",
                f"{made.location}::{name}",
                "-",
            ]
            process = made.as_root.start("borg", words, [here, said, said], made.environment(), str(made.source))
            os.close(here)
            deadline = time.monotonic() + LIMIT
            while count() < before + checkpoints:
                self.assertLess(time.monotonic(), deadline, "no checkpoint came")
                part = os.urandom(20_000)
                os.write(there, part)
                content += part
                time.sleep(0.02)
            if kill:
                process.kill()
            os.close(there)
            code = process.wait()
            said.seek(0)
            self.assertEqual(code, -9 if kill else 0, said.read())
        return content

    def test_has_checkpoints(self):
        content = self.feed("slow", 3)
        found, done = self.made.extract("slow")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "stdin").write_bytes(content)
            self.assertEqual(found, contents(Path(folder)), done.errors)
        self.assertNotIn("checkpoint", self.made.borg("list", "--short", self.made.location).output)
        self.holds()

    def test_has_backups_that_are_killed_after_a_checkpoint(self):
        self.feed("slow", 2, kill=True)
        self.feed("slow", 2, kill=True)
        self.feed("slow-2", 1)
        self.holds()

    def test_has_uploads_that_break_off_before_anything_is_finished(self):
        made = self.made
        for over_sshd in (False, True):
            # What the one before has left is in it, and is removed before anything comes.
            enough = stored(made) + 500_000
            here, there = os.pipe()
            with open(os.devnull, "r+b") as nothing:
                name = f"{made.location}::broken-{'over' if over_sshd else 'without'}-sshd"
                words = ["--lock-wait", "20", "create", *CREATE, name, "-"]
                environment = made.environment(over_sshd=over_sshd)
                process = made.as_root.start("borg", words, [here, nothing, nothing], environment, str(made.source))
                os.close(here)
                deadline = time.monotonic() + LIMIT
                # It has no end, so that nothing is finished before the kill.
                while stored(made) <= enough:
                    self.assertLess(time.monotonic(), deadline, "no upload came")
                    os.write(there, os.urandom(20_000))
                process.kill()
                process.wait()
                os.close(there)
        self.holds(over_sshd=True)

    def test_has_a_client_that_loses_its_cache(self):
        shutil.rmtree(self.made.base / ".cache")
        self.made.backup("without")
        self.holds()

    def test_has_a_client_that_loses_all_that_it_knew(self):
        shutil.rmtree(self.made.base)
        self.made.backup("without")
        self.holds()

    def test_has_commands_that_only_read(self):
        made = self.made
        key, archive = made.live / "key", f"{made.location}::archive-0"
        made.borg("key", "export", made.location, key)
        self.assertIn("BORG_KEY", key.read_text())
        self.assertIn("archive-0", made.borg("info", archive).output)
        self.assertIn("archive-2-0", made.borg("diff", archive, "archive-2").output)
        self.assertIn("archive-0-0", made.borg("list", archive).output)
        made.borg("export-tar", archive, made.live / "tar")
        made.borg("extract", "--dry-run", archive)
        reader = made.opened(exclusive=False)
        self.assertEqual(
            made.borg("--bypass-lock", "list", "--short", made.location).output.split(), list(made.archives)
        )
        reader.close()
        self.holds()

    def test_has_locks_for_a_copy_into_a_bucket(self):
        made = self.made
        made.borg("with-lock", made.repository, "true", user="account", environment=own(made))
        made.backup("after")
        self.holds()

    def test_has_restores_and_drills_by_a_second_client_while_backups_go_on(self):
        made = self.made
        drill = made.folder / "live" / "drill"
        reader = made.opened(exclusive=False)  # a restore that takes its time
        self.extract_all(base=drill)
        reader.close()
        made.backup("meanwhile")
        self.extract_all(base=drill, over_sshd=True)
        made.backup("of-the-drill-machine", base=drill)
        self.holds()

    def test_has_an_operator_who_deletes_and_compacts_on_the_server(self):
        made = self.made
        made.backup("kept")
        with made.opened_by_operator():
            place = {"user": "account", "environment": own(made)}
            made.borg("delete", made.repository, "archive-0", "archive-1", **place)
            made.borg("compact", "--threshold", "0", made.repository, **place)
        made.approve("retention")
        for name in ("archive-0", "archive-1"):
            del made.archives[name]
        made.mark()
        self.assertEqual(made.audit(), [])
        self.assertEqual(made.list(), list(made.archives))
        for name in ("after-1", "after-2"):
            made.backup(name)
        listed = json.loads(made.borg("list", "--json", made.location).output)["archives"]
        self.assertEqual(made.audit(), [])
        self.assertLessEqual({of["id"] for of in listed if of["name"].startswith("after")}, set(made.ledger()))
        self.holds()

    def test_has_an_operator_who_exchanges_the_passphrase(self):
        made = self.made
        with made.opened_by_operator():
            before = (made.repository / "config").read_bytes()
            new = {**own(made), "BORG_NEW_PASSPHRASE": "battery staple"}
            made.borg("key", "change-passphrase", made.repository, user="account", environment=new)
        self.assertNotEqual(made.borg("list", made.location, check=False).code, 0)
        environment = {"BORG_PASSPHRASE": "battery staple"}
        made.borg("create", *CREATE, f"{made.location}::new", ".", environment=environment)
        self.assertEqual(made.extract("archive-0", environment=environment)[0], made.archives["archive-0"])
        self.assertEqual(made.lost(), [])
        self.assertEqual(made.audit(), [])
        self.assertIn(before, [path.read_bytes() for path in made.state.iterdir() if path.name.startswith("config.")])

    def test_has_an_ssh_key_that_is_exchanged(self):
        made, of = self.made, machine()
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(of.folder / "next")]
        subprocess.run(command, check=True)
        keys = of.home / ".ssh" / "authorized_keys"
        before, config = keys.read_text(), Path(made.ssh_config())
        text = config.read_text()
        try:
            keys.write_text((of.folder / "next.pub").read_text())
            self.assertNotEqual(made.borg("list", made.location, over_sshd=True, check=False).code, 0)
            config.write_text(text.replace(f"{of.folder}/client", f"{of.folder}/next"))
            self.holds(over_sshd=True)
        finally:
            keys.write_text(before)
            config.write_text(text)
            for name in ("next", "next.pub"):
                (of.folder / name).unlink()

    def test_has_a_disk_that_moves_to_another_machine(self):
        made = self.made
        subprocess.run(["chown", "-R", "54321:54321", str(made.repository)], check=True)
        self.assertEqual(made.program("seal", "seal").code, 2)
        self.assertEqual(made.program("seal", "adopt").code, 0)
        self.holds()


@with_each_borg
class ARepositoryMadeByHand(Case):
    """As CHT's backup guide makes it, with an account `borg` on the server, and pruned and compacted there by hand."""

    def test_is_adopted_with_its_archives_and_a_history_that_is_nobodys_fault(self):
        made, by_hand = self.made, self.made.live / "by-hand"
        with made.sealing:
            subprocess.run(["rm", "-rf", str(made.repository), str(made.state), str(made.base)], check=True)
            for folder in (made.state, made.base, by_hand):
                folder.mkdir()
            made.archives = {}
            at = str(made.repository)
            made.borg("init", "--encryption", "repokey-blake2", "--append-only", at, base=by_hand)
            for name in ("cht-1", "cht-2", "cht-3"):
                (made.source / name).write_bytes(os.urandom(50_000))
                made.borg("create", f"{at}::{name}", ".", base=by_hand)
            made.borg("config", at, "append_only", "0", base=by_hand)
            made.borg("delete", f"{at}::cht-1", base=by_hand)
            made.borg("compact", "--threshold", "0", at, base=by_hand)
            subprocess.run(["chown", "-R", "54321:54321", at], check=True)
            facts = provider("backups_so_far_repository", at)
            self.assertIn("\ntype 5", facts)
            note = {"repository": repository_id(made), "transaction": int(re.search(r"newest (\d+)", facts)[1])}
            provider("backups_so_far_adopt", f"{made.state}/adopted.json", json.dumps(note))
            done = made.program("seal", "adopt")
            self.assertEqual(done.code, 0, done.errors)
        self.assertEqual(made.audit(), [])
        self.assertEqual(made.ledger(), [], "what a compaction moved isn't an archive")
        made.archives["cht-3"] = contents(made.source)
        made.mark()
        self.holds()
        self.assertEqual(sorted(made.read()), ["cht-2", "cht-3", "next"])
        self.assertEqual(made.audit(), [])
        self.assertEqual(len(made.ledger()), 1)
        made.approve()
        self.assertEqual(len(made.ledger()), 1)
        # What is done from now on is judged as ever.
        made.borg("delete", f"{made.repository}::cht-2", user="account", environment=own(made))
        self.assertRegex("\n".join(made.audit()), "objects were marked as deleted")


def provider(name, *words):
    """What a function of the stack's look at the server prints."""
    library = ROOT / "provider" / "scripts" / "backups_so_far.sh"
    command = ["sh", "-euc", '. "$0"; "$@"', str(library), name, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def repository_id(made):
    return re.search(r"^id = (\w+)$", (made.repository / "config").read_text(), re.M)[1]


def stored(made):
    """Bytes in segments, of which borg may remove some while one looks."""
    total = 0
    for path in segment_log.segments(str(made.repository)).values():
        with contextlib.suppress(FileNotFoundError):
            total += os.path.getsize(path)
    return total


def own(made):
    """The environment of borg on the server, as the account."""
    return {"BORG_BASE_DIR": str(made.operator), "BORG_PASSPHRASE": PASSPHRASE}
