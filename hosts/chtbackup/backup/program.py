"""Make one backup of a CHT deployment: collect what lives in Docker, then have borg store everything.

Run by the unit `cht-backup-<deployment>.service`, or by hand as root. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from typing import Any

from chtbackup.backup.collect import Collection
from chtbackup.backup.counts import complete
from chtbackup.backup.describe import Description
from chtbackup.backup.report import COMPLETE, INCOMPLETE, NONE, remember, report, result_of
from chtbackup.backup.run import Run
from chtbackup.backup.store import Store
from chtbackup.base.errors import NoBackup, Stopped, reason_of
from chtbackup.base.files import write_atomically
from chtbackup.base.process import stop_on_signals
from chtbackup.base.settings import read_settings
from chtbackup.base.text import complain, complain_of_bug, megabytes, say
from chtbackup.borg.deployment import repository_of
from chtbackup.borg.writer import Writer


class Backup:
    """One run for one deployment: collect, describe, store."""

    def __init__(self, settings: dict[str, Any], dry_run: bool) -> None:
        self.run = Run(settings, dry_run)
        self.collection = Collection(self.run)
        self.description = Description(self.collection)
        self.store = Store(self.run, Writer(repository_of(settings), self.run.notes.append))

    def make(self) -> dict[str, Any]:
        """Make the backup and return the result (see `last-backup.json`). Raises NoBackup."""
        run, collection = self.run, self.collection
        collection.collect()
        sizes = collection.contents.sizes
        say(
            f"{run.archive}: {len(sizes)} files, {megabytes(sum(sizes.values()))};"
            f" CouchDB's data is in {', '.join(collection.data.directories)}"
        )
        before, after = collection.places["manifestBefore"], collection.places["manifestAfter"]
        write_atomically(before, json.dumps(self.description.before(), indent=1) + "\n", 0o600)
        self.store.store([*collection.contents.paths, before], sizes, (after, self.description.after))
        return result_of(run, self.store)

    def dry(self) -> int:
        """Say what a backup would hold. Writes nothing."""
        run, collection = self.run, self.collection
        collection.collect()
        counts = collection.counter.count()
        scanned = collection.data.scan()
        counts = complete(counts, scanned)
        sizes = collection.contents.sizes
        say(f"would make {run.archive} in {run.settings['repository']}")
        say(f"{len(sizes)} files, {megabytes(sum(sizes.values()))}; counts from CouchDB's {counts['source']}:")
        for name, of in sorted(counts["databases"].items()):
            say(f"  {name}: {of['documents']:,} documents, update sequence {of['updateSequence']:,}")
        for what, place in collection.places.items():
            if not what.startswith("manifest"):
                say(f"  {what}: {json.dumps(place)}")
        run.problems += [f"CouchDB's files: {text}" for text in scanned["problems"]]
        for text in run.notes:
            say(f"note: {text}")
        for text in run.problems:
            complain(f"problem: {text}")
        return INCOMPLETE if run.problems else COMPLETE


def attempt(backup: Backup) -> dict[str, Any]:
    """Make a backup, and turn every way to fail into a result with one line."""
    run = backup.run
    try:
        return backup.make()
    except NoBackup as error:
        run.problem(str(error))
    except Stopped as error:
        run.problem(f"stopped by {error}")
    except (OSError, subprocess.SubprocessError) as error:
        run.problem(reason_of(error))
    except Exception as error:  # a fault of this program: its report must be of today all the same
        complain_of_bug()
        run.problem(f"a fault of the backup program itself: {type(error).__name__}: {reason_of(error)}")
        return result_of(run, backup.store, bug=True)
    return result_of(run, backup.store)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Back up a CHT deployment with borg: CouchDB's files, compose files, .env,"
        " certificate and key, credentials, and a manifest of it all.",
        epilog="Exit codes: 0 the backup is complete; 1 a backup was made but something is missing in it,"
        " which is named; 2 no backup was made, the reason is named; 70 the program itself is at fault. The"
        " result is kept in"
        " /var/lib/cht-backup/DEPLOYMENT/last-backup.json.",
    )
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup/DEPLOYMENT/settings.json")
    parser.add_argument("--dry-run", action="store_true", help="say what would be backed up, and change nothing")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        settings = read_settings(options.settings)
    except NoBackup as error:
        complain(error)
        return NONE
    backup = Backup(settings, options.dry_run)
    stop_on_signals()
    if options.dry_run:
        try:
            return backup.dry()
        except (NoBackup, OSError, subprocess.SubprocessError) as error:
            complain(f"problem: {error if isinstance(error, NoBackup) else reason_of(error)}")
            return NONE
        except Stopped:
            return NONE
    try:
        os.makedirs(backup.run.state, mode=0o700, exist_ok=True)
        lock = os.open(f"{backup.run.state}/run.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        complain(f"another backup of {backup.run.deployment} is running")
        return NONE
    except OSError as error:
        complain(f"{backup.run.state}: {error.strerror} (run as root)")
        return NONE
    try:
        shutil.rmtree(backup.run.scratch, ignore_errors=True)  # of a run that was killed
        os.makedirs(backup.run.scratch, mode=0o700)
        result = attempt(backup)
        remember(backup.run.state, result)
    except OSError as error:
        complain(f"problem: {reason_of(error)}")
        return NONE
    finally:
        shutil.rmtree(backup.run.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(backup.run.scratch))
    report(result)
    return result["exitCode"]
