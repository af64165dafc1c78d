#!/usr/bin/env python3
"""Prove that the newest archive of a CHT deployment restores: fetch it as a restore does, verify it, start CouchDB
on the copy in a network that leads no further than this machine, compare its counts, read a portion of its documents,
remove everything again, and report.

Run by the unit `cht-drill-<deployment>.service`. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from typing import Any

import backup
import compose_text
import plan
import reading
import restore
import verify
from backup import Stopped, megabytes, moment, say
from plain import BUG, complain_of_bug, exit_with
from reports import Reports, new_report, origin
from restore import Refused, duration, scrub

RIGHT, WRONG, IMPOSSIBLE = 0, 1, 2
STATE = "/var/lib/cht-backup"
SETTINGS = "/etc/cht-backup"
LABEL = "cht-backup.drill"
MARKER = ".made-by-cht-drill"
GIGABYTE = 1e9
# borg holds a lock for as long as it extracts, and a backup waits ten minutes for it: so it is fetched in portions.
PORTION = GIGABYTE
# A backup that waits looks five times a second whether the readers have gone.
PAUSE = 2
LOCK_WAIT = 12 * 3600
HELD_LONG = 540  # seconds, after which a backup that waits may give up
WATCH_INTERVAL = 1
COMPOSE_TIMEOUT = 300
PULL_TIMEOUT = 3600
LOG_LINES = 12
# What CouchDB writes of its own accord once it runs.
GROWTH = 1.1
ROUTELESS = 25  # Docker's first version that gives an internal network no default route
# What a database needs to take over its files and to drop its privileges; nothing else is left to it.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]
TAKEN = ("command", "entrypoint", "environment", "hostname", "image", "ulimits", "user", "working_dir")
"""Of a service in the archive's compose files. No ports, no devices, no privileges, no other files."""


class TooLittle(BaseException):
    """The disk fills up while the drill runs."""


# ---- decisions ------------------------------------------------------------------------------------------


def portions(items: list[dict[str, Any]], size: float) -> list[list[str]]:
    """Files to fetch one portion after the other, before a last one that takes all that is left.

    `items` are those of `restore.Borg.items`; a portion has at most `size` bytes, or is a single larger file. Paths
    that a line of borg's pattern file can't hold are left to the last.
    """
    found: list[list[str]] = []
    filled = 0
    for item in items:
        if item["type"] != "-" or not item["size"] or item["path"] != " ".join(item["path"].split()):
            continue
        if not found or filled + item["size"] > size:
            found.append([])
            filled = 0
        found[-1].append(item["path"])
        filled += item["size"]
    return found[:-1]


def patterns(fetched: list[list[str]], number: int) -> str:
    """borg's pattern file for a portion of `portions`; the number after the last one means all that is left."""
    if number < len(fetched):
        return "".join(f"+ pf:{path[1:]}\n" for path in fetched[number]) + "- re:.\n"
    return "".join(f"- pf:{path[1:]}\n" for of in fetched for path in of)


def reserve(size: float) -> float:
    """Bytes of a file system of `size` bytes that a drill leaves free, for whoever else works there."""
    return max(GIGABYTE, size * 0.02)


def too_little(needed: float, free: float, size: float, limit: float) -> str | None:
    """Why there is no room for a drill; sizes in bytes, `limit` 0 for none."""
    if limit and needed > limit:
        return (
            f"it takes {megabytes(needed)} of scratch space, and scratchGibibytes allows {megabytes(limit)}:"
            " raise it, or let another machine drill"
        )
    if needed + reserve(size) > free:
        return (
            f"it takes {megabytes(needed)} of scratch space and {megabytes(reserve(size))} that stay free, and"
            f" {megabytes(free)} are free: make room, or choose another scratch directory"
        )
    return None


def too_many(needed: int, of: os.statvfs_result) -> str | None:
    """Why there is no room for so many more files and directories on a file system."""
    if not of.f_files:  # it makes inodes as it needs them
        return None
    if needed + of.f_files // 50 > of.f_favail:
        return (
            f"it makes {needed:,} files and directories, and {of.f_favail:,} more are possible on that disk (inodes),"
            f" of which {of.f_files // 50:,} stay free: make room, or choose another scratch directory"
        )
    return None


def filling_up(of: os.statvfs_result, path: str) -> str | None:
    """Why a drill must end before the file system of its scratch directory `path` is full for others; None while
    it needn't."""
    free, least = of.f_bavail * of.f_frsize, reserve(of.f_blocks * of.f_frsize)
    texts = (megabytes(free), megabytes(least)) if free < least else None
    if of.f_files and of.f_favail < of.f_files // 50:
        texts = (f"{of.f_favail:,} inodes", f"{of.f_files // 50:,}")
    if texts is None:
        return None
    return f"the disk with {path} fills up: {texts[0]} are free, and {texts[1]} must stay free; the drill was ended"


def own_text(path: str) -> str:
    """The text of a file that is nobody else's: a regular one, with no link in its path and no second name. Raises
    ValueError saying what else it is."""
    try:
        of = os.lstat(path)
        if os.path.realpath(path) != path or not stat.S_ISREG(of.st_mode) or of.st_nlink != 1:
            raise ValueError("it is a link or no file")
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"it can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("it isn't UTF-8") from None


def data_services(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services of CouchDB: one, or one for each node of a cluster. `config` is what Compose says of the
    archive's files. (CHT 5's `couchdb-nouveau` holds an index that CouchDB can do without.)"""
    return {
        name: of
        for name, of in config.get("services", {}).items()
        if name.startswith("couchdb")
        and any(mount.get("target") == plan.DATA_IN_CONTAINER for mount in of.get("volumes") or [])
    }


def compose_file(
    config: dict[str, Any],
    places: dict[str, Any],
    copy: verify.Copy,
    settings: dict[str, Any],
    engine: dict[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """A compose file that starts the archive's CouchDB on the copy, and notes about what is different.

    Whoever made the archive may mean harm, so only what is named in TAKEN comes from its compose files, and only
    what is in the copy is mounted. `engine` says which limits the Docker engine can set (`docker info`). Raises
    Refused when the compose files and the archive don't go together.
    """
    services = data_services(config)
    if not services:
        raise Refused("the archive's compose files have no service couchdb that mounts its data")
    names = {key: of.get("name", key) for key, of in (config.get("volumes") or {}).items()}
    made, notes = {}, []
    for name, of in services.items():
        volumes = []
        for mount in of.get("volumes") or []:
            source, target = str(mount.get("source", "")), mount["target"]
            if mount.get("type") == "volume":
                place = places["volumes"].get(names.get(source, source))
            elif source in places["couchdb"] or _holds(source, places):
                place = source
            else:  # a relative path depends on how Compose was called
                alone = target == plan.DATA_IN_CONTAINER and len(services) == len(places["couchdb"]) == 1
                place = places["couchdb"][0] if alone else None
            if place is not None:
                options = {"create_host_path": False}
                volumes.append({"type": "bind", "source": copy.at(place), "target": target, "bind": options})
            elif target == plan.DATA_IN_CONTAINER:
                raise Refused(f"the service {name} has its data in {source}, which is not in the archive")
            elif mount.get("type") == "volume" and any(source.endswith(volume) for volume in backup.VOLUMES):
                raise Refused(f"the service {name} uses the volume {names.get(source, source)}, not in the archive")
            else:
                notes.append(f"{name}: {source or 'what is mounted'} at {target} isn't in the archive; left out")
        aliases = {alias for net in (of.get("networks") or {}).values() for alias in (net or {}).get("aliases") or []}
        service = {key: of[key] for key in TAKEN if of.get(key) is not None}
        made[name] = {
            **service,
            **({"image": settings["image"]} if settings.get("image") else {}),
            **limits(settings, engine, len(services)),
            "volumes": volumes,
            "networks": {"drill": {"aliases": sorted({name, *aliases})}},
            "labels": {LABEL: settings["deployment"]},
            "restart": "no",
            "cap_drop": ["ALL"],
            "cap_add": CAPABILITIES,
            "security_opt": ["no-new-privileges:true"],
            "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
        }
    return {"services": made, "networks": {"drill": {"external": True, "name": settings["network"]}}}, notes


def _holds(source: str, places: dict[str, Any]) -> bool:
    """Whether a directory is, or has in it, what is mounted into CouchDB's data or what a link in it leads to."""
    return source.strip("/") != "" and any(plan.below(of, source) for of in places.get("elsewhere", {}).values())


def limits(settings: dict[str, Any], engine: dict[str, Any], containers: int) -> dict[str, Any]:
    """Limits of each of some containers. One that the engine can't set would be refused by it."""
    memory = f"{settings['memoryMebibytes'] // containers}m"
    return {
        **({"mem_limit": memory} if engine.get("MemoryLimit") else {}),
        **({"memswap_limit": memory} if engine.get("MemoryLimit") and engine.get("SwapLimit") else {}),
        **({"cpus": round(settings["cpus"] / containers, 2)} if engine.get("CpuCfsQuota") else {}),
        **({"pids_limit": 2048} if engine.get("PidsLimit") else {}),
    }


def unlimited(engine: dict[str, Any]) -> str | None:
    """A note about limits that the engine can't set."""
    wanted = {"memory": "MemoryLimit", "CPU": "CpuCfsQuota"}
    missing = [what for what, flag in wanted.items() if not engine.get(flag)]
    return f"this machine's Docker engine can't limit {' and '.join(missing)}" if missing else None


def network_problem(network: dict[str, Any] | None, name: str) -> str | None:
    """Why the database can't be started in a Docker network, described by `docker network inspect`."""
    make = (
        f"`docker network create --internal {name}` on this machine, as root, makes it; with the setting"
        " cht-backup:drill.manageDocker `pulumi up` does"
    )
    if network is None:
        return f"the Docker network {name} is missing: {make}"
    if not network.get("Internal"):
        return (
            f"the Docker network {name} isn't internal, so the restored CouchDB could reach others with the data"
            f" of real people: remove it (`docker network rm {name}`); {make} anew"
        )
    others = sorted(of.get("Name", "?") for of in (network.get("Containers") or {}).values())
    if others:
        return f"the Docker network {name} is for drills alone, but these use it: {', '.join(others)}"
    return None


def way_out(routes: str, routes6: str) -> bool:
    """Whether a container has a default route, by its /proc/PID/net/route and ipv6_route."""
    default = any(line.split()[1:2] == ["00000000"] for line in routes.splitlines())
    lines6 = (line.split() for line in routes6.splitlines())
    # The kernel's own entry that refuses everything is on `lo`.
    return default or any(of[0] == "0" * 32 and of[1] == "00" and of[-1] != "lo" for of in lines6 if len(of) > 2)


def open_network(name: str, version: str) -> str:
    """What to say where a container in this network has a default route. `version` is the Docker engine's."""
    said = f"the restored CouchDB has a route out of this machine in the network {name}"
    major = re.match(r"(\d+)\.", version)
    if major and int(major[1]) < ROUTELESS:
        return f"{said}: this machine's Docker, {version}, gives one to all networks. Drills take {ROUTELESS} or newer"
    return said


def death(containers: list[dict[str, Any]], memory: int, number: int) -> str | None:
    """Why CouchDB will never answer, by `docker inspect` of its containers; None while it may. `memory` is the
    limit of all in MiB, `number` how many there must be."""
    if len(containers) < number:
        return "a container of CouchDB is gone: somebody removed it"
    for of in containers:
        state = of["State"]
        name = of["Config"]["Labels"].get("com.docker.compose.service", "couchdb")
        if state.get("OOMKilled"):
            return f"{name} needed more memory than the limit of {memory} MiB (memoryMebibytes) and was ended"
        if state.get("Status") in ("exited", "dead"):
            return f"{name} ended at once (exit code {state.get('ExitCode')}): the database doesn't start on this copy"
        if (state.get("Health") or {}).get("Status") == "unhealthy":
            return f"{name} runs, but its own health check fails"
    return None


def secrets_of(environment: dict[str, Any]) -> list[str]:
    """What of an environment must not be shown: every value but the shortest, whatever its name. Compose writes
    each dollar sign twice."""
    values = [str(value).replace("$$", "$") for value in environment.values() if value is not None]
    return [value for value in values if len(value) >= 6]


def overdue(latest: dict[str, Any] | None, since: float, now: float, days: float, deployment: str) -> str | None:
    """A sentence when no drill has succeeded for too long, or ever. `since` is when drills were set up."""
    last = (latest or {}).get("lastSuccessAt")
    if last and last > now + restore.DAY:  # of a wrong clock: it would be young for ever
        last = None
    if now - (last or since) <= days * 86400:
        return None
    past = f"since {moment(last)}" if last else f"ever, and they were set up at {moment(since)}"
    text = f"no restore drill of {deployment} has succeeded {past}; {days:g} days are allowed"
    if latest and latest["problems"]:
        text += f". The last one ({latest['finished']}): {latest['problems'][0]}"
    return text


def source_of(wanted: str, latest: dict[str, Any] | None) -> str:
    """`server` or `bucket`: where a drill takes the repository from. `wanted` may also be `alternating`: then it is the
    one that the `latest` report (None: there is none) isn't about."""
    if wanted != "alternating":
        return wanted
    return "bucket" if (latest or {}).get("from", "server") == "server" else "server"


def read_settings(path: str) -> dict[str, Any]:
    """Read drill.json. Raises Refused naming the file and what is wrong in it."""
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: can't be read as settings: {error}") from error

    def number(least: float) -> Any:
        return lambda value: type(value) in (int, float) and value >= least

    def text(pattern: str) -> Any:
        return lambda value: isinstance(value, str) and re.fullmatch(pattern, value)

    def in_order(bucket: Any) -> bool:
        of = bucket if isinstance(bucket, dict) else {}
        texts = all(text(".+")(of.get(name)) for name in ("bucket", "region", "credentials", "python"))
        return texts and isinstance(of.get("repositories"), list) and number(0)(of.get("maxAgeHours"))

    rules = {
        "deployment": (text(r"[a-z][a-z0-9-]{0,30}"), "a small letter, then up to 30 of a-z, 0-9 and -"),
        "repository": (text(r".+"), "a repository as borg names it"),
        "scratch": (lambda value: text(r"/.+")(value) and os.path.normpath(value) == value, "an absolute path"),
        "scratchGibibytes": (number(0), "a number, 0 for no limit"),
        "keep": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
        "overdueAfterDays": (lambda value: number(0)(value) and value > 0, "a number of days"),
        "network": (text(r"[A-Za-z0-9][A-Za-z0-9_.-]*"), "a Docker network's name"),
        "image": (lambda value: value is None or text(r"\S+")(value), "an image's name or null"),
        "pull": (lambda value: type(value) is bool, "true or false"),
        "memoryMebibytes": (lambda value: type(value) is int and value >= 64, "a whole number from 64"),
        "cpus": (lambda value: number(0)(value) and value > 0, "a number above 0"),
        "from": (text("server|bucket|alternating"), "server, bucket or alternating"),
    }
    if isinstance(settings, dict):
        settings.setdefault("from", "server")
        if settings["from"] != "server":
            rules["bucket"] = (in_order, "what says where the bucket is, with python, repositories and maxAgeHours")
    for name, (allows, what) in rules.items():
        if not isinstance(settings, dict) or not allows(settings.get(name)):
            raise Refused(f"{path}: {name} must be {what}")
    if f"{settings['scratch']}/".startswith(("/tmp/", "/var/tmp/")):
        # The unit has a /tmp of its own, which Docker doesn't see.
        raise Refused(f"{path}: scratch must not be below /tmp or /var/tmp")
    return settings


# ---- the drill ------------------------------------------------------------------------------------------


class Borg(restore.Borg):
    lock_wait = LOCK_WAIT


class Watch(threading.Thread):
    """Ends the drill in order when others need the disk."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.done = threading.Event()
        self.why = ""

    def run(self) -> None:
        while not self.done.wait(WATCH_INTERVAL):
            if why := filling_up(os.statvfs(self.path), self.path):
                self.why = why
                os.kill(os.getpid(), signal.SIGUSR1)
                return


class Drill(restore.Restore):
    """One drill on this machine."""

    def __init__(self, settings: dict[str, Any], report: dict[str, Any], reports: Reports) -> None:
        deployment = settings["deployment"]
        folder = f"{SETTINGS}/{deployment}"
        try:
            with open(f"{folder}/passphrase", encoding="utf-8") as file:
                passphrase = file.read().rstrip("\n")
        except OSError as error:
            raise Refused(f"{folder}/passphrase can't be read ({error.strerror}): `pulumi up` makes it") from None
        request = {
            "repository": settings["repository"],
            "passphrase": passphrase,
            "baseDirectory": f"{STATE}/{deployment}/borg",
            "sshConfig": f"{folder}/ssh_config",
        }
        self.settings = settings
        self.report = report
        self.reports = reports
        self.project = project(settings)
        self.scratch = Scratch(settings)
        self.held = 0
        """Bytes of the scratch space that the fetched repository takes."""
        if report["from"] == "bucket":
            # Not with what borg knows of the repository on the server: it would find that one moved.
            request = {
                "repository": f"{self.scratch.path}/repository",
                "passphrase": passphrase,
                "baseDirectory": f"{self.scratch.path}/borg",
            }
        super().__init__(request, f"{self.scratch.path}/work")
        self.borg = Borg(request)
        self.secrets = [passphrase]
        self.docker = backup.Docker()
        self.engine: dict[str, Any] = {}
        self.containers = 0

    # What a restore says is kept for the report.

    def remark(self, text: str) -> None:
        self.report["notes"].append(text)
        super().remark(text)

    def suspect(self, text: str) -> None:
        self.wrong(text)

    def right(self, text: str) -> None:
        self.report["checked"].append(text)
        super().right(text)

    def wrong(self, text: str) -> None:
        text = scrub(text, self.secrets)
        self.report["problems"].append(text)
        super().wrong(text)

    def stage(self, text: str) -> None:
        self.report["stage"] = text
        self.reports.mark(self.report)

    def run(self) -> int:
        """Make the drill; what it finds is in the report. Raises Refused."""
        self.borg.check_version()
        if self.docker.stopped:
            raise Refused(f"Docker doesn't answer: {self.docker.stopped}")
        self.check_network()
        self.engine = json.loads(self.docker._run("info", "--format", "{{json .}}"))
        self.scratch.make()
        watch = Watch(self.scratch.path)
        try:
            watch.start()
            self.work_through()
        except TooLittle:
            raise Refused(watch.why) from None
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            watch.done.set()
        self.report["outcome"] = "wrong" if self.report["problems"] else "right"
        self.report["stage"] = "done"
        return WRONG if self.report["problems"] else RIGHT

    def work_through(self) -> None:
        if self.report["from"] == "bucket":
            self.fetch_repository()
        self.stage("choosing the archive")
        self.choose()
        self.check_images()
        self.stage("fetching the archive")
        self.fetch()
        self.stage("verifying the files")
        verdict = self.verify()
        self.report["counts"] = {name: of["documents"] for name, of in sorted(verdict.databases.items())}
        if verdict.problems:
            self.remark("CouchDB wasn't started, as the checks before that failed; a restore stops here, too")
            return
        self.stage("starting CouchDB")
        self.start_database()
        self.stage("asking CouchDB")
        env_file = self.at(self.before["places"]["environment"])
        problems = self._ask_database(self.project, verdict.databases, env_file)
        for text in problems:
            self.wrong(text)
        if problems:
            self.keep_log()
        for name, of in self.answered.items():
            self.report["counts"][name] = of["documents"]
        if not problems:
            self.stage("reading documents")
            self.read_documents()

    def choose(self) -> None:
        super().choose()
        self.copy = verify.Copy({"": self.scratch.copy})
        began = backup.datetime.datetime.fromisoformat(self.before["time"].replace("Z", "+00:00")).timestamp()
        age = max(self.report["beganAt"] - began, 0)
        if began > self.report["beganAt"] + restore.DAY:
            self.wrong(f"{self.archive} says that it was begun at {self.before['time']}, which is in the future")
        self.report.update(archive=self.archive, archiveTime=self.before["time"], archiveAgeSeconds=round(age))
        days = self.settings["overdueAfterDays"]
        if age > days * restore.DAY:
            self.wrong(
                f"the newest finished archive is {duration(age)} old, and {days:g} days are allowed: backups have"
                " stopped, or don't come to their end"
            )
        if missing := self.reports.ledger().compare(self.borg.repository_id, self.borg.ids):
            self.wrong(missing)
        if self.report["from"] == "bucket":
            import bucket_source

            if why := bucket_source.archive_too_old(age, self.settings["bucket"]["maxAgeHours"]):
                self.wrong(why)
        for root in verify.roots_of(self.before["places"]):
            if f"{self.settings['scratch']}/".startswith(f"{root}/") and os.path.isdir(root):
                raise Refused(f"the scratch directory is inside {root}, which is backed up: choose another")

    def fetch_repository(self) -> None:
        """Take the repository as its newest copy in the bucket has it into the scratch directory. Raises Refused."""
        # Only here: elsewhere this file isn't beside this one.
        import bucket_source

        self.stage("choosing the copy in the bucket")
        place = self.settings["bucket"]
        copy = bucket_source.newest(place)
        self.report["copy"] = {
            **{name: copy[name] for name in ("copy", "number", "finished", "files")},
            "bucket": place["bucket"],
            "bytes": copy["size"],
            "ageSeconds": round(max(self.report["beganAt"] - copy["finishedAt"], 0)),
        }
        say(f"the repository is taken from {origin(self.report)}")
        for text in bucket_source.doubts(copy, self.report["beganAt"], place["maxAgeHours"]):
            self.wrong(text)
        self.check_room(copy["size"])
        self.stage("fetching the repository from the bucket")
        bucket_source.fetch(place, copy, f"{self.scratch.path}/repository")
        self.held = copy["size"]
        self.right(f"copy: {copy['files']} files fetched from the bucket, each by its version and with its checksum")

    def check_room(self, needed: float) -> None:
        """See to it that there is room for so many bytes more. Raises Refused."""
        of = os.statvfs(self.scratch.path)
        free, size = of.f_bavail * of.f_frsize, of.f_blocks * of.f_frsize
        say(f"{megabytes(needed)} of scratch space needed, {megabytes(free)} free")
        limit = self.settings["scratchGibibytes"] * 1024**3
        if why := too_little(needed + self.held, free + self.held, size, limit):
            raise Refused(why)

    # ---- fetching and verifying -------------------------------------------------------------------------

    def fetch(self) -> None:
        items = self.borg.items(self.archive)
        total = sum(of["size"] for of in items)
        files = sum(1 for of in items if of["type"] == "-")
        self.report["sizes"] = {"files": files, "bytes": total}
        self.check_room(total * GROWTH)
        if why := too_many(len(items), os.statvfs(self.scratch.path)):
            raise Refused(why)
        known, began, finished, longest = {of["path"]: of["size"] for of in items}, time.monotonic(), 0, 0.0
        fetched = portions(items, PORTION)
        os.mkdir(self.scratch.copy, 0o700)
        with self.guarded():
            for number in range(len(fetched) + 1):
                if number:
                    time.sleep(PAUSE)
                listed = f"{self.work}/patterns"
                os.makedirs(self.work, mode=0o700, exist_ok=True)
                backup.write_atomically(listed, patterns(fetched, number), 0o600)
                locked = time.monotonic()
                self.borg.extract(
                    self.archive, ["--patterns-from", listed],
                    directory=self.scratch.copy, progress=restore._Progress(began, finished, total),
                )  # fmt: skip
                longest = max(longest, time.monotonic() - locked)
                finished += sum(known[path] for path in fetched[number]) if number < len(fetched) else 0
        took = time.monotonic() - began
        self.report["fetchSeconds"] = round(took, 1)
        say(f"fetched in {duration(took)}, {len(fetched) + 1} portions")
        if longest > HELD_LONG:
            self.remark(
                f"a single file kept the repository locked for {duration(longest)}; a backup waits 10 min, so let"
                " the drill begin when no backup does"
            )

    def verify(self) -> verify.Verdict:
        # Nothing is dropped before: a restore does without a view that is ahead of its shard, but no backup
        # should hold one.
        verdict = verify.verify(self.before, self.after, self.copy, [])
        self._tell(verdict)
        return verdict

    # ---- the database -----------------------------------------------------------------------------------

    def check_network(self) -> None:
        name = self.settings["network"]
        try:
            network = json.loads(self.docker._run("network", "inspect", name))[0]
        except subprocess.CalledProcessError:
            network = None
        if why := network_problem(network, name):
            raise Refused(why)

    def check_images(self) -> None:
        """See to it, before hours of fetching, that the image is here that the production ran."""
        ran = [of for of in self.before["containers"] if of["service"].startswith("couchdb")]
        names = {self.settings["image"]} if self.settings["image"] else {of["image"] for of in ran}
        for name in sorted(names):
            self.have_image(name)
        if self.settings["image"] and not any(self.settings["image"] in (of["image"], *of["digests"]) for of in ran):
            there = ", ".join(sorted({of["image"] for of in ran})) or "unknown"
            self.remark(f"CouchDB's image is {self.settings['image']} by the settings; the production ran {there}")

    def have_image(self, name: str) -> dict[str, Any]:
        """What `docker image inspect` says of an image. One that isn't here is fetched by its own name, where the
        settings allow that. Raises Refused."""
        try:
            return json.loads(self.docker._run("image", "inspect", name))[0]
        except subprocess.CalledProcessError:
            if not self.settings["pull"]:
                raise Refused(
                    f"CouchDB's image {name} isn't on this machine, and what an archive names isn't fetched here:"
                    " load it (`docker load`), or name one in cht-backup:drill.couchdbImage"
                ) from None
            say(f"the image {name} isn't on this machine; pulling it")
        try:
            subprocess.run(
                ["docker", "pull", "--quiet", name], capture_output=True, text=True, check=True, timeout=PULL_TIMEOUT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            self.remark(f"the image {name} wasn't on this machine and was pulled")
            return json.loads(self.docker._run("image", "inspect", name))[0]
        except subprocess.SubprocessError as error:
            raise Refused(
                f"CouchDB's image {name} isn't on this machine and can't be pulled ({backup._reason(error)}): load it"
                " (`docker load`), or name another one in the settings"
            ) from None

    def start_database(self) -> None:
        places = self.before["places"]
        config = self.resolve(places)
        for service in config.get("services", {}).values():
            self.secrets += secrets_of(service.get("environment") or {})
        made, notes = compose_file(config, places, self.copy, self.settings, self.engine)
        for text in [*notes, *filter(None, [unlimited(self.engine)])]:
            self.remark(text)
        images = sorted({of["image"] for of in made["services"].values()})
        self.report["image"] = ", ".join(images)
        self.compare_images(images)
        for of in made["services"].values():
            for mount in of["volumes"]:
                if os.path.realpath(mount["source"]) != mount["source"]:
                    raise Refused(f"{self.copy.plain(mount['source'])} in the archive leads elsewhere; not mounted")
        say(f"starting {', '.join(made['services'])} in the network {self.settings['network']}")
        self.containers = len(made["services"])
        # The passwords go through the standard input: they are in no argument list and in no further file.
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, "--file", "-", "up", "--detach", "--no-build",
             "--pull", "never"],
            input=json.dumps(made), capture_output=True, text=True, cwd=self.scratch.copy, timeout=COMPOSE_TIMEOUT,
            env=self.environment(),
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            # Its image's name and directories are in .env, too, so this isn't left out of other texts.
            values = secrets_of(restore.values_in(own_text(self.at(places["environment"]))))
            raise Refused(scrub(f"CouchDB's container doesn't start: {said}", [*self.secrets, *values]))
        self.check_isolation()

    def resolve(self, places: dict[str, Any]) -> dict[str, Any]:
        """What Compose says of the archive's own compose files and .env. Raises Refused."""
        home = restore.home_of(places)
        files = [path for path in places["composeFiles"] if path.startswith(f"{home}/compose/")]
        name = restore.project_of(places)
        if not files or name is None or not places["environment"]:
            raise Refused("CouchDB can't be started: the archive lacks its compose files, .env or volumes")
        # Compose, as root, reads whatever these name, and quotes it in its errors.
        written, foreign = [], []
        os.makedirs(self.work, mode=0o700, exist_ok=True)
        for path in [places["environment"], *files]:
            try:
                text = own_text(self.at(path))
                if path in files:
                    text, foreign = compose_text.anew(text, lambda name: self.archived(name, f"{home}/compose"))
                    written.append(f"{self.work}/compose-{len(written)}.yml")
                    backup.write_atomically(written[-1], text, 0o600)
            except ValueError as error:
                raise Refused(f"CouchDB can't be started: {path} in the archive: {error}") from None
            if foreign:
                raise Refused(
                    f"CouchDB can't be started: {path} in the archive reads other files ({', '.join(foreign)}), which"
                    " a drill doesn't allow, as they could be anybody's"
                )
        words = ["--env-file", self.at(places["environment"])]
        words += ["--project-directory", self.copy.at(f"{home}/compose")]
        words += [word for path in written for word in ("--file", path)]
        # The production's name gives the volumes their names. Nothing but text is made here.
        done = subprocess.run(
            ["docker", "compose", "--project-name", name, *words, "config", "--format", "json"],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=self.scratch.copy, timeout=COMPOSE_TIMEOUT,
            env=self.environment(),
        )  # fmt: skip
        if done.returncode != 0:
            raise Refused(
                "the archive's compose files can't be read with this machine's Docker Compose (2 is needed):"
                f" `docker compose config` ends with exit code {done.returncode}; its words aren't shown, they may hold"
                " passwords"
            )
        return json.loads(done.stdout)

    def at(self, path: str) -> str:
        """Where something is in the copy, by the links that the archive itself has."""
        return self.copy.at(verify.real_path(path, self.before))

    def archived(self, name: str, folder: str) -> str | None:
        """Where a file that a compose file names is in the copy; None where the archive has no such file."""
        path = os.path.normpath(os.path.join(folder, name))
        if self.before["files"].get(path, {}).get("kind") not in ("file", "link") or "$" in name:
            return None
        try:
            own_text(self.at(path))
        except ValueError:
            return None
        return self.at(path)

    @staticmethod
    def environment() -> dict[str, str]:
        # Compose prefers the environment to .env, so there is nothing in it.
        return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": "/root", "LANG": "C.UTF-8"}

    def compare_images(self, images: list[str]) -> None:
        ran = [of for of in self.before["containers"] if of["service"].startswith("couchdb")]
        for name in images:
            here = self.have_image(name)
            same = {of["imageId"] for of in ran} | {digest for of in ran for digest in of["digests"]}
            if same & {here["Id"], *(here.get("RepoDigests") or [])}:
                self.right(f"image: {name} is the very one that the production ran")
            elif not self.settings["image"]:
                self.remark(f"the image {name} on this machine is another build than the one that the production ran")

    def inspect(self) -> list[dict[str, Any]]:
        ids = own_containers(self.docker, self.settings["deployment"])
        return json.loads(self.docker._run("inspect", *ids)) if ids else []

    def check_isolation(self) -> None:
        """See to it that the database really has no way further than this machine. Raises Refused."""
        for of in self.inspect():
            if not of["State"]["Pid"]:
                continue  # it has ended; `dead` says why
            networks = list(of["NetworkSettings"]["Networks"])
            try:
                routes = [read(f"/proc/{of['State']['Pid']}/net/{name}") for name in ("route", "ipv6_route")]
            except FileNotFoundError:
                continue
            if networks != [self.settings["network"]] or of["HostConfig"]["PortBindings"]:
                raise Refused(
                    f"the restored CouchDB has a way out of this machine, beside the network {self.settings['network']}"
                )
            if way_out(*routes):
                raise Refused(open_network(self.settings["network"], str(self.engine.get("ServerVersion", ""))))
        self.right(f"network: CouchDB runs in {self.settings['network']}, with no route further than this machine")

    def dead(self) -> str | None:
        return death(self.inspect(), self.settings["memoryMebibytes"], self.containers)

    def read_documents(self) -> None:
        """Read the next portion of the documents: what is damaged inside a file, CouchDB says only then."""
        assert self.server is not None
        known = self.reports.reading(self.borg.repository_id)
        # Of those that were being made or deleted it holds what was there at some moment, perhaps in part.
        steady = self.answered.keys() - self.unsteady()
        counts = {name: self.answered[name]["documents"] for name in sorted(steady)}
        failed = [(name, id) for name, id in known["failed"]]
        portion = reading.Reading(self.server, counts, known["position"], self.dead, failed)
        try:
            portion.run()
        except reading.Died as error:
            self.wrong(f"CouchDB ended while its documents were read: {error}")
        else:
            for text in portion.problems():
                self.wrong(text)
            if not portion.bad:
                self.right(portion.told())
            self.reports.keep_reading(self.borg.repository_id, portion.position, portion.failed)
        if self.report["problems"]:
            self.keep_log()

    def keep_log(self) -> None:
        for container in own_containers(self.docker, self.settings["deployment"]):
            done = subprocess.run(
                ["docker", "logs", "--tail", str(LOG_LINES), container], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=60,
            )  # fmt: skip
            for line in done.stdout.splitlines():
                self.report["log"].append(scrub(line, self.secrets)[:300])
                say(f"CouchDB's log: {self.report['log'][-1]}")


def read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        if path.endswith("ipv6_route"):  # a kernel without IPv6
            return ""
        raise


# ---- tidying up -----------------------------------------------------------------------------------------


def project(settings: dict[str, Any]) -> str:
    """Name of the Compose project of a drill's containers."""
    return f"cht-drill-{settings['deployment']}"


class Scratch:
    """The directory of a drill inside the configured one, which is never touched itself."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.parent: str = settings["scratch"]
        self.path = f"{self.parent}/cht-drill-{settings['deployment']}"
        self.copy = f"{os.path.realpath(self.parent)}/{os.path.basename(self.path)}/copy"

    def make(self) -> None:
        """Raises Refused where something else is in its place."""
        self.remove()
        if not os.path.isdir(os.path.dirname(self.parent)):
            raise Refused(f"the scratch directory {self.parent} doesn't exist: is its disk mounted?")
        try:
            os.makedirs(self.parent, mode=0o700, exist_ok=True)
            os.mkdir(self.path, 0o700)
            backup.write_atomically(f"{self.path}/{MARKER}", "", 0o600)
        except OSError as error:
            raise Refused(f"the scratch directory {self.parent} can't be used: {error.strerror}") from error

    def there(self) -> bool:
        return os.path.lexists(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it. Raises Refused when it isn't a drill's."""
        if not self.there():
            return
        if os.path.islink(self.path) or not os.path.isdir(self.path):
            raise Refused(f"{self.path} isn't a directory that a drill made; remove it yourself")
        if not os.path.exists(f"{self.path}/{MARKER}"):
            try:
                os.rmdir(self.path)  # killed before it wrote its mark
                return
            except OSError:
                raise Refused(f"{self.path} has no mark of a drill ({MARKER}); remove it yourself") from None
        # The mark goes last, so that an interrupted removal is finished by the next.
        for entry in list(os.scandir(self.path)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != MARKER:
                os.remove(entry.path)
        os.remove(f"{self.path}/{MARKER}")
        os.rmdir(self.path)


def own_containers(docker: backup.Docker, deployment: str) -> list[str]:
    return docker._run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={deployment}").split()


def tidy(settings: dict[str, Any]) -> list[str]:
    """Remove a drill's containers and files. Returns what couldn't be done, one line each."""
    problems = []
    docker = backup.Docker()
    scratch = Scratch(settings)
    try:
        if docker.stopped:
            raise OSError(f"Docker doesn't answer: {docker.stopped}")
        containers = own_containers(docker, settings["deployment"])
        if containers:
            docker._run("rm", "--force", "--volumes", *containers)
    except (OSError, subprocess.SubprocessError) as error:
        # Without its files here, no drill has got as far as a container.
        if scratch.there():
            problems.append(f"containers of the drill may be left: {backup._reason(error)}")
    try:
        scratch.remove()
    except (OSError, Refused) as error:
        problems.append(f"files of the drill are left in {scratch.path}: {error}")
    return problems


def settle(settings: dict[str, Any], reports: Reports) -> bool:
    """Remove what a drill left that was killed. Returns whether there was one; it is reported then."""
    left = reports.running()
    problems = tidy(settings)
    for text in problems:
        backup.complain(f"problem: {text}")
    if left is None:
        return bool(problems)
    if (reports.latest() or {}).get("began") == left["began"]:  # killed between its report and its end
        reports.unmark()
        return bool(problems)
    text = f"interrupted at the stage “{left['stage']}”: the drill was killed, or the machine restarted"
    left.update(outcome="interrupted", problems=[*left["problems"], text, *problems])
    reports.write(left)
    reports.unmark()
    backup.complain(f"the drill begun at {left['began']} was {text}; what it left is removed")
    return True


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
        report["problems"].append(backup._reason(error))
    except Exception as error:  # whatever it is: there must be a report
        complain_of_bug()
        code = BUG
        report["problems"].append(f"unexpected: {type(error).__name__}: {backup._reason(error)}")
    for number in backup.SIGNALS:
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
            backup.complain(f"<3>problem: {text}" if os.environ.get("JOURNAL_STREAM") else f"problem: {text}")
        backup.complain(f"the drill failed; see {reports.directory}/latest.txt")
    return code


def look_back(settings: dict[str, Any], reports: Reports) -> int:
    """See whether a drill has succeeded lately and, where drills are made from the bucket, whether its newest copy is
    young and in order: the server, which may be silenced, isn't asked. What is wrong is kept for the alarm. Returns
    the exit code."""
    now = time.time()
    late = overdue(reports.latest(), reports.since(), now, settings["overdueAfterDays"], settings["deployment"])
    doubts: list[str] = []
    if settings["from"] != "server":
        import bucket_source

        place = settings["bucket"]
        try:
            doubts = bucket_source.doubts(bucket_source.newest(place), now, place["maxAgeHours"])
        except Refused as error:
            doubts = [f"the newest copy in the bucket can't be found out: {error}"]
    reports.keep_doubts(late, doubts)
    for text in [*filter(None, [late]), *doubts]:
        backup.complain(f"<3>{text}" if os.environ.get("JOURNAL_STREAM") else text)
    return WRONG if late or doubts else RIGHT


def short(_number: int, _frame: Any) -> None:
    raise TooLittle()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="drill.py",
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
        backup.complain("drill.py must run as root")
        return IMPOSSIBLE
    for number in backup.SIGNALS:
        signal.signal(number, backup.stopped)
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
        backup.complain(str(error))
    except Stopped as error:
        backup.complain(f"stopped by {error}")
    except OSError as error:
        backup.complain(backup._reason(error))
    return IMPOSSIBLE


if __name__ == "__main__":
    exit_with(main)
