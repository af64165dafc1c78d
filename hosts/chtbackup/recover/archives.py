"""What `restore` needs to be told, by the paper: which copy of the repository, how to get there, what to do with it."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from chtbackup.base import programs
from chtbackup.base.process import SIGNALS
from chtbackup.base.text import complain, say
from chtbackup.recover import access, paper
from chtbackup.recover.paper import Paper

RIGHT = 0
KIT = "/run/kit"
"""Where the page's lines are: in memory, until the machine restarts."""
SHOWN = 10  # archives
SECRET = ("passphrase", "reader")


class Refused(Exception):
    """Not possible, or not wanted so. The text is for whoever holds the paper."""


def ask(name: str) -> str:
    """A fact that isn't in the file, from the terminal. A secret doesn't show. Raises Refused without a terminal."""
    try:
        if name in SECRET:
            return getpass.getpass(f"{name} (nothing shows while you type): ")
        return input(f"{name} ({paper.MEANING.get(name, 'as on the page')}): ").strip()
    except EOFError:
        raise Refused(f"the line `{name}` of the page's part A is missing") from None


def read_kit(path: str) -> Paper:
    """What is in the file, which nobody else may read; nothing where there is none. Raises Refused, Mistyped."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        if path != KIT:
            raise Refused(f"there is no file {path}") from None
        say(f"there is no {path}, so each line of the page's part A is asked for")
        return Paper()
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            raise Refused(f"{path} holds secrets and others may read it: chmod 600 {path}")
        return paper.read(file.read())


def time_of(text: str | None, option: str) -> str | None:
    """A time as archives have it; a day is its last second, all UTC. Raises Refused."""
    if text is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        return text
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return f"{text}T23:59:59Z"
    raise Refused(f"{option} {text}: it must be a time in UTC such as 2026-11-21 or 2026-11-21T14:00:00Z")


def require_programs(source: str) -> None:
    """Raises Refused where the distribution's packages are missing."""
    missing = [] if shutil.which("borg") else ["borgbackup"]
    modules = {"xxhash": "python3-xxhash", **({"boto3": "python3-boto3"} if source == "bucket" else {})}
    missing += [package for name, package in modules.items() if importlib.util.find_spec(name) is None]
    missing += ["openssh-client"] if source == "server" and not shutil.which("ssh-keygen") else []
    if missing:
        raise Refused(f"first: apt-get install {' '.join(missing)}")


def request_of(known: Paper, options: argparse.Namespace, work: str, scratch: str) -> dict[str, Any]:
    """The line that `restore` reads, without what is wanted of it. Raises Refused, Mistyped, NoWayIn."""
    source = options.source
    request = {"baseDirectory": f"{scratch}/borg"}
    if source == "bucket":
        place = known.bucket(ask, time_of(options.copy_as_of, "--copy-as-of"))
        request |= {"repository": f"{work}/repository", "bucket": place}
    elif source == "server":
        repository = known.of("repository", ask)
        server = access.place(known.of("server", ask), options.server)
        config = access.prepare(f"{work}/recover", server, known.of("host-key", ask))
        access.try_out(config, repository)
        request |= {"repository": f"ssh://offsite{repository}", "sshConfig": config}
        request["server"] = f"{server[0]}, port {server[1]}"
    else:
        directory = os.path.abspath(source)
        if not (os.path.isfile(f"{directory}/config") and os.path.isdir(f"{directory}/data")):
            raise Refused(
                f"--from {source}: it must be server, bucket, or the directory of a repository, which holds `config`"
                " and `data`"
            )
        request["repository"] = directory
    return {**request, "passphrase": known.of("passphrase", ask)}


def work_of(known: Paper) -> str:
    """Where a restore keeps its notes, as `npm run restore` does, so that each goes on where the other was."""
    return f"/var/lib/cht-restore/{known.of('deployment', ask)}"


@contextlib.contextmanager
def scratch_directory() -> Iterator[str]:
    """A directory of this run for borg. It goes whatever happens."""
    folder = tempfile.mkdtemp(prefix="cht-recover-")
    os.mkdir(f"{folder}/borg")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def perform(action: str, request: dict[str, Any], work: str, take: bool = False) -> tuple[int, str]:
    """Run `restore` and return its exit code, and what it printed where that is to be taken. The request goes through a
    pipe, as it holds secrets. What ends this program ends that one, which tidies up and tells."""
    child: subprocess.Popen[str] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        child = subprocess.Popen(
            [*programs.command("restore"), action, work],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE if take else None, text=True,
        )  # fmt: skip
        for number in early:
            child.send_signal(number)
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        printed: list[str] = []
        reader = threading.Thread(target=lambda: printed.extend(child.stdout or ()), daemon=True)
        reader.start()
        # Python calls `pass_on` between two steps of this thread. A signal that comes just before it begins to wait
        # for output would wait there, too, for as long as none comes.
        while child.poll() is None:
            time.sleep(0.1)
        reader.join()
        if child.stdout is not None:
            child.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        return child.returncode, "".join(printed)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def lines_of(archive: dict[str, Any]) -> list[str]:
    """An archive for the list. Pure."""
    name = archive["name"]
    if why := archive.get("damaged") or archive.get("unreadable"):
        return [f"{name}  don't use it: {why}"]
    if not archive["finished"]:
        return [f"{name}  unfinished, don't use it"]
    size = f"{archive['size'] / 1e6:,.1f} MB"
    if archive.get("byHand"):
        return [f"{name}  {size}, made by hand: nothing proves that it is whole; restored only by its name"]
    documents = sum(archive["documents"].values())
    problems = [f"    incomplete: {text}" for text in archive["problems"]]
    return [f"{name}  {documents:,} documents, {size}", *problems]


def list_archives(options: argparse.Namespace) -> int:
    known = read_kit(options.kit)
    require_programs(options.source)
    work = work_of(known)
    with scratch_directory() as scratch:
        request = request_of(known, options, work, scratch)
        code, printed = perform("list", {**request, "last": options.last}, work, take=True)
    *remarks, last = printed.splitlines() or [""]
    for line in remarks:
        say(line)
    if code != RIGHT:
        if last:
            say(last)
        return code
    found = json.loads(last)
    ids = [known.of("id", ask), *known.earlier]
    say(f"repository {found['repository']}" + (", as on the page" if found["repository"] == ids[0] else ""))
    if found["repository"] not in ids:
        complain(f"WARNING: the page is of another repository, {ids[0]}: is this the right copy, and the newest kit?")
    for archive in found["archives"]:
        for line in lines_of(archive):
            say(line)
    if found["more"]:
        say(f"and {found['more']} older ones: --last 0 lists all")
    return RIGHT


def restore(options: argparse.Namespace) -> int:
    known = read_kit(options.kit)
    require_programs(options.source)
    work = work_of(known)
    wanted = {
        "archive": options.archive,
        "asOf": time_of(options.as_of, "--as-of"),
        "start": options.start,
        "dryRun": options.dry_run,
        "replace": options.replace,
        "despiteProblems": options.despite_problems,
    }
    with scratch_directory() as scratch:
        request = request_of(known, options, work, scratch)
        code, _ = perform("restore", {**request, **wanted}, work)
    if code == RIGHT and not options.dry_run:
        say("When users have seen that all is well: `tidy` removes passphrase and keys from this machine")
    return code
