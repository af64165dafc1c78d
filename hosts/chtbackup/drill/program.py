"""Prove that the newest archive of a CHT deployment restores: fetch it as a restore does, verify it, start CouchDB
on the copy in a network that leads no further than this machine, compare its counts, read a portion of its documents,
remove everything again, and report.

Run by the unit `cht-drill-<deployment>.service`. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
from typing import Any

from chtbackup.base.errors import Refused, Stopped, reason_of
from chtbackup.base.process import SIGNALS, stop_on_signals
from chtbackup.base.text import BUG, complain, complain_of_bug, duration, say
from chtbackup.borg.client import Borg
from chtbackup.docker import Docker
from chtbackup.drill.archive import check_archive
from chtbackup.drill.bucket_source import repository_in, take_newest
from chtbackup.drill.configuration import at
from chtbackup.drill.database import Database
from chtbackup.drill.fetch import fetch
from chtbackup.drill.findings import Findings
from chtbackup.drill.images import require_images
from chtbackup.drill.network import require_network
from chtbackup.drill.overdue import look_back
from chtbackup.drill.reading import read_portion
from chtbackup.drill.reports import Reports, new_report
from chtbackup.drill.room import TooLittle, Watch, require_room, short, too_many
from chtbackup.drill.scratch import Scratch
from chtbackup.drill.settings import SETTINGS, STATE, project, read_passphrase, read_settings, source_of
from chtbackup.drill.tidy import settle, tidy
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.verify import Verdict, verify
from chtbackup.restore.choose import Archive, choose
from chtbackup.restore.running import ask_database

RIGHT, WRONG, IMPOSSIBLE = 0, 1, 2
LOCK_WAIT = 12 * 3600
# What CouchDB writes of its own accord once it runs.
GROWTH = 1.1


class Drill:
    """One drill on this machine; what it finds is in the report."""

    def __init__(self, settings: dict[str, Any], report: dict[str, Any], reports: Reports) -> None:
        self.settings = settings
        self.report = report
        self.docker = Docker()
        self.scratch = Scratch(settings)
        self.work = f"{self.scratch.path}/work"
        passphrase = read_passphrase(settings["deployment"])
        self.findings = Findings(report, reports, [passphrase])
        self.borg = Borg(where(settings, report["from"], self.scratch.path, passphrase))
        self.borg.lock_wait = LOCK_WAIT

    def run(self) -> int:
        """Make the drill. Returns its exit code. Raises Refused."""
        self.borg.check_version()
        if self.docker.stopped:
            raise Refused(f"Docker doesn't answer: {self.docker.stopped}")
        require_network(self.docker, self.settings["network"])
        self.scratch.make()
        watch = Watch(self.scratch.path)
        try:
            watch.start()
            self._work_through()
        except TooLittle:
            raise Refused(watch.why) from None
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            watch.done.set()
        self.report["outcome"] = "wrong" if self.report["problems"] else "right"
        self.report["stage"] = "done"
        return WRONG if self.report["problems"] else RIGHT

    def _work_through(self) -> None:
        findings, copied = self.findings, self.scratch.copy
        held = 0
        if self.report["from"] == "bucket":
            held = take_newest(self.settings, self.scratch.path, findings)
        findings.stage("choosing the archive")
        archive = choose(self.borg, {}, findings)
        check_archive(archive, self.borg, self.settings, findings)
        require_images(self.docker, archive, self.settings, findings)
        findings.stage("fetching the archive")
        self._require_room(archive.name, held)
        self.report["fetchSeconds"] = round(fetch(self.borg, archive.name, copied, self.work, findings), 1)
        findings.stage("verifying the files")
        copy = Copy({"": copied})
        verdict = verify_copy(archive, copy, findings)
        self.report["counts"] = {name: of["documents"] for name, of in sorted(verdict.databases.items())}
        if verdict.problems:
            findings.remark("CouchDB wasn't started, as the checks before that failed; a restore stops here, too")
            return
        findings.stage("starting CouchDB")
        database = Database(self.docker, self.settings, findings)
        database.start(archive, copy, copied, self.work)
        findings.stage("asking CouchDB")
        env_file = at(archive.places["environment"], archive, copy)
        answer = ask_database(project(self.settings), archive, verdict.databases, env_file, database.dead, findings)
        for text in answer.problems:
            findings.wrong(text)
        self.report["counts"].update({name: of["documents"] for name, of in answer.counts.items()})
        if not answer.problems:
            assert answer.server is not None
            findings.stage("reading documents")
            # Of those that were being made or deleted it holds what was there at some moment, perhaps in part.
            steady = sorted(answer.counts.keys() - archive.unsteady)
            counts = {name: answer.counts[name]["documents"] for name in steady}
            read_portion(answer.server, counts, database.dead, self.borg.repository_id, findings)
        if self.report["problems"]:
            database.keep_log()

    def _require_room(self, archive: str, held: int) -> None:
        items = self.borg.items(archive)
        total = sum(of["size"] for of in items)
        files = sum(1 for of in items if of["type"] == "-")
        self.report["sizes"] = {"files": files, "bytes": total}
        require_room(self.scratch.path, total * GROWTH, held, self.settings["scratchGibibytes"])
        if why := too_many(len(items), os.statvfs(self.scratch.path)):
            raise Refused(why)


def verify_copy(archive: Archive, copy: Copy, findings: Findings) -> Verdict:
    """Compare the copy with the archive's manifest. Nothing is dropped before: a restore does without a view that is
    ahead of its shard, but no backup should hold one."""
    verdict = verify(archive.before, archive.after, copy, [])
    findings.verdict(verdict)
    return verdict


def where(settings: dict[str, Any], source: str, scratch: str, passphrase: str) -> dict[str, Any]:
    """Where borg finds the repository, by its source, `server` or `bucket`."""
    if source == "bucket":
        # Not with what borg knows of the repository on the server: it would find that one moved.
        return {
            "repository": repository_in(scratch),
            "passphrase": passphrase,
            "baseDirectory": f"{scratch}/borg",
        }
    deployment = settings["deployment"]
    return {
        "repository": settings["repository"],
        "passphrase": passphrase,
        "baseDirectory": f"{STATE}/{deployment}/borg",
        "sshConfig": f"{SETTINGS}/{deployment}/ssh_config",
    }


def run(settings: dict[str, Any], reports: Reports) -> int:
    """Make a drill and report. Returns the exit code."""
    report = new_report(settings["deployment"])
    report["from"] = source_of(settings["from"], reports.latest())
    reports.since()
    reports.mark(report)
    code = IMPOSSIBLE
    try:
        code = Drill(settings, report, reports).run()
    except Stopped as error:
        report["outcome"] = "interrupted"
        report["problems"].append(f"stopped by {error} at the stage “{report['stage']}”")
    except Refused as error:
        report["problems"].append(str(error))
    except (OSError, subprocess.SubprocessError) as error:
        report["problems"].append(reason_of(error))
    except Exception as error:  # whatever it is: there must be a report
        complain_of_bug()
        code = BUG
        report["problems"].append(f"unexpected: {type(error).__name__}: {reason_of(error)}")
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    left = tidy(settings)
    if left and report["outcome"] == "right":
        report["outcome"], code = "impossible", IMPOSSIBLE
    report["problems"] += left
    reports.write(report)
    reports.unmark()
    if report["ok"]:
        documents = sum(report["counts"].values())
        say(f"{report['archive']} restores: {documents:,} documents in {len(report['counts'])} databases,"
            f" {duration(report['seconds'])}")  # fmt: skip
    else:
        for text in report["problems"]:
            complain(f"<3>problem: {text}" if os.environ.get("JOURNAL_STREAM") else f"problem: {text}")
        complain(f"the drill failed; see {reports.directory}/latest.txt")
    return code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Restore the newest finished archive of a CHT deployment to scratch space, verify it, start"
        " CouchDB on it in a Docker network that leads no further than this machine, compare the counts, read a portion"
        " of the documents, remove everything, and report in /var/lib/cht-backup/DEPLOYMENT/drills.",
        epilog="Exit codes: 0 right; 1 the restored copy is wrong, the last success is too long ago or the newest copy"
        " in the bucket too old (overdue), or a drill was interrupted (cleanup); 2 not possible, the reason is named;"
        " 70 the program itself is at fault.",
    )
    parser.add_argument(
        "action",
        choices=("run", "overdue", "cleanup"),
        help="run: make a drill; overdue: fail when none has succeeded for too long, or when drills are made from the"
        " bucket and its newest copy is too old; cleanup: remove what a killed drill left",
    )
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup/DEPLOYMENT/drill.json")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    if os.getuid() != 0:
        complain("the drill must run as root")
        return IMPOSSIBLE
    stop_on_signals()
    try:
        settings = read_settings(options.settings)
        reports = Reports(f"{STATE}/{settings['deployment']}/drills", settings["keep"])
        if options.action == "overdue":
            return look_back(settings, reports)
        lock = os.open(f"{reports.directory}/lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if options.action == "cleanup":
                return RIGHT  # a living drill tidies up itself
            raise Refused(f"another drill of {settings['deployment']} is running") from None
        interrupted = settle(settings, reports)
        if options.action == "cleanup":
            return WRONG if interrupted else RIGHT
        signal.signal(signal.SIGUSR1, short)
        return run(settings, reports)
    except Refused as error:
        complain(str(error))
    except Stopped as error:
        complain(f"stopped by {error}")
    except OSError as error:
        complain(reason_of(error))
    return IMPOSSIBLE
