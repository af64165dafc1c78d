#!/usr/bin/env python3
"""Put a CHT deployment back on this machine from a borg repository, or list what the repository holds.

Started by `npm run restore` and `npm run archives` on the operator's computer. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import IO, Any

import backup
import compose_env
import confined
import couch_files
import couch_server
import manifest
import plan
import verify
from backup import Stopped, megabytes, moment, say
from plain import exit_with

RIGHT, WRONG, REFUSED = 0, 1, 2
OLDEST_BORG = (1, 2, 8)  # CVE-2023-36811 and borg's own advice
OWN = "/run/cht-backup/"
"""Below it is what a backup of this program collects, which every archive of one holds."""
MANIFEST = re.compile(r"/run/cht-backup/[^/]+/collect/manifest-(before|after)\.json")
MOST_STARTS = 5  # of a container by Docker, after which it isn't waited for
START_LIMIT = 180  # seconds that CouchDB and nginx get to answer after the start
ASSUMED_RATE = 30e6  # bytes a second, for a first guess of the time
PROGRESS_INTERVAL = 10  # seconds
SPARE = 200e6  # bytes that stay free
DAY = 24 * 3600
# What borg may say of an archive, as a few bytes of it can become any number here. A CHT of 100,000 files makes a list
# of 30 MB, manifests of as much, and has 200,000 objects in them.
MOST_ITEMS = 500_000
LONGEST_LINE = 64 * 1024
LONGEST_LIST = 256 * 1024**2
LONGEST_MANIFEST = 128 * 1024**2
MOST_OBJECTS = 2_000_000
MOST_WARNINGS = 1000


class Refused(Exception):
    """The restore isn't begun or can't go on. The text is for the operator."""


class Damaged(Refused):
    """What the repository holds isn't what was stored."""


class Hostile(Refused):
    """Somebody has made an archive that does harm, or changes it under our hands."""


class TooMuch(Hostile):
    """More than any archive holds that a backup of this program makes."""


class Empty(Refused):
    """The repository holds nothing that can be restored."""


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ---- decisions ------------------------------------------------------------------------------------------


def time_of(name: str) -> str | None:
    """When an archive was begun, by its name (`lab-2026-11-21T02:00:05Z`); None for other names."""
    found = re.search(r"-(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$", name)
    return found[1] if found else None


def ahead(names: list[str], now: float) -> list[str]:
    """Archives that are dated more than a day after `now`: a wrong clock's, or somebody's who wants them to be the
    newest for ever."""
    return [name for name in names if (time_of(name) or "") > moment(now + DAY)]


NO_ARCHIVE = "the repository holds no archive"


def by_hand(items: list[dict[str, Any]]) -> bool:
    """Whether an archive without a manifest was made by other means than a backup of this program, which may have been
    interrupted."""
    return not any(f"{of['path']}/".startswith(OWN) for of in items)


def candidates(names: list[str], archive: str | None, as_of: str | None, now: float) -> list[str]:
    """The archives to try, the best first; without those that are `ahead`, unless one is asked for by its name.
    `as_of` is a time in UTC, `2026-11-21T02:00:00Z`. Raises Refused."""
    if archive is not None:
        if archive not in names:
            raise Refused(f"there is no archive {archive}; `npm run archives` lists those that there are")
        return [archive]
    later = ahead(names, now)
    known = sorted(
        ((time, name) for name in names if name not in later and (time := time_of(name))),
        reverse=True,
    )
    chosen = [name for time, name in known if as_of is None or time <= as_of]
    if not known and not later:
        others = f"; {len(names)} were made by hand, and are taken by name (--archive)" if names else ""
        raise Empty(f"the repository holds no archive of a backup of this program{others}" if names else NO_ARCHIVE)
    if not chosen:
        raise Refused(
            f"every archive is dated in the future, {later[0]} for one: is this machine's clock right? --archive takes"
            " one all the same"
            if not known
            else f"no archive is as old as {as_of}: the oldest is {known[-1][1]}"
        )
    return chosen


def estimate(files: int, size: int, here: int | None) -> str:
    """What will be extracted, and a first guess of the time. Sizes in bytes; `here` are left from a run before."""
    return (
        f"{files} files, {megabytes(size)}"
        + ("" if here is None else f", of which {megabytes(here)} are here from a run before")
        + f"; about {duration(max((size - (here or 0)) / ASSUMED_RATE, 1))} at {megabytes(ASSUMED_RATE)} a second"
    )


def of_another_kind(before: dict[str, Any]) -> str | None:
    """Why an archive's manifest can't be read by this program; None when it can."""
    kind = before.get("format")
    if kind == manifest.FORMAT:
        return None
    return f'its manifest is "{kind}", this program reads "{manifest.FORMAT}": use the version that made the archive'


def home_of(places: dict[str, Any]) -> str | None:
    """The CHT's home by its compose files and .env, which are in `compose/` and `upgrade-service/` there."""
    files = [*places["composeFiles"], *([places["environment"]] if places["environment"] else [])]
    return os.path.dirname(os.path.dirname(files[0])) if files else None


def targets_of(places: dict[str, Any]) -> list[str]:
    """The directories that are put in place as a whole: the CHT's home, and CouchDB's where not inside it."""
    home = home_of(places)
    outside = [path for path in verify.data_of(places) if home is None or not path.startswith(f"{home}/")]
    outside = [path for path in outside if not any(path.startswith(f"{other}/") for other in outside)]
    return [*([home] if home else []), *outside]


def scrub(text: str, secrets: list[str]) -> str:
    """A text without secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def secrets_in(env: str) -> list[str]:
    """Values of a `.env` that are secret by their names, to be left out of what Compose says of it."""
    named = re.compile("pass|secret|token|key|cred", re.IGNORECASE)
    return [value for name, value in values_in(env).items() if named.search(name) and len(value) >= 6]


def values_in(env: str) -> dict[str, str]:
    """The values of a `.env`; of one that Compose refuses, what is on its lines."""
    try:
        return compose_env.parse(env).values
    except compose_env.NotReadable:
        lines = (line.partition("=") for line in env.splitlines())
        return {name: value.strip().strip("'\"") for name, _, value in lines}


def environment_of(container: dict[str, Any]) -> list[str]:
    """The values in a container's environment, but for the shortest: none of them must be shown."""
    values = (word.partition("=")[2] for word in (container.get("Config") or {}).get("Env") or [])
    return [value for value in values if len(value) >= 6]


def became(container: dict[str, Any], line: str) -> str:
    """The state of a container by `docker inspect`, with the last line that it wrote."""
    state, restarts = container["State"], container.get("RestartCount", 0)
    exited = "" if state["Status"] == "running" and not restarts else f", last exit code {state['ExitCode']}"
    again = f", started {restarts + 1} times" if restarts else ""
    last = f', its last line: "{line.splitlines()[-1][:200]}"' if line else ""
    return f"its container {container['Name'].lstrip('/')} is {state['Status']}{exited}{again}{last}"


def project_of(places: dict[str, Any]) -> str | None:
    """Name of the Compose project, by the volumes' names."""
    for name in places["volumes"]:
        for volume in backup.VOLUMES:
            if name.endswith(f"_{volume}"):
                return name.removesuffix(f"_{volume}")
    return None


def summary(name: str, before: dict[str, Any], after: dict[str, Any] | None) -> dict[str, Any]:
    """An archive for the list: sizes in bytes, documents by database."""
    files = [of for of in before["files"].values() if of["kind"] == "file"]
    databases = (after or before)["counts"]["databases"]
    return {
        "name": name,
        "time": before["time"],
        "finished": after is not None,
        "files": len(files),
        "size": sum(of["size"] for of in files),
        "documents": {database: of["documents"] for database, of in sorted(databases.items())},
        "problems": reported(before, after),
        "version": before["versions"].get("cht"),
    }


def reported(before: dict[str, Any], after: dict[str, Any] | None) -> list[str]:
    """What the backup itself found wrong, by its last word: some of what looks wrong at its beginning is a database
    that is just being deleted."""
    return (after or {}).get("problems", before["problems"])


def answer_problems(files: manifest.Counts, counts: manifest.Counts, unsteady: set[str]) -> list[str]:
    """What is wrong with the counts that CouchDB gives of a copy, by those in its files; one line each. Of a database
    that was being made or deleted during the backup (`unsteady`) files may be there that no list of databases names."""
    # Services that start may write, so the server's numbers may be later than the files'.
    wrong = manifest.compare_counts(files, counts, counts, unsteady)
    return wrong + [f"{name} is missing" for name in files if name not in counts and name not in unsteady]


def summary_by_hand(name: str, time: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """An archive without a manifest for the list."""
    files = [of for of in items if of["type"] == "-"]
    size = sum(of["size"] for of in files)
    begun = f"{time[:19]}Z" if time else None
    return {"name": name, "time": begun, "finished": True, "byHand": True, "files": len(files), "size": size}


def hostile(items: list[dict[str, Any]]) -> str | None:
    """Why an archive must not be extracted, by borg's list of its items; None when it may.

    borg writes through a link that it has extracted itself, so who can add an archive could have it write anywhere.
    """
    kinds: dict[str, str] = {}
    for of in items:
        path, kind, source = of["path"], of["type"], of.get("linktarget")
        if any(name in ("", ".", "..") for name in path.split("/")):
            return f"the path {path}, which leads elsewhere"
        if kind not in ("-", "d", "l"):
            return f"{path}, which is neither a file nor a directory nor a link"
        if path in kinds:
            return f"{path} twice"
        if kind != "l" and source and kinds.get(source) != "-":
            return f"{path} as another name of {source}, which is no file before it"
        kinds[path] = kind
    for path in kinds:
        above = path
        while above := above.rpartition("/")[0]:
            if kinds.get(above, "d") != "d":
                return f"{path} below {above}, which is no directory"
    return None


def unlisted(base: str, items: Iterable[dict[str, Any]]) -> str | None:
    """The first path below a directory that isn't what `Borg.items` says of it; None when all is. Follows no link.

    Names can be given to other archives, and back again; what is on the disk can't deny where it came from.
    """
    listed = {of["path"]: (of["type"], of["linktarget"] if of["type"] == "l" else "") for of in items}
    for path in list(listed):
        while (path := path.rpartition("/")[0]) and path not in listed:
            listed[path] = ("d", "")
    left = [base]
    while left:
        with os.scandir(left.pop()) as entries_here:
            for entry in entries_here:
                path, link = entry.path[len(base) :], os.readlink(entry.path) if entry.is_symlink() else ""
                folder = entry.is_dir(follow_symlinks=False)
                kind = "l" if link else "d" if folder else "-" if entry.is_file(follow_symlinks=False) else "other"
                if listed.get(path) != (kind, link):
                    return path
                if folder:
                    left.append(entry.path)
    return None


COUNTS = {"databases": {str: {"documents": int, "deleted": int, "updateSequence": int}}}
OWNED = {"mode": str, "uid": int, "gid": int}
FILES = {"file": {**OWNED, "size": int}, "directory": OWNED, "link": {"target": str}, "vanished": {}}
BEFORE = {
    "time": str,
    "host": str,
    "versions": dict,
    "problems": [str],
    "counts": COUNTS,
    "shards": {str: {"documents": int, "updateSequence": int}},
    "files": {str: {"kind": str}},
    "places": {
        "couchdb": [str],
        "volumes": {str: str},
        "composeFiles": [str],
        "environment": (str, type(None)),
    },
}
"""What this program reads of a manifest's first part, as `misshapen` takes it."""


def misshapen(value: Any, shape: Any, where: str) -> str | None:
    """The first place where a value isn't of a shape: a type or several, [shape] for a list, {str: shape} for what has
    any names, {"name": shape} for what has at least these."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        inner = [(of, shape[0], f"{where}[{number}]") for number, of in enumerate(value)]
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return where
        wanted = dict.fromkeys(value, shape[str]) if str in shape else shape
        inner = [(value.get(name), of, f"{where}.{name}") for name, of in wanted.items()]
    else:
        return None if isinstance(value, shape) else where
    return next((found for each in inner if (found := misshapen(*each))), None)


def unreadable(before: Any, after: Any, kinds: dict[str, str]) -> str | None:
    """Why a restore can't go by the two parts of a manifest (`after` may be None); None when it can. `kinds` are
    the types of what the archive holds, by path."""
    if not isinstance(before, dict):
        return "its manifest is no manifest"
    if other := of_another_kind(before):
        return other
    where = misshapen(before, BEFORE, "before")
    if where is None and after is not None:
        added = ("unsteady", "problems")
        newer = {name: [str] for name in added if isinstance(after, dict) and name in after}
        where = misshapen(after, {"counts": COUNTS, **newer}, "after")
    for path, of in before["files"].items() if where is None else ():
        if of["kind"] not in FILES:
            return f'its manifest is not in order: {path} is a "{of["kind"]}"'
        where = where or misshapen(of, FILES[of["kind"]], path)
    if where:
        return f"its manifest is not in order: {where} is missing or of the wrong kind"
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", before["time"]):
        return f"its manifest is not in order: its time is {before['time']}"
    places = before["places"]
    optional = {"elsewhere": {str: str}, "outside": [str]}
    for name, shape in optional.items():
        if where := misshapen(places.get(name, shape.__class__()), shape, f"places.{name}"):
            return f"its manifest is not in order: {where} is missing or of the wrong kind"
    if where := misshapen(before.get("parents", {}), {str: OWNED}, "parents"):
        return f"its manifest is not in order: {where} is missing or of the wrong kind"
    if after is not None and (where := misshapen(after.get("changed", []), [str], "changed")):
        return f"its manifest is not in order: {where} is missing or of the wrong kind"
    paths = [*verify.roots_of(places), *before["files"], *before.get("parents", {}), *places.get("elsewhere", {})]
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or os.path.normpath(path) != path or path == "/":
            return f"its manifest is not in order: {path} is no path that can be restored"
    directories = [*verify.data_of(places), *places["volumes"].values()]
    parents = before.get("parents", {})
    for path in [*verify.roots_of(places), *parents]:
        above = path if path in directories or path in parents else os.path.dirname(path)
        while above != "/":
            if kinds.get(above) == "l":
                return f"{path} leads elsewhere in it, by the link {above}"
            above = os.path.dirname(above)
    return None


def end(child: subprocess.Popen[str]) -> None:
    """End a program and all that it started: those of the session that it leads. Gently first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 20
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
            os.killpg(child.pid, signal.SIGCONT)  # one that was suspended must hear it, too
            while time.monotonic() < deadline:
                child.poll()
                os.killpg(child.pid, 0)  # fails when none of the group is left
                time.sleep(0.05)
            continue
        return


# ---- borg -----------------------------------------------------------------------------------------------


def whole(stream: IO[str], most: int = LONGEST_LIST) -> str:
    """All that a stream holds. Raises TooMuch where it is more than so many characters."""
    text = stream.read(most + 1)
    if len(text) > most:
        raise TooMuch(f"more than {megabytes(most)}, which no backup of this program makes")
    return text


def entries(stream: IO[str]) -> list[dict[str, Any]]:
    """The items of borg's list of an archive, one JSON object a line. Raises TooMuch where there are too many."""
    found: list[dict[str, Any]] = []
    size = 0
    while (line := stream.readline(LONGEST_LINE)).endswith("\n"):
        size += len(line)
        if len(found) == MOST_ITEMS or size > LONGEST_LIST:
            raise TooMuch(f"more than {len(found):,} files")
        of = json.loads(line)
        found.append({name: of.get(name) for name in ("type", "path", "size", "isomtime", "linktarget")})
    if len(line) == LONGEST_LINE:
        raise TooMuch("a path that is longer than any on a disk")
    return found  # what is left is of a borg that was cut off; its exit code says so


def parts(text: str) -> dict[str, Any]:
    """A manifest's parts by their names. Raises TooMuch, or ValueError where it isn't one."""
    if text.count("{") + text.count("[") > MOST_OBJECTS:
        raise TooMuch(f"more than {MOST_OBJECTS:,} objects")
    found: dict[str, Any] = {}
    try:
        while text := text.lstrip():
            part, end = json.JSONDecoder().raw_decode(text)
            found[part["part"]] = part
            text = text[end:]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("it isn't JSON with a part's name") from None
    return found


class Borg:
    """One repository, read only. The passphrase goes to borg through a pipe: it is in no argument list, in no
    environment and in no file."""

    lock_wait = 600
    """Seconds to wait for a lock that a backup holds."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.repository: str = request["repository"]
        self.passphrase: str = request["passphrase"]
        self.ssh_config: str | None = request.get("sshConfig")
        self.server: str = request.get("server", "")
        """Where the server is, for messages."""
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "BORG_BASE_DIR": request["baseDirectory"],
            # Without a server the repository is a directory of this machine, which has been elsewhere.
            **(
                {"BORG_RSH": f"ssh -F {self.ssh_config}"}
                if self.ssh_config is not None
                else {"BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
            ),
        }
        self.child: subprocess.Popen[str] | None = None
        self.cache_removed = False
        """Whether it was damaged, and once is enough."""
        self.repository_id = ""
        self.times: dict[str, str] = {}
        """When each archive was begun, UTC, as it says of itself."""
        self.ids: dict[str, str] = {}
        """What was behind each archive's name when it was seen first."""
        self.listed: tuple[str, list[dict[str, Any]]] = ("", [])
        """The archive that was listed last, and its items."""

    def check_version(self) -> None:
        try:
            version = backup.borg_version()
        except backup.NoBackup as error:
            raise Refused(str(error)) from error
        if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST_BORG:
            raise Refused(f"borg {version} is too old: 1.2.8 or newer is needed")

    def run(
        self,
        *arguments: str,
        directory: str = "/",
        writes: bool = False,
        progress: Any = None,
        take: Callable[[IO[str]], Any] = whole,
    ) -> Any:
        """Run borg in a directory and return what `take` makes of its output. Where it `writes` files, it can do so
        there and nowhere else. `progress` is called with the bytes done so far. Raises Refused with the reason in plain
        words. A warning (exit code 1, 100 to 127) is said, not fatal: what is missing is found by comparing with the
        manifest."""
        reader, writer = os.pipe()
        command = ["borg", "--log-json", "--lock-wait", str(self.lock_wait), *arguments]
        if writes:
            own = [self.environment["BORG_BASE_DIR"], *([self.repository] if self.repository.startswith("/") else [])]
            command = confined.command(command, directory, *own)
        try:
            self.child = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, errors="surrogateescape", pass_fds=[reader],
                env={**self.environment, "BORG_PASSPHRASE_FD": str(reader)},
                start_new_session=True, preexec_fn=backup._end_with_parent,
            )  # fmt: skip
        finally:
            os.close(reader)
        try:
            # What is written goes out when it is closed.
            with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
                pipe.write(self.passphrase)
            lines: list[str] = []
            watcher = threading.Thread(target=self._read, args=(self.child.stderr, lines, progress))
            watcher.start()
            assert self.child.stdout is not None
            printed = take(self.child.stdout)
            watcher.join()
            code = self.child.wait()
        except BaseException:
            self.stop()
            raise
        if code == confined.IMPOSSIBLE:
            raise Refused(lines[-1])
        if code == 1 or 100 <= code <= 127:
            for line in lines[: backup.MAX_LINES]:
                say(f"note: borg warns: {line}")
        elif code != 0:
            broken = plan.broken_cache(code, lines)
            cache = f"{self.environment['BORG_BASE_DIR']}/.cache/borg"
            if broken is not None and not self.cache_removed:
                say(f"note: borg's cache {cache} is unusable, so it is removed and made anew ({broken})")
                shutil.rmtree(cache, ignore_errors=True)
                self.cache_removed = True
                return self.run(*arguments, directory=directory, writes=writes, progress=progress, take=take)
            if self.ssh_config is not None and plan.lacks_cause(code, lines):
                lines += backup.ask_ssh(self.ssh_config)
            archive = next((word.partition("::")[2] for word in arguments if "::" in word), "")
            raise explain(code, lines, archive, self.server)
        return printed

    @staticmethod
    def _read(stream: Any, lines: list[str], progress: Any) -> None:
        for line in iter(lambda: stream.readline(LONGEST_LINE), ""):
            # An archive can make borg warn of each of its files.
            del lines[MOST_WARNINGS:-1]
            try:
                said = json.loads(line)
            except ValueError:
                lines.append(line.strip())
                continue
            if said.get("type") == "progress_percent" and said.get("msgid") == "extract":
                if progress is not None and said.get("current") is not None:
                    progress(int(said["current"]))
            elif said.get("type") == "log_message" and said.get("levelname") != "INFO":
                # A traceback's last line says why; what borg writes below it is about the platform.
                lines += said["message"].partition("\n\nPlatform:")[0].strip().splitlines()[-1:]

    def stop(self) -> None:
        """End borg and its ssh, gently first so that it gives its lock back."""
        if self.child is not None:
            end(self.child)

    def names(self) -> list[str]:
        return list(self._archives())

    def _archives(self) -> dict[str, str]:
        """The ids of all archives by their names."""
        self.repository_id, found = self.listing()
        self.ids = {**found, **self.ids}
        return found

    def listing(self, *options: str) -> tuple[str, dict[str, str]]:
        """The repository's id, and those of its archives by their names."""
        listed = json.loads(self.run("list", "--json", *options, self.repository))
        self.times = {of["name"]: str(of.get("time", "")) for of in listed["archives"]}
        return listed["repository"]["id"], {of["name"]: of["id"] for of in listed["archives"]}

    def changed(self) -> dict[str, str]:
        """Names that no longer stand for what they stood for when they were seen first, and what has happened."""
        now = self._archives()
        what = {name: "another one has got its name" if name in now else "it was deleted" for name in self.ids}
        return {name: what[name] for name, known in self.ids.items() if now.get(name) != known}

    def require_same(self, archive: str) -> None:
        """See to it that an archive's name still means what it did when it was chosen: borg finds archives by their
        names alone, each time anew. Raises Hostile."""
        if what := self.changed().get(archive):
            raise exchanged(archive, what)

    def extract(self, archive: str, options: list[str], *paths: str, directory: str, progress: Any) -> None:
        """Extract into a directory, and nowhere else. Raises Hostile where the archive is another one afterwards."""
        location = f"{self.repository}::{archive}"
        words = ["extract", "--numeric-ids", "--progress", *options, location, *paths]
        self.run(*words, directory=directory, writes=True, progress=progress)
        self.require_same(archive)

    def manifests(self, archive: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The two parts of an archive's manifest; a part that isn't there is None. Raises Refused, for an archive
        that is hostile, too."""
        kinds = {of["path"]: of["type"] for of in self.items(archive)}
        paths = [path for path, kind in kinds.items() if kind == "-" and MANIFEST.fullmatch(path)]
        if not paths:
            return None, None
        if len(paths) > 2:
            raise Hostile(f"{archive} may be hostile: it holds more than one manifest")
        # Nothing is written to this machine. (`pf:` would do, but borg 1.2 warns that it never matched.)
        exact = [f"re:^{re.escape(path[1:])}\\Z" for path in paths]
        location = f"{self.repository}::{archive}"
        try:
            found = parts(
                self.run("extract", "--stdout", location, *exact, take=lambda of: whole(of, LONGEST_MANIFEST))
            )
        except TooMuch as error:
            raise Hostile(f"{archive} may be hostile: its manifest holds {error}") from None
        except ValueError as error:
            raise Refused(f"{archive}: its manifest is not in order: {error}") from None
        before, after = found.get("before"), found.get("after")
        if before is None:
            return None, None
        if why := unreadable(before, after, kinds):
            raise Refused(f"{archive}: {why}")
        return before, after

    def items(self, archive: str) -> list[dict[str, Any]]:
        """Everything in an archive: `type`, `path` (absolute), `size` (bytes), `isomtime` (UTC). Raises Refused for
        an archive that must not be extracted."""
        if self.listed[0] == archive:
            return self.listed[1]
        form = "{type}{path}{size}{isomtime}{linktarget}"
        try:
            items = self.run(
                "list", "--json-lines", "--format", form, f"{self.repository}::{archive}", take=entries
            )  # fmt: skip
            why = hostile(items)
        except TooMuch as error:
            why = str(error)
        if why:
            raise Hostile(
                f"{archive} was not made by a backup of this program and may be hostile: it holds {why}. Don't extract"
                " it, not by hand either; take another archive, and find out who added this one"
            )
        self.listed = archive, [{**of, "path": f"/{of['path']}"} for of in items]
        return self.listed[1]


def exchanged(archive: str, what: str) -> Hostile:
    return Hostile(
        f"{archive} isn't the archive any more that was looked at: {what}. Nothing of it is put in place. Where no"
        " retention has just deleted it, somebody may mean harm: don't extract it by hand either, find out who did"
        " this, and take another archive or another copy of the repository"
    )


def explain(code: int, lines: list[str], archive: str = "", server: str = "") -> Refused:
    """Why borg can't read, in words for the operator, with borg's own after them."""
    damage = r"integrity error|object with key .* not found|Did not get expected"
    said = next((line for line in lines if re.search(damage, line, re.I)), None)
    if said is None:
        text = plan.explain(code, lines)
        if server and re.match("the backup server('s name)? can't be (reached|resolved)", text):
            text += f". This machine must reach the server's SSH at {server}: see the setting cht-backup:server.address"
        return Refused(text)
    return Damaged(
        f"the repository is damaged: a part of {f'the archive {archive}' if archive else 'it'} can't be read or isn't"
        f" what was stored ({said}). Take another archive (`npm run archives`), or another copy of the repository"
    )


# ---- places ---------------------------------------------------------------------------------------------


class Place:
    """A directory that is put in place as a whole, and the place beside it where it is made first.

    `mounts` are the file systems of their own below it, each of which is a place of its own."""

    def __init__(self, target: str, mounts: Iterable[str] = ()) -> None:
        self.target = target
        self.mounted = os.path.ismount(target)
        self.mounts = sorted(mounts)
        folder, name = os.path.split(target)
        self.base = f"{target}/.restoring" if self.mounted else f"{folder}/.{name}.restoring"

    @property
    def fixed(self) -> bool:
        """Whether it can't be renamed, being or holding a file system's root: then its entries are."""
        return self.mounted or bool(self.mounts)

    def occupied(self) -> bool:
        try:
            return self._holds_something(self.target)
        except FileNotFoundError:
            return os.path.lexists(self.target)
        except NotADirectoryError:
            return True

    def _holds_something(self, folder: str) -> bool:
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            if name == "lost+found" or path == self.base or path in self.mounts:
                continue
            leads_to_mount = any(mount.startswith(f"{path}/") for mount in self.mounts)
            if not leads_to_mount or self._holds_something(path):
                return True
        return False

    def free(self) -> int:
        """Free bytes where it will be."""
        path = self.target
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        of = os.statvfs(path)
        return of.f_bavail * of.f_frsize

    def device(self) -> int:
        path = self.target
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return os.stat(path).st_dev


def places_of(targets: list[str], paths: list[str], mounts: list[str]) -> list[Place]:
    """The targets, and the file systems below them that get some of the `paths`."""
    inner = {target: [mount for mount in mounts if mount.startswith(f"{target}/")] for target in targets}
    own = [mount for of in inner.values() for mount in of if any(f"{path}/".startswith(f"{mount}/") for path in paths)]
    return [
        *(Place(target, inner[target]) for target in targets),
        *(Place(mount, [other for other in mounts if other.startswith(f"{mount}/")]) for mount in own),
    ]


def mount_points() -> list[str]:
    """Where file systems are mounted on this machine, links resolved."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = (line.split()[4] for line in file)
        return sorted({re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path) for path in fields})


class Restore:
    """One restore onto this machine."""

    def __init__(self, request: dict[str, Any], work: str) -> None:
        self.request = request
        self.work = work
        self.borg = Borg(request)
        self.began = time.monotonic()
        self.archive = ""
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.places: list[Place] = []
        self.copy = verify.Copy({})
        self.by_hand = False
        """Whether the archive has no manifest, having been made by hand."""
        self.answered: manifest.Counts = {}
        """What the running CouchDB said of itself."""
        self.server: couch_server.Server | None = None
        self.when = moment(time.time()).replace(":", "").replace("-", "")

    @property
    def journal(self) -> str:
        return f"{self.work}/switch.json"

    @property
    def marker(self) -> str:
        return f"{self.work}/extracting.json"

    # ---- before anything is changed ---------------------------------------------------------------------

    def choose(self) -> None:
        """Find the archive: the newest finished one that was asked for. Raises Refused."""
        names, now = self.borg.names(), time.time()
        chosen = candidates(names, self.request.get("archive"), self.request.get("asOf"), now)
        if self.request.get("archive") is None:
            for name in ahead(names, now):
                self.suspect(f"{name} is dated in the future and is passed over; find out who made it, and how")
        for name in chosen:
            before, after = self.borg.manifests(name)
            if before is not None and after is not None:
                self.borg.require_same(name)
                self.archive, self.before, self.after = name, before, after
                break
            if before is None and name == self.request.get("archive") and by_hand(self.borg.items(name)):
                self._take_by_hand(name)
                break
            self.remark(f"{name} is unfinished: the backup was interrupted (no manifest at its end)")
        else:
            raise Empty("there is no finished archive; an unfinished one may lack anything")
        places = self.before["places"]
        paths = [path for path, of in self.before["files"].items() if of["kind"] != "vanished"]
        self.places = places_of(targets_of(places), paths, mount_points())
        bases = {place.target: place.base for place in self.places}
        self.copy = verify.Copy({**bases, "": f"{self.work}/rest"})
        where = "by hand" if self.by_hand else f"on the machine {self.before['host']}"
        say(f"archive {self.archive}, begun {self.before['time']}, {where}")
        for text in reported(self.before, self.after):
            self.remark(f"the backup itself reported: {text}" if not self.by_hand else text)

    def _take_by_hand(self, name: str) -> None:
        # Only here: elsewhere this file isn't beside this one.
        import by_hand as without_manifest

        self.borg.require_same(name)
        time = f"{self.borg.times.get(name, '')[:19]}Z"
        self.by_hand = True
        self.archive, self.before = name, without_manifest.before(name, time, self.borg.items(name))
        self.after = {"format": manifest.FORMAT, "part": "after", "archive": name, "counts": self.before["counts"]}

    def require_a_cht(self) -> None:
        """See to it that an archive made by hand can be put back as a whole. Raises Refused."""
        import by_hand as without_manifest

        places, home = self.before["places"], home_of(self.before["places"])
        get_out = "With --path you get files out of it into a directory of their own"
        if not places["couchdb"]:
            raise Refused(f"{self.archive} was made by hand and holds no data directory of CouchDB. {get_out}")
        for target in targets_of(places):
            if target.count("/") < 2:
                raise Refused(
                    f"{self.archive} was made by hand, with paths from another directory than /: it would be put into"
                    f" {target}. {get_out}"
                )
        if self.request.get("start"):
            raise Refused(
                f"{self.archive} was made by hand and isn't a whole CHT: it can't go with --start. Start it yourself"
                " when you have put there what is missing"
            )
        for text in without_manifest.lacks(places):
            self.remark(f"not in the archive: {text}")
        if home is None:
            self.remark("only CouchDB's data is put back")

    def remark(self, text: str) -> None:
        say(f"note: {text}")

    def suspect(self, text: str) -> None:
        """Say what doesn't make the archive wrong, but must be looked into."""
        self.remark(text)

    def right(self, text: str) -> None:
        say(f"right: {text}")

    def wrong(self, text: str) -> None:
        backup.complain(f"WRONG: {text}")

    def refuse_data(self) -> None:
        """Refuse to go where something is already. Raises Refused; changes nothing."""
        docker = backup.Docker()
        volumes, project = self.before["places"]["volumes"], project_of(self.before["places"])
        if docker.stopped and would_install_docker(self.request):
            say("would install Docker")
        elif docker.stopped and volumes:
            raise Refused(
                f"Docker is needed for the volumes {', '.join(volumes)}, and doesn't answer: {docker.stopped}."
                " Add --install-docker, or install it yourself"
            )
        containers = docker.containers(project) if project and docker.stopped is None else []
        running = [of["name"] for of in containers if of["running"]]
        if running:
            raise Refused(
                f"a CHT runs on this machine ({', '.join(running)}). If it is to be replaced, stop it first:"
                f" docker compose --project-name {project} down"
            )
        occupied = [place.target for place in self.places if place.occupied()]
        occupied += [f"the volume {name}" for name in volumes if self._volume_used(docker, name)]
        if occupied and not self.request.get("replace"):
            raise Refused(
                f"there is data already: {', '.join(occupied)}. Nothing was changed. With --replace it is"
                " moved aside, not deleted"
            )
        for place in self.places:
            if place.fixed and place.occupied():
                why = "is a file system of its own" if place.mounted else f"holds a file system ({place.mounts[0]})"
                raise Refused(
                    f"{place.target} {why} and isn't empty, so it can't be moved aside: move what is in it yourself,"
                    " or unmount"
                )
            for data in self.before["places"]["couchdb"]:
                if place.mounted and place.target.startswith(f"{data}/"):
                    raise Refused(
                        f"{place.target} is a file system of its own inside CouchDB's directory {data}: unmount it"
                    )

    @staticmethod
    def _volume_used(docker: backup.Docker, name: str) -> bool:
        try:
            return bool(os.listdir(docker.mountpoint(name)))
        except (OSError, subprocess.SubprocessError):
            return False

    def plan_extraction(self) -> tuple[dict[str, list[str]], int]:
        """Paths that an interrupted run has already extracted in full, by base; and the bytes still to do.
        Says what is needed and raises Refused where there is too little room."""
        items = self.wanted_items()
        done: dict[str, list[str]] = {base: [] for base in self.copy.bases.values()}
        todo: dict[str, int] = dict.fromkeys(done, 0)
        resumed = self._resumed()
        for of in items:
            actual = self.copy.at(of["path"])
            base = actual.removesuffix(of["path"])
            if of["type"] == "-" and resumed and _complete(actual, of):
                done[base].append(of["path"])
            else:
                todo[base] += of["size"]
        total = sum(todo.values())
        files = sum(1 for of in items if of["type"] == "-")
        size = sum(of["size"] for of in items)
        say(estimate(files, size, size - total if resumed else None))
        rest = Place(f"{self.work}/rest")
        require_space([*((place, todo[place.base]) for place in self.places), (rest, todo.get(rest.target, 0))])
        return done, total

    def wanted_items(self) -> list[dict[str, Any]]:
        """What is extracted: of an archive that was made by hand, only what a CHT is made of."""
        items = self.borg.items(self.archive)
        if not self.by_hand:
            return items
        targets = tuple(f"{place.target}/" for place in self.places)
        return [of for of in items if f"{of['path']}/".startswith(targets)]

    def _resumed(self) -> bool:
        """Whether what is beside the targets is of an interrupted extraction of this very archive. After a
        crash of the machine it isn't trusted: not everything may have reached the disk. Nor is it when it has
        failed the checks, unless it is wanted all the same."""
        try:
            with open(self.marker, encoding="utf-8") as file:
                known = json.load(file)
        except (OSError, ValueError):
            return False
        failed = known.pop("failed", False)
        return known == self._mark() and (not failed or bool(self.request.get("despiteProblems")))

    def _mark(self) -> dict[str, Any]:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        known = {"archive": self.archive, "id": self.borg.ids[self.archive], "time": self.before["time"]}
        return {**known, "boot": boot}

    # ---- extracting and verifying -----------------------------------------------------------------------

    def extract(self, done: dict[str, list[str]], total: int) -> None:
        if not self._resumed():
            for base in self.copy.bases.values():
                shutil.rmtree(base, ignore_errors=True)
        backup.write_atomically(self.marker, json.dumps(self._mark()))
        began, finished = time.monotonic(), 0
        with self.guarded():
            for root, base in self.copy.bases.items():
                os.makedirs(base, mode=0o700, exist_ok=True)
                before = _size(base)  # of an interrupted run
                excluded = [f"pf:{path[1:]}" for path in done[base] if "\n" not in path]
                excluded += [f"pp:{other[1:]}" for other in self.copy.bases if other.startswith(f"{root}/")]
                listed = f"{self.work}/excluded"
                backup.write_atomically(listed, "".join(f"{line}\n" for line in excluded), 0o600)
                self.borg.extract(
                    self.archive, ["--exclude-from", listed], *([root[1:]] if root else []),
                    directory=base, progress=_Progress(began, finished, total),
                )  # fmt: skip
                finished += _size(base) - before
            os.remove(f"{self.work}/excluded")
        self._own_directories()
        say(f"extracted in {duration(time.monotonic() - began)}")

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """See to it that what is extracted meanwhile is of the very archive that was looked at. Raises Hostile; then
        the next run doesn't build on it."""
        try:
            self.borg.require_same(self.archive)
            yield
            items = self.borg.items(self.archive)
            for base in self.copy.bases.values():
                if path := unlisted(base, items):
                    raise exchanged(self.archive, f"{path} was extracted, and isn't as it was listed")
        except Hostile:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.marker)
            raise

    def _own_directories(self) -> None:
        """The directories of compose files and .env aren't in the archive: they get the owners and modes that they had.
        Archives from before those were noted down don't have them: there they get their files' owner."""
        places, parents = self.before["places"], self.before.get("parents")
        home = home_of(places)
        if parents is not None:
            for path, of in parents.items():
                actual = self.copy.at(path)
                inside = any(path == place.target or path.startswith(f"{place.target}/") for place in self.places)
                if inside and os.path.isdir(actual):
                    own(actual, of)
            return
        files = [*places["composeFiles"], *([places["environment"]] if places["environment"] else [])]
        for path in files:
            actual = self.copy.at(path)
            if not os.path.exists(actual):
                continue
            owner = os.stat(actual)
            for folder in {os.path.dirname(path), home}:
                os.chown(self.copy.at(folder), owner.st_uid, owner.st_gid)
                os.chmod(self.copy.at(folder), 0o755)

    def verify(self) -> verify.Verdict:
        dropped = verify.drop_views(self.copy, self.before["places"])
        for path, why in dropped.items():
            say(f"note: {path} {why} and is left out; CouchDB builds this view anew")
        if self.by_hand:
            return self._check_by_hand(dropped)
        verdict = verify.verify(self.before, self.after, self.copy, dropped)
        self._tell(verdict)
        return verdict

    def _check_by_hand(self, dropped: Collection[str]) -> verify.Verdict:
        import by_hand as without_manifest

        items, directories = self.wanted_items(), self.before["places"]["couchdb"]
        verdict = without_manifest.check(self.copy, items, directories, dropped)
        self._tell(verdict)
        return verdict

    def _tell(self, verdict: verify.Verdict) -> None:
        for text in verdict.checked:
            self.right(text)
        for text in verdict.notes[: backup.MAX_LINES]:
            self.remark(text)
        for text in verdict.problems:
            self.wrong(text)

    # ---- switching --------------------------------------------------------------------------------------

    def switch(self) -> None:
        """Put everything in its place by renames, noted down first: a run that is interrupted in between is
        finished by the next."""
        self.refuse_data()
        steps: list[dict[str, Any]] = []
        docker = backup.Docker()
        for name in self.before["places"]["volumes"]:
            steps.append(self._prepare_volume(docker, name))
        # The home last: without its compose files nobody takes what is half in place for a CHT, and starts it.
        for place in reversed(self.places):
            made = place.base + place.target
            if place.fixed:
                if place.target in self.before["files"] or place.target == home_of(self.before["places"]):
                    of = os.stat(made)
                    os.chown(place.target, of.st_uid, of.st_gid)
                    os.chmod(place.target, of.st_mode & 0o7777)
                for name in sorted(os.listdir(made)):
                    steps.append({"from": f"{made}/{name}", "to": f"{place.target}/{name}", "aside": None})
            else:
                make_parents(place.target, self.before.get("parents", {}))
                aside = f"{place.target}.before-restore-{self.when}" if place.occupied() else None
                steps.append({"from": made, "to": place.target, "aside": aside})
        self._keep_outside()
        os.sync()
        state = {"archive": self.archive, "steps": steps, "bases": [place.base for place in self.places]}
        backup.write_atomically(self.journal, json.dumps(state, indent=1) + "\n")
        finish_switch(self.journal)

    def _keep_outside(self) -> None:
        """Keep the files that were outside the CHT's home: where they go is for the operator to decide, as an archive
        could name any place of the system."""
        for path in self.before["places"].get("outside", []):
            source, kept = self.copy.at(path), f"{self.work}/outside{path}"
            if not os.path.lexists(source):
                continue
            os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
            subprocess.run(
                ["cp", "--archive", "--no-target-directory", "--remove-destination", source, kept],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            self.remark(
                f"{path} is outside the CHT's home and isn't put in place; it is kept in {kept}. Where the CHT needs"
                f" it: mkdir --parents {shlex.quote(os.path.dirname(path))} &&"
                f" cp --archive {shlex.quote(kept)} {shlex.quote(path)}"
            )

    def _prepare_volume(self, docker: backup.Docker, name: str) -> dict[str, Any]:
        project = project_of(self.before["places"])
        # With these labels `docker compose up` takes the volume for its own.
        labels = {"project": project, "volume": name.removeprefix(f"{project}_")}
        options = [word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}")]
        docker._run("volume", "create", *options, name)
        mountpoint = docker.mountpoint(name)
        source, made = self.copy.at(self.before["places"]["volumes"][name]), f"{mountpoint}.restoring"
        shutil.rmtree(made, ignore_errors=True)
        subprocess.run(["cp", "--archive", source, made], check=True, capture_output=True, text=True)
        if name.endswith("_cht-ssl"):
            self._complete_certificates(made)
        used = bool(os.listdir(mountpoint))
        aside = f"{mountpoint}.before-restore-{self.when}" if used else None
        return {"from": made, "to": mountpoint, "aside": aside}

    def _complete_certificates(self, directory: str) -> None:
        """nginx may have got its certificate by links that lead out of the volume: then the files themselves
        take their place."""
        for what, name in backup.CERTIFICATES.items():
            source = self.before["places"].get(what)
            path = f"{directory}/{name}"
            if source and not os.path.isfile(path):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
                shutil.copy2(self.copy.at(source), path)
                say(f"note: {name} is put into nginx's volume as a file")

    # ---- the running CHT --------------------------------------------------------------------------------

    def start(self, files: manifest.Counts) -> list[str]:
        """Start the containers and ask them. Returns what is wrong, one line each."""
        places = self.before["places"]
        project, home = project_of(places), home_of(places)
        began = time.monotonic()
        compose = [path for path in places["composeFiles"] if path.startswith(f"{home}/compose/")]
        if not compose or project is None or not places["environment"]:
            return ["the CHT can't be started: the archive lacks its compose files, .env or volumes"]
        for path in places.get("outside", []):
            if not os.path.lexists(path):
                return [f"the CHT can't be started without {path}: it is kept in {self.work}/outside{path}"]
        command = ["docker", "compose"] if _works("docker", "compose", "version") else ["docker-compose"]
        words = [*command, "--project-name", project, "--env-file", places["environment"]]
        words += [word for path in compose for word in ("--file", path)]
        say(f"starting: {' '.join(words)} up --detach")
        done = subprocess.run([*words, "up", "--detach"], cwd=home, capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            text = backup.compose.read_text(places["environment"])
            return [f"the containers don't start: {scrub(said[0], secrets_in(text))}"]
        problems = self._ask_database(project, files, places["environment"]) + self._ask_nginx(project)
        if not problems:
            say(f"started and answering after {duration(time.monotonic() - began)}")
        return problems

    def _ask_database(self, project: str, files: manifest.Counts, env_file: str) -> list[str]:
        logins = self._logins(project, env_file)
        user, password = logins[0]
        reason, deadline = "", time.monotonic() + START_LIMIT
        # A cluster's nodes find each other one after the other.
        alone = len(self.before["places"]["couchdb"]) == 1
        while time.monotonic() < deadline:
            if dead := self.dead():
                return [dead]
            other = None
            try:
                address = self._address(project, "couchdb")
                self.server = couch_server.Server(address, user, password)
                counts = backup.ask_couchdb(address, user, password)
                break
            except backup.urllib.error.HTTPError as error:
                # Not the phrase that it sends, which may be anything.
                phrase = http.client.responses.get(error.code, "")
                reason = f"it answers {f'{error.code} {phrase}'.strip()} to the user {user} of .env"
                if error.code == 401 and (user, password) != logins[-1]:
                    user, password = logins[logins.index((user, password)) + 1]
                    continue
                if error.code in (401, 403) and time.monotonic() > deadline - START_LIMIT + 30:
                    return [
                        f"login: CouchDB refuses the user {user} with the password of .env; the volume with"
                        " its credentials and .env don't go together"
                    ]
                if error.code >= 500 and (other := couch_server.of_another_node(self.server, list(files))):
                    reason = other
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                LookupError,
                subprocess.SubprocessError,
            ) as error:
                reason = str(error)
            if other and alone:
                return [other]
            time.sleep(0.5)
        else:
            return [f"CouchDB doesn't answer within {START_LIMIT} s: {reason}{self._state(project, 'couchdb')}"]
        self.right(f"login: CouchDB accepts the user {user} with the password of .env")
        wrong = [f"CouchDB's own answer: {text}" for text in answer_problems(files, counts, self.unsteady())]
        self.answered = counts
        if not wrong:
            documents = sum(of["documents"] for of in counts.values())
            self.right(f"CouchDB itself answers with {len(counts)} databases and {documents:,} documents")
        return wrong

    def unsteady(self) -> set[str]:
        """Databases that were being made or deleted while they were backed up."""
        return set(self.after.get("unsteady", []))

    @staticmethod
    def _logins(project: str, env_file: str) -> list[tuple[str, str]]:
        """Who may log in to CouchDB: what Compose has given its containers is how it reads `.env`."""
        couchdb = []
        with contextlib.suppress(OSError, ValueError, LookupError, subprocess.SubprocessError):
            found = backup.Docker().containers(project)
            couchdb = [of for of in found if of["service"].startswith("couchdb")]
        return backup.logins(couchdb, values_in(backup.compose.read_text(env_file)))

    def dead(self) -> str | None:
        """Why the database can't answer any more; None while it may."""
        project = project_of(self.before["places"])
        for of in self._containers(project, "couchdb"):
            if of["State"]["Status"] == "restarting" and of.get("RestartCount", 0) >= MOST_STARTS:
                return f"CouchDB doesn't start{self._state(project, 'couchdb')}"
        return None

    @staticmethod
    def _containers(project: str | None, service: str) -> list[dict[str, Any]]:
        """What Docker says of a service's containers; nothing where it doesn't answer."""
        docker = backup.Docker()
        try:
            found = [of["id"] for of in docker.containers(str(project)) if of["service"].startswith(service)]
            return json.loads(docker._run("inspect", *found)) if found else []
        except (OSError, ValueError, subprocess.SubprocessError):
            return []

    def _state(self, project: str | None, service: str) -> str:
        """What became of a service's container that doesn't answer, with its last line, to be put behind a reason."""
        told = []
        for of in self._containers(project, service):
            line = ""
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                line = subprocess.run(
                    ["docker", "logs", "--tail", "1", of["Id"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True, errors="replace", timeout=60,
                ).stdout.strip()  # fmt: skip
            told.append(became(of, scrub(line, environment_of(of))))
        return f" ({'; '.join(told)})" if told else ""

    def _ask_nginx(self, project: str) -> list[str]:
        place = f"{self._mountpoint('cht-ssl')}/cert.pem"
        try:
            with open(place, encoding="ascii") as file:
                first = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read(), re.S)
            if first is None:
                return [f"TLS: {place} holds no certificate"]
            wanted = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0])).hexdigest()
        except (OSError, ValueError) as error:
            return [f"TLS: {place} can't be read as a certificate: {error}"]
        reason, deadline = "", time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                shown = ssl.get_server_certificate((self._address(project, "nginx"), 443), timeout=10)
                break
            except (OSError, LookupError, subprocess.SubprocessError) as error:
                reason = str(error)
            time.sleep(0.5)
        else:
            return [f"TLS: nginx doesn't answer on port 443: {reason}{self._state(project, 'nginx')}"]
        if hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest() != wanted:
            return ["TLS: nginx shows another certificate than the restored one; phones may refuse it"]
        say("right: TLS: nginx shows the restored certificate on port 443")
        return []

    def _mountpoint(self, volume: str) -> str:
        project = project_of(self.before["places"])
        return backup.Docker().mountpoint(f"{project}_{volume}")

    @staticmethod
    def _address(project: str, service: str) -> str:
        for of in backup.Docker().containers(project):
            if of["service"].startswith(service) and of["running"] and of["addresses"]:
                return of["addresses"][0]
        raise LookupError(f"no container of the service {service} runs")

    # ---- the run ----------------------------------------------------------------------------------------

    def run(self) -> int:
        self.borg.check_version()
        if os.path.exists(self.journal):
            if self.request.get("dryRun"):
                raise Refused(
                    "an earlier run was interrupted while it put things in place, and only a part is: run the restore"
                    " again without --dry-run, it is finished then"
                )
            say("an earlier run was interrupted while it put things in place; this is finished first")
            finish_switch(self.journal)
        self.choose()
        if self.by_hand:
            self.require_a_cht()
            self.copy.bases.pop("")
        if self._in_place():
            return self._check_in_place()
        self.refuse_data()
        done, total = self.plan_extraction()
        if self.request.get("dryRun"):
            for place in self.places:
                say(f"would put back {place.target}" + (" and move aside what is there" if place.occupied() else ""))
            for name in self.before["places"]["volumes"]:
                say(f"would put back the volume {name}")
            say("dry run: nothing was changed")
            return RIGHT
        self.extract(done, total)
        verdict = self.verify()
        if verdict.problems and not self.request.get("despiteProblems"):
            backup.write_atomically(self.marker, json.dumps({**self._mark(), "failed": True}))
            say(
                f"NOT put in place: {len(verdict.problems)} of the checks failed. What was extracted stays in"
                f" {', '.join(place.base for place in self.places)}. Take another archive, or, where there is"
                " no better one, run again with --despite-problems"
            )
            return WRONG
        self.switch()
        return self._conclude(verdict.problems, verdict.databases)

    def _conclude(self, problems: list[str], databases: manifest.Counts) -> int:
        start = self.request.get("start") and not self.request.get("dryRun")
        if start:
            found = self.start(databases)
            for text in found:
                self.wrong(text)
            problems += found
        home = home_of(self.before["places"])
        took = duration(time.monotonic() - self.began)
        if problems:
            say(f"{self.archive} is in place, but {len(problems)} checks failed ({took})")
            return WRONG
        right = "and whole as far as can be told without a manifest" if self.by_hand else "and right"
        say(f"{self.archive} is restored to {', '.join(place.target for place in self.places)} {right} ({took})")
        if not start and home is not None:
            how = "" if self.by_hand else " (--start does that)"
            say(f"the CHT isn't started{how}: its compose files are in {home}/compose")
        return RIGHT

    def _in_place(self) -> bool:
        """Whether an earlier run put this archive here, and perhaps was stopped before it came to an end."""
        try:
            with open(f"{self.work}/restored.json", encoding="utf-8") as file:
                restored = json.load(file)["archive"]
        except (OSError, ValueError, LookupError):
            return False
        there = all(place.occupied() for place in self.places)
        return restored == self.archive and there and not self.request.get("replace")

    def _check_in_place(self) -> int:
        say("this archive is in place already; it is checked again")
        project = project_of(self.before["places"])
        if project and any(of["running"] for of in backup.Docker().containers(project)):
            if not self.request.get("start"):
                self.refuse_data()
            places = self.before["places"]
            found = couch_files.scan(*places["couchdb"], elsewhere=places.get("elsewhere", {}))
            return self._conclude([], manifest.counts_of(found["databases"]))
        if self.by_hand:
            self.copy = verify.Copy({"": ""})
            verdict = self._check_by_hand([])
            return self._conclude(verdict.problems, verdict.databases)
        # What lies outside the targets (volumes, the collected certificate) was compared when it was put there.
        # What was outside the home is for the operator to put there.
        targets = [place.target for place in self.places]
        kept = {
            path: of for path, of in self.before["files"].items() if any(plan.below(path, target) for target in targets)
        }
        places = {**self.before["places"], "volumes": {}, "certificate": None, "key": None, "outside": []}
        before, verdict = {**self.before, "files": kept, "places": places}, verify.Verdict()
        copy = verify.Copy({"": ""})
        verify.compare_files(before, self.after, copy, set(), True, verdict)
        verify.compare_databases(before, self.after, copy, verdict)
        self._tell(verdict)
        return self._conclude(verdict.problems, verdict.databases)


def own(path: str, of: dict[str, Any]) -> None:
    """Give a directory the owner and mode that a manifest has of it."""
    os.chown(path, of["uid"], of["gid"])
    os.chmod(path, int(of["mode"], 8))


def make_parents(path: str, known: dict[str, dict[str, Any]]) -> None:
    """Make the directories above a path that aren't there, with the owners and modes of the manifest."""
    missing = []
    while (path := os.path.dirname(path)) != "/" and not os.path.isdir(path):
        missing.append(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        os.chmod(folder, 0o755)
        if folder in known:
            own(folder, known[folder])


def require_space(needed: list[tuple[Place, int]]) -> None:
    """Say how many bytes are needed and free on each file system. Raises Refused where there is too little."""
    needs: dict[int, tuple[Place, int]] = {}
    for place, size in needed:
        first, before = needs.get(place.device(), (place, 0))
        needs[place.device()] = (first, before + size)
    for place, size in needs.values():
        free = place.free()
        where = place.target if place.mounted else os.path.dirname(place.target)
        say(f"space: {megabytes(size)} needed, {megabytes(free)} free in {where}")
        if size + SPARE > free:
            raise Refused(
                f"too little space in {where}: {megabytes(size + SPARE)} needed (with a little to spare),"
                f" {megabytes(free)} free"
            )


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _complete(path: str, item: dict[str, Any]) -> bool:
    """Whether a file was extracted in full: borg sets its time when all its content is written."""
    try:
        of = os.lstat(path)
    except FileNotFoundError:
        return False
    wanted = datetime.datetime.fromisoformat(item["isomtime"])
    if wanted.tzinfo is None:
        wanted = wanted.replace(tzinfo=datetime.timezone.utc)
    return of.st_size == item["size"] and abs(of.st_mtime - wanted.timestamp()) < 5e-6


def _size(directory: str) -> int:
    return sum(couch_files.list_files(directory).values())


class _Progress:
    """Says now and then how far the extraction is."""

    def __init__(self, began: float, before: int, total: int) -> None:
        self.began, self.before, self.total, self.said, self.percent = began, before, total, began, -1

    def __call__(self, current: int) -> None:
        now = time.monotonic()
        done = min(self.before + current, self.total)
        # Some hundred lines at most for the hours of a large one: once a minute, or at each percent.
        waited, percent = now - self.said, done * 100 // max(self.total, 1)
        if not self.total or waited < PROGRESS_INTERVAL or (waited < 60 and percent == self.percent):
            return
        self.said, self.percent = now, percent
        left = (self.total - done) * (now - self.began) / max(done, 1)
        say(f"{done / self.total:.0%} extracted: {megabytes(done)} of {megabytes(self.total)}, {duration(left)} left")


def finish_switch(journal: str) -> None:
    """Do what the journal lists and isn't done yet, then forget it. Raises Refused, and keeps it, when a step
    can't be done."""
    with open(journal, encoding="utf-8") as file:
        state = json.load(file)
    for step in state["steps"]:
        if not os.path.lexists(step["from"]):
            continue  # done
        try:
            if step["aside"] and os.path.lexists(step["to"]) and not os.path.lexists(step["aside"]):
                os.rename(step["to"], step["aside"])
                say(f"moved aside: what was in {step['to']} is in {step['aside']}")
            os.rename(step["from"], step["to"])
        except OSError as error:
            raise Refused(
                f"{step['to']} can't be put in place: {error.strerror}. What is in place so far is only a part: don't"
                " start it. Mend that, and run the same command again: it goes on from there"
            ) from error
    for base in state["bases"]:
        shutil.rmtree(base, ignore_errors=True)
    folder = os.path.dirname(journal)
    shutil.rmtree(f"{folder}/rest", ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{folder}/extracting.json")
    backup.write_atomically(f"{folder}/restored.json", json.dumps({"archive": state["archive"]}) + "\n")
    os.remove(journal)
    os.sync()


def list_archives(request: dict[str, Any], _work: str) -> int:
    """Print the newest archives as JSON on the last line, the newest first; before it what there is to remark."""
    borg = Borg(request)
    borg.check_version()
    names = borg.names()
    # Last those that were made by hand, whatever they are called.
    names.sort(key=lambda name: (time_of(name) or "", borg.times.get(name, "")), reverse=True)
    count = min(request.get("last") or len(names), len(names))
    found: list[dict[str, Any]] = []
    said = time.monotonic()
    for name in names[:count]:
        # Each takes a second, and more where the files are large: borg goes through the list of all their chunks.
        if time.monotonic() - said > PROGRESS_INTERVAL:
            said = time.monotonic()
            say(f"{len(found)} of {count} archives read")
        unfinished = {"name": name, "time": time_of(name), "finished": False}
        try:
            before, after = borg.manifests(name)
            if before is None and by_hand(items := borg.items(name)):
                found.append(summary_by_hand(name, borg.times.get(name, ""), items))
            else:
                found.append(summary(name, before, after) if before else unfinished)
        except Damaged as error:
            found.append({**unfinished, "damaged": str(error)})
        except Refused as error:
            borg.names()  # raises when it is the whole repository that can't be read
            found.append({**unfinished, "unreadable": str(error)})
    changed = borg.changed()
    for of in found:
        # An unfinished one changes while its backup goes on.
        if of["finished"] and of["name"] in changed:
            of.update(finished=False, unreadable=f"changed while it was read: {changed[of['name']]}")
    # With what interrupted backups have left: the server's ledger has that, too.
    repository, ids = borg.listing("--consider-checkpoints")
    print(json.dumps({"archives": found, "more": len(names) - count, "repository": repository, "ids": ids}))
    return RIGHT


def stopped(number: int, _frame: Any) -> None:
    for other in backup.SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def end_with_input() -> None:
    """Stop when the operator's side is gone: its end of the standard input is closed then."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def would_install_docker(request: dict[str, Any]) -> bool:
    """Whether this is a dry run of a restore that would have installed Docker."""
    return bool(request.get("dryRun") and request.get("installDocker")) and shutil.which("docker") is None


def require_docker(request: dict[str, Any]) -> None:
    """Raises Refused where Docker doesn't answer."""
    if (why := backup.Docker().stopped) and not would_install_docker(request):
        raise Refused(
            f"Docker is needed for a CHT's volumes, and doesn't answer: {why}. Nothing was fetched. Add"
            " --install-docker, or install and start it yourself"
        )


def from_bucket(
    action: Callable[[dict[str, Any], str], int],
    request: dict[str, Any],
    work: str,
    tell: Callable[[str], None],
    needs_docker: bool = False,
) -> int:
    """Fetch the repository from the bucket, and do what is asked with it. It stays for a next run, and goes when a
    restore has succeeded; where only the repository is asked for, that is all. Raises Refused."""
    # Only here: elsewhere these files aren't beside this one.
    import bucket
    import bucket_fetch

    place, directory = request["bucket"], request["repository"]
    dry_run, only_list = bool(request.get("dryRun")), "last" in request
    only_fetch = bool(request.get("repositoryOnly"))
    # Before hours of fetching. Which volumes there are is known only after them, but a CHT in Docker has some.
    Borg(request).check_version()
    if needs_docker and not only_fetch:
        require_docker(request)
    try:
        there = bucket_fetch.fetch(place, directory, tell, dry_run)
    except bucket_fetch.Refused as error:
        raise Refused(str(error)) from error
    except bucket.BucketError as error:
        raise Refused(f"{error}. What was fetched stays, and the next run goes on from there") from error
    if dry_run and (only_fetch or not there):
        known = "" if only_fetch else ". Which archive it is, and its size, is known once the repository is here"
        tell(f"dry run: nothing was fetched{known}")
        return RIGHT
    if only_fetch:
        # What borg writes there from now on must not be taken for something that another run may change.
        os.remove(f"{directory}.fetched.json")
        tell(f"the repository is in {directory}")
        return RIGHT
    done = False
    try:
        code = action(request, work)
        done = code == RIGHT and not dry_run and not only_list
        return code
    except (Damaged, Empty) as error:
        raise Refused(f"{error}. For an earlier copy in the bucket: --copy-as-of") from error
    finally:
        # The operator may be gone; what the action said or raised counts all the same.
        with contextlib.suppress(OSError):
            if done:
                remove_fetched(directory, tell)
            else:
                tell(f"the fetched repository stays in {directory}; a restore that succeeds removes it")


def remove_fetched(directory: str, tell: Callable[[str], None]) -> None:
    """Remove the repository that was fetched. What can't go stays and is named, as the restore has succeeded: a mount
    point is left empty."""
    try:
        for entry in list(os.scandir(directory)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.remove(entry.path)
        # Last, as it says that the directory is ours to change.
        os.remove(f"{directory}.fetched.json")
        os.rmdir(directory)
    except OSError as error:
        left = os.path.isdir(directory) and os.listdir(directory)
        what = "not all of it could be removed" if left else "it is empty and stays"
        tell(f"note: {directory}, where the repository was fetched to: {what} ({error.strerror})")
    else:
        tell(f"removed: {directory}, the repository that was fetched")


def forget_other_runs(work: str, own: str) -> None:
    """Remove the scripts and keys of runs whose operator's computer died; after a day such a key is void."""
    for path in pathlib.Path(work).glob("run.*"):
        if str(path) != own and path.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)


def read_line() -> str:
    """The first line of the standard input, and not a byte more."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="restore.py",
        description="Restore a CHT deployment onto this machine from its borg repository, or list the archives."
        " Reads one line of JSON from standard input: repository, passphrase, baseDirectory, sshConfig or bucket (what"
        " bucket_fetch.py reads; the repository is fetched first), and optionally archive, asOf (UTC), last, dryRun,"
        " replace, start, despiteProblems, repositoryOnly. It stops when standard input ends.",
        epilog="Exit codes: 0 done, and everything checked is right; 1 a check failed, which is named, and what"
        " was extracted is in place only when that is said; 2 refused or not possible, the reason is named;"
        " 143 or 130 stopped: run it again, it goes on from there.",
    )
    parser.add_argument("action", choices=("list", "restore"))
    parser.add_argument("work", metavar="DIRECTORY", help="where this program keeps its notes")
    options = parser.parse_args(arguments)
    if options.action == "list":
        return perform(list_archives, options.work)
    return perform(lambda request, work: Restore(request, work).run(), options.work, needs_docker=True)


def perform(action: Callable[[dict[str, Any], str], int], work: str, needs_docker: bool = False) -> int:
    """Do what the line on standard input asks for, alone on this machine, until standard input ends. Returns
    the exit code."""
    os.umask(0o077)
    if os.getuid() != 0:
        backup.complain("a restore must run as root")
        return REFUSED
    for number in backup.SIGNALS:
        signal.signal(number, stopped)
    try:
        request = json.loads(read_line())
        dry_run = bool(request.get("dryRun"))
        # A dry run makes nothing; where there is no lock, no other run is there either.
        if not dry_run:
            os.makedirs(work, mode=0o700, exist_ok=True)
        if not dry_run or os.path.exists(f"{work}/lock"):
            lock = os.open(f"{work}/lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            forget_other_runs(work, os.path.dirname(request["baseDirectory"]))
        threading.Thread(target=end_with_input, daemon=True).start()
        if "bucket" in request:
            # A list is printed as JSON, with nothing beside it.
            tell = backup.complain if "last" in request else say
            return from_bucket(action, request, work, tell, needs_docker)
        return action(request, work)
    except BlockingIOError:
        backup.complain("another restore is running on this machine")
        return REFUSED
    except Refused as error:
        backup.complain(str(error))
        return REFUSED
    except Stopped as error:
        backup.complain(f"stopped by {error}; the next run goes on from here")
        return 143
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        backup.complain(backup._reason(error))
        return REFUSED
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {backup._reason(error)}"
        backup.complain(f"unexpected: {reason}; the archive may be of another kind")
        return REFUSED


if __name__ == "__main__":
    exit_with(main)
