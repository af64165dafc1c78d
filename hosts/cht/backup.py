#!/usr/bin/env python3
"""Make one backup of a CHT deployment: collect what lives in Docker, then have borgmatic store everything.

Run by the unit `cht-backup-<deployment>.service`, or by hand as root. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import contextlib
import ctypes
import datetime
import fcntl
import glob
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from typing import IO, Any

import compose
import compose_env
import couch_files
import manifest
import plan
from plain import BUG, complain, complain_of_bug, exit_with, plain_values, say

COMPLETE, INCOMPLETE, NONE = 0, 1, 2
DOCKER_TIMEOUT = 120  # seconds; a Docker engine that doesn't answer in this time counts as stopped
HTTP_TIMEOUT = 60
STOP_TIMEOUT = 60  # seconds that borg gets to end after a signal
PROGRESS_INTERVAL = 60
VOLUMES = ("cht-credentials", "cht-ssl")
FOLDERS = ("compose", "upgrade-service")  # of compose files, in the home
DOCKER_TRIES, DOCKER_PAUSE = 3, 2  # a container may go between being listed and being looked at
MOST_LINKS = 40  # that lead to one another, as for the kernel
MOST_OUTSIDE = 10e6  # bytes of a file outside the home that is saved
# What compose files name outside a home and every machine has of its own.
SYSTEM = (
    "/boot", "/dev", "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/localtime", "/etc/machine-id",
    "/etc/os-release", "/etc/passwd", "/etc/resolv.conf", "/etc/shadow", "/etc/ssl/certs", "/etc/timezone",
    "/lib/modules", "/proc", "/run", "/sys", "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates", "/usr/share/zoneinfo", "/var/lib/docker", "/var/run",
)  # fmt: skip
CERTIFICATES = {"certificate": "cert.pem", "key": "key.pem"}  # in nginx's /etc/nginx/private
MAX_LINES = 20
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# borg 1.2 and 1.4 read their list 4,096 characters at a time, after a buffer of 8,192; this is ample.
LIST_BLOCK = 64 * 1024
IDLE_LIMIT = 900  # seconds in which nothing at all happens, after which borg isn't waited for any more
# The same for borg itself while its ssh lives: a server may be busy for hours with an index that it lost.
STUCK_LIMIT = 6 * 3600
ASK_AGAIN = 2  # seconds, after which a database that was just being made or deleted is asked for once more
COUNT_LIMIT = 1800  # seconds that CouchDB gets to count all its databases
LOOK_UP_PAUSE = 10  # seconds before the new archive is looked up once more


class NoBackup(Exception):
    """No archive can be made. The text is one line for the operator."""


class Stopped(BaseException):
    """The run was told to end by a signal."""


def moment(time_: float) -> str:
    return datetime.datetime.fromtimestamp(time_, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:,.1f} MB"


def read_settings(path: str) -> dict[str, Any]:
    """Read settings.json. Raises NoBackup naming the file and what is wrong in it."""
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError) as error:
        raise NoBackup(f"{path}: can't be read as settings: {error}") from error
    expected = {
        "deployment": str,
        "chtHome": str,
        "composeProject": str,
        "couchdbData": list,
        "repository": str,
    }
    for name, kind in expected.items():
        value = settings.get(name) if isinstance(settings, dict) else None
        if not isinstance(value, kind) or value == "":
            raise NoBackup(f"{path}: {name} must be {'a list of directories' if kind is list else 'text'}")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", settings["deployment"]):
        raise NoBackup(f"{path}: deployment must be a small letter, then up to 30 of a-z, 0-9 and -")
    return settings


def write_atomically(path: str, text: str, mode: int = 0o640) -> None:
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    # Paths may be no UTF-8.
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)


def _state(of: os.stat_result) -> tuple[int, int, int]:
    return of.st_size, of.st_mtime_ns, of.st_ino


class Docker:
    """The machine's Docker engine, asked with its command line tool. Containers are found by their labels,
    because their names depend on the version of Compose."""

    def __init__(self) -> None:
        self.stopped: str | None = None
        """Why the engine can't be asked, in one line; None while it answers."""
        self.missing = False
        """Whether it isn't installed at all."""
        try:
            self.version: str | None = self._run("version", "--format", "{{.Server.Version}}").strip()
        except (OSError, subprocess.SubprocessError) as error:
            self.version = None
            self.missing = isinstance(error, FileNotFoundError)
            self.stopped = _reason(error)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=True,
            timeout=DOCKER_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def containers(self, project: str) -> list[dict[str, Any]]:
        """The project's containers. Their environments hold passwords."""
        return self.labelled(f"com.docker.compose.project={project}")

    def labelled(self, label: str) -> list[dict[str, Any]]:
        ids = self._run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()
        found = []
        for of in json.loads(self._run("inspect", *ids)) if ids else []:
            networks = (of.get("NetworkSettings") or {}).get("Networks") or {}
            found.append(
                {
                    "id": of["Id"],
                    "name": of["Name"].lstrip("/"),
                    "service": of["Config"]["Labels"].get("com.docker.compose.service", ""),
                    "running": bool(of["State"]["Running"]),
                    "image": of["Config"]["Image"],
                    "imageId": of["Image"],
                    "addresses": [net["IPAddress"] for net in networks.values() if net.get("IPAddress")],
                    "environment": dict(
                        entry.split("=", 1) for entry in of["Config"].get("Env") or [] if "=" in entry
                    ),
                    "mounts": [
                        {
                            "type": mount.get("Type", ""),
                            "source": mount.get("Source") or "",
                            "destination": mount["Destination"],
                            "name": mount.get("Name") or "",
                        }
                        for mount in of.get("Mounts") or []
                    ],
                }
            )
        return sorted(found, key=lambda of: (of["service"], of["name"]))

    def image_digests(self, image_ids: list[str]) -> dict[str, list[str]]:
        """References with digest by image id; an image that was built here has none."""
        digests = {}
        for image_id in image_ids:
            try:
                digests[image_id] = (
                    json.loads(self._run("image", "inspect", image_id))[0].get("RepoDigests") or []
                )
            # The image was removed while its container stayed, or Docker doesn't answer any more.
            except (subprocess.SubprocessError, ValueError, LookupError):
                digests[image_id] = []
        return digests

    def copy_out(self, container: str, path: str, target: str) -> None:
        # --follow-link: certbot's files are links into its own tree.
        self._run("cp", "--follow-link", f"{container}:{path}", target)

    def mountpoint(self, volume: str) -> str:
        return self._run("volume", "inspect", "--format", "{{.Mountpoint}}", volume).strip()


def ask_docker(project: str, home: str) -> tuple[Docker, list[dict[str, Any]], list[dict[str, Any]]]:
    """The engine, the project's containers, and others that were started from compose files of the home. What
    goes wrong in between is tried again; then the engine counts as stopped."""
    docker = Docker()
    for attempt in range(DOCKER_TRIES):
        if attempt:
            time.sleep(DOCKER_PAUSE)
            docker = Docker() if docker.stopped else docker
        try:
            if docker.stopped is None:
                own = docker.containers(project)
                folder = f"com.docker.compose.project.working_dir={home}"
                near = [of for name in FOLDERS for of in docker.labelled(f"{folder}/{name}")]
                known = {of["id"] for of in own}
                return docker, own, [of for of in near if of["id"] not in known]
        except (OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError) as error:
            docker.stopped = _reason(error)
        if docker.missing:
            break
    return docker, [], []


def _reason(error: BaseException) -> str:
    """One line of what a program or the system said."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"exit code {error.returncode}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def ask_couchdb(address: str, user: str, password: str) -> manifest.Counts:
    """Document counts and update sequences of every database, from the running CouchDB. Raises OSError
    (urllib's errors are) or ValueError. The password goes into a header, never onto a command line."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    # A proxy of the environment must never see the password.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path: str) -> Any:
        request = urllib.request.Request(
            f"http://{address}:5984{path}", headers={"Authorization": f"Basic {login}"}
        )
        with opener.open(request, timeout=HTTP_TIMEOUT) as response:
            return json.load(response)

    deadline = time.monotonic() + COUNT_LIMIT
    unsure: list[str] = []  # names for which it had no answer

    def count(name: str, first: bool = True) -> tuple[str, dict[str, int]] | None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it didn't count all its databases within {COUNT_LIMIT} s")
        try:
            of = get("/" + urllib.parse.quote(name, safe=""))
        except urllib.error.HTTPError as error:
            if error.code == 404:  # deleted since the list was made
                return None
            if error.code < 500 or not first:
                raise
            unsure.append(name)  # as for one that it is just making or deleting
            return None
        return name, {
            "documents": int(of["doc_count"]),
            "deleted": int(of["doc_del_count"]),
            "updateSequence": int(str(of["update_seq"]).split("-")[0]),
        }

    # CHT keeps a database for every user, so there may be thousands.
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = [*threads.map(count, get("/_all_dbs"))]
    if unsure:
        time.sleep(ASK_AGAIN)
        found += [count(name, first=False) for name in sorted({*unsure} & {*get("/_all_dbs")})]
    return dict(entry for entry in found if entry is not None)


class Backup:
    """One run for one deployment."""

    def __init__(self, settings: dict[str, Any], configuration: str, dry_run: bool) -> None:
        self.settings = settings
        self.deployment: str = settings["deployment"]
        self.configuration = configuration
        self.dry_run = dry_run
        self.started = time.time()
        self.archive = f"{self.deployment}-{moment(self.started)}"
        self.state = f"/var/lib/cht-backup/{self.deployment}"
        self.scratch = f"/run/cht-backup/{self.deployment}/collect"
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.child: subprocess.Popen[str] | None = None
        self.broken: Exception | None = None
        """Why borg can't be given its list."""
        self.created: dict[str, Any] | None = None
        """The archive, once borg has said that it made it."""
        self.figures: dict[str, Any] = {}
        self.borg_exit_code: int | None = None
        self.env = compose_env.Reading()
        self.logins: list[tuple[str, str]] = []  # to CouchDB, the likeliest first
        self.elsewhere: dict[str, str] = {}  # see `couch_files.located`
        self.seen: dict[str, tuple[int, int, int]] = {}  # what was read for a checksum, by path
        self.couchdb_addresses: list[str] = []
        self.why_not_asked = "CouchDB is stopped"
        self.couchdb: list[dict[str, Any]] = []
        """Its containers."""
        self.data: list[str] = []
        self.places: dict[str, Any] = {}
        self.paths: list[str] = []  # in the order in which they are copied
        self.data_paths: set[str] = set()  # those of them that are CouchDB's
        self.sizes: dict[str, int] = {}  # by absolute path
        self.epochs: list[dict[str, int]] = []
        """When each database was made, at each look at CouchDB's directories."""
        self.versions: dict[str, str | None] = {}
        self.containers: list[dict[str, Any]] = []
        self.added: set[str] = set()  # of the paths, those outside CouchDB's directories

    def problem(self, text: str) -> None:
        # CouchDB's directories are looked at more than once.
        if text not in self.problems:
            self.problems.append(text)

    # ---- collecting -------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Find everything that belongs to the backup; what Docker holds is copied to the scratch directory.

        What is missing becomes a problem, so that the rest is saved all the same. Only CouchDB's data must
        be there: an archive without it would be taken for the newest good one. Raises NoBackup for that.
        """
        home = self.settings["chtHome"].rstrip("/")
        project = self.settings["composeProject"]
        compose_files, env_file = self._configuration_files(home)
        # Both take a while to start, and nothing waits for them until the end.
        threads = concurrent.futures.ThreadPoolExecutor(2)
        borg_is, compose_is = threads.submit(borg_version), threads.submit(compose.version)
        threads.shutdown(wait=False)
        docker, containers, near = ask_docker(project, home)
        if docker.stopped:
            self.why_not_asked = "Docker doesn't answer"
            self.problem(
                f"Docker doesn't answer, so the certificate and versions are missing: {docker.stopped}"
            )
        elif not containers:
            self.problem(f"no container belongs to the Compose project {project}")
        self.couchdb = couchdb = [of for of in containers if of["service"].startswith("couchdb")]
        self.logins = logins(couchdb, self.env.values)
        self.data, links = self._find_data(home)
        trees = self._walk_data()
        for directory in self.data:
            check_data_directory(directory, self.elsewhere)
        self._remember_data()
        self._order(trees)
        volumes = self._volumes(docker, project)
        certificates = {} if docker.stopped else self._certificates(docker, containers)

        self.paths += links
        self.added.update(links)
        outside: list[str] = []
        for path in [*compose_files, *([env_file] if env_file else [])]:
            end = self._add(path)
            outside += [] if plan.below(end, home) else [end]
        for path in [] if self.dry_run else certificates.values():  # a dry run copies nothing
            self._add(path)
        for volume, mountpoint in list(volumes.items()):
            try:
                self._add_tree(mountpoint)
            except OSError as error:
                del volumes[volume]
                self.problem(f"the volume {volume} is missing: {mountpoint} can't be read: {error.strerror}")
        outside = self._named_files(home, compose_files, env_file, [*containers, *near], outside)
        self._drop_links_above()

        self.places = {
            "couchdb": self.data,
            "elsewhere": self.elsewhere,
            "outside": outside,
            "composeFiles": compose_files,
            "environment": env_file,
            "volumes": volumes,
            "certificate": certificates.get("certificate"),
            "key": certificates.get("key"),
            "manifestBefore": f"{self.scratch}/manifest-before.json",
            "manifestAfter": f"{self.scratch}/manifest-after.json",
        }
        digests = {} if docker.stopped else docker.image_digests(sorted({of["imageId"] for of in containers}))
        self.containers = [
            {key: of[key] for key in ("service", "name", "running", "image", "imageId")}
            | {"digests": digests.get(of["imageId"], [])}
            for of in containers
        ]
        self.versions = {
            "cht": plan.cht_version({of["service"]: of["image"] for of in containers}),
            "borg": borg_is.result(),
            "borgmatic": borgmatic_version(),
            "docker": docker.version,
            "compose": None if docker.stopped else compose_is.result(),
        }
        running = [of for of in couchdb if of["running"]]
        self.couchdb_addresses = [address for of in running for address in of["addresses"]]
        if running and not self.couchdb_addresses:
            self.problem(
                "CouchDB's container has no address in a Docker network, so it can't be asked for its counts"
            )
        elif not docker.stopped and containers and not couchdb:
            self.problem(f"the Compose project {project} has no CouchDB container; counts are from the files")
        elif couchdb and not running:
            self.notes.append("CouchDB is stopped; counts are from the files")

    def _configuration_files(self, home: str) -> tuple[list[str], str | None]:
        files: list[str] = []
        for folder in FOLDERS:
            try:
                names = sorted(os.listdir(f"{home}/{folder}"))
            except OSError as error:
                self.problem(f"{home}/{folder} can't be read: {error.strerror}")
                continue
            found = [f"{home}/{folder}/{name}" for name in names if name.endswith((".yml", ".yaml"))]
            found = [path for path in found if self._is_file(path)]
            if not found:
                self.problem(f"{home}/{folder} holds no compose file (*.yml)")
            files += found
        env_file = f"{home}/upgrade-service/.env"
        try:
            self.env, doubt = compose.read_environment(env_file)
        except OSError as error:
            self.problem(f"{env_file} can't be read: {error.strerror}")
            return files, None
        if doubt:
            self.problem(f"{env_file}: {doubt}")
        for name in ("COUCHDB_PASSWORD", "COUCHDB_SECRET", "COUCHDB_UUID"):
            if not self.env.values.get(name):
                self.notes.append(f"{env_file} sets no {name}")
        for name, variable in self.env.unsure.items():
            if name.startswith(("COUCHDB_", "DB")):
                self.notes.append(
                    f"{env_file}: {name} depends on the variable {variable} of whoever starts the CHT,"
                    " which isn't known here"
                )
        return files, env_file

    def _is_file(self, path: str) -> bool:
        """Whether it is a file, or a link to one. What is left out is named."""
        try:
            if kind := plan.special(os.stat(path).st_mode):
                self.notes.append(f"{path} is {kind} and is left out")
            elif os.path.isfile(path):
                return True
        except OSError as error:
            target = f" (a link to {os.readlink(path)})" if os.path.islink(path) else ""
            self.problem(f"{path}{target} can't be read: {error.strerror}")
        return False

    # CouchDB's data

    def _find_data(self, home: str) -> tuple[list[str], list[str]]:
        """CouchDB's data directories, and the links that led to them."""
        mounts = data_mounts(self.couchdb)
        known = {} if mounts else self._remembered()
        # What depends on somebody's environment isn't known here.
        values = {name: value for name, value in self.env.values.items() if name not in self.env.unsure}
        data = plan.data_directories(self.settings["couchdbData"], values, mounts) or known.get("data", [])
        if not data:
            data = [f"{home}/couchdb"]
            if named := plan.named_data(self.env.values):
                self.problem(
                    f"which directory {named[0]} of .env stands for isn't known without a container of"
                    " CouchDB;"
                    f" taken is {data[0]}"
                )
        data, links = without_links(data)
        real = {os.path.realpath(directory) for directory in data}
        for source in mounts:
            if os.path.realpath(source) not in real:
                self.problem(
                    f"CouchDB keeps its data in {source}, which is not backed up (only {', '.join(data)} is)"
                )
        self.elsewhere = {
            path: directory
            for path, directory in known.get("elsewhere", {}).items()
            if any(plan.below(path, of) for of in data)
        }
        return data, links

    def _trees(self) -> dict[str, plan.Tree]:
        """What is in CouchDB's directories, and in those that are mounted into them or that links in them
        lead to. The paths are those that CouchDB sees."""
        views = {directory: self._mounted_into(directory) for directory in self.data}
        trees = {}
        for directory in self.data:
            try:
                tree = plan.walk(directory, [plan.LEFT_OUT], self._closed(directory))
            except OSError as error:
                raise NoBackup(
                    f"CouchDB's data directory {directory} can't be read: {error.strerror}"
                ) from error
            self._tell_left_out(tree)
            for link in tree.links:
                self._follow_in_data(directory, link, views[directory])
            for top in self._closed(directory):
                real = self.elsewhere[f"{directory}/{top}"]
                try:
                    inner = plan.walk(real, closed=self._closed(f"{directory}/{top}"))
                except OSError as error:
                    self.problem(f"{real}, which is CouchDB's {top}, can't be read: {error.strerror}")
                    continue
                self._tell_left_out(inner)
                for link in inner.links:
                    self.problem(f"{real}/{link} is a link: what it leads to is not backed up")
                tree.paths.extend([top] if top not in tree.paths else [])
                tree.paths.extend(f"{top}/{path}" for path in inner.paths if path)
                tree.sizes.update({f"{top}/{path}": size for path, size in inner.sizes.items()})
            trees[directory] = tree
        return trees

    def _closed(self, directory: str) -> list[str]:
        return [path[len(directory) + 1 :] for path in self.elsewhere if path.startswith(f"{directory}/")]

    def _mounted_into(self, directory: str) -> list[dict[str, str]]:
        """The mounts of the container that has a data directory; those below the data are taken note of."""
        real = os.path.realpath(directory)
        container = next(
            (of for of in current(self.couchdb) if real in map(os.path.realpath, data_mounts([of]))),
            None,
        )
        for mount in container["mounts"] if container else []:
            path = mount["destination"][len(plan.DATA_IN_CONTAINER) + 1 :]
            if not mount["destination"].startswith(f"{plan.DATA_IN_CONTAINER}/"):
                continue
            if plan.below(path, plan.LEFT_OUT):
                continue
            if os.path.isdir(mount["source"]):
                self.elsewhere[f"{directory}/{path}"] = os.path.realpath(mount["source"])
            else:
                what = mount["source"] or f"a {mount['type']}"
                self.problem(
                    f"{what} is mounted at {mount['destination']} in {container['name']}, and is not backed"
                    " up: only directories can be mounted into CouchDB's data"
                )
        return container["mounts"] if container else []

    def _follow_in_data(self, directory: str, link: str, mounts: list[dict[str, str]]) -> None:
        """Take a link in CouchDB's data for the directory to which it leads CouchDB, in its container."""
        path = f"{directory}/{link}"
        target = os.path.normpath(
            os.path.join(plan.DATA_IN_CONTAINER, os.path.dirname(link), os.readlink(path))
        )
        real = plan.on_host(target, mounts) or os.path.realpath(path)
        if plan.below(real, os.path.realpath(directory)) or not os.path.isdir(real):
            self.problem(
                f"{path} is a link to {os.readlink(path)}, which is not backed up: in CouchDB's data a link"
                " may lead to a directory outside it, no other"
            )
        else:
            self.elsewhere[path] = os.path.realpath(real)

    def _tell_left_out(self, tree: plan.Tree) -> None:
        self.notes += [text for text in tree.special if text not in self.notes]
        for text in tree.unread:
            self.problem(text)

    def _walk_data(self) -> dict[str, plan.Tree]:
        """List CouchDB's directories at a moment at which none of its databases is just being made or
        deleted, which takes one shard after the other. One that stays as it is has lost a shard."""
        seen: dict[str, tuple[int, frozenset[str]]] = {}
        for _attempt in range(10):
            trees = self._trees()
            paths = [path for tree in trees.values() for path in tree.paths]
            partial = {
                name: of
                for name, of in plan.shards(paths).items()
                if couch_files.missing_ranges(of[1]) and seen.get(name) != of
            }
            if not partial:
                break
            seen = partial
            time.sleep(1)
        self._remember_look(paths)
        return trees

    def _remember_look(self, paths: Iterable[str]) -> None:
        self.epochs.append({name: epoch for name, (epoch, _ranges) in plan.shards(paths).items()})

    def _order(self, trees: dict[str, plan.Tree]) -> None:
        """Put CouchDB's files at the head of the list, instead of those of an earlier look."""
        ordered: list[str] = []
        for path in plan.copied_in_order({directory: tree.paths for directory, tree in trees.items()}):
            if path in self.elsewhere:
                ordered += [path] if os.path.lexists(path) else []
                path = self.elsewhere[path]
            ordered.append(couch_files.located(path, self.elsewhere))
        for path in self.data_paths:
            self.sizes.pop(path, None)
        self.paths = ordered + [path for path in self.paths if path not in self.data_paths]
        self.data_paths = set(ordered)
        for directory, tree in trees.items():
            for path, size in tree.sizes.items():
                path = couch_files.located(os.path.join(directory, path), self.elsewhere)
                self.sizes[path] = size

    def _remembered(self) -> dict[str, Any]:
        """Where CouchDB's data was when its containers could be asked last."""
        try:
            with open(f"{self.state}/data.json", encoding="utf-8") as file:
                known = json.load(file)
            return known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            return {}

    def _remember_data(self) -> None:
        now = {"data": self.data, "elsewhere": self.elsewhere}
        if data_mounts(self.couchdb) and not self.dry_run and now != self._remembered():
            write_atomically(f"{self.state}/data.json", json.dumps(now, indent=2) + "\n")

    # everything else

    def _add(self, path: str) -> str:
        """Add a file; of a link, what it leads to, too. Returns where that is."""
        for _ in range(MOST_LINKS):
            try:
                of = os.lstat(path)
            except OSError as error:
                self.problem(f"{path} can't be read: {error.strerror}")
                return path
            if kind := plan.special(of.st_mode):
                self.notes.append(f"{path} is {kind} and is left out")
                return path
            is_link = stat.S_ISLNK(of.st_mode)
            if why := plan.unnameable(path, os.readlink(path) if is_link else ""):
                self.problem(why)
                return path
            if path not in self.added:
                self.added.add(path)
                self.paths.append(path)
                if stat.S_ISREG(of.st_mode):
                    self.sizes[path] = of.st_size
            if not is_link:
                return path
            path = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(path)), os.readlink(path)))
        self.problem(f"{path} is a link that leads to itself")
        return path

    def _drop_links_above(self) -> None:
        """Leave out a link to a directory when something below it is saved by that path: borg would extract
        through the link, so a restore refuses such an archive. It makes a directory instead."""
        links = {path for path in self.paths if os.path.islink(path)}
        above: set[str] = set()
        for path in self.paths:
            while (path := os.path.dirname(path)) != "/":
                above.add(path)
        for link in sorted(links & above):
            self.notes.append(f"{link} is a link to {os.readlink(link)}; it will be restored as a directory")
        self.paths = [path for path in dict.fromkeys(self.paths) if path not in links & above]

    def _add_tree(self, directory: str) -> None:
        """Add a directory with what is in it, apart from CouchDB's data. Raises OSError."""
        inside = [*self.data, *self.elsewhere.values(), self.state, self.scratch]
        exclude = [of[len(directory) + 1 :] for of in inside if of.startswith(f"{directory}/")]
        tree = plan.walk(directory, exclude)
        self._tell_left_out(tree)
        home = self.settings["chtHome"].rstrip("/")
        for path in tree.paths:
            # What these are like is among the manifest's `parents`.
            if not path and directory in (home, *(f"{home}/{name}" for name in FOLDERS)):
                continue
            full = os.path.join(directory, path) if path else directory
            if full not in self.added:
                self.added.add(full)
                self.paths.append(full)
                if path in tree.sizes:
                    self.sizes[full] = tree.sizes[path]
        for link in tree.links:
            target = os.readlink(os.path.join(directory, link))
            inner = os.path.normpath(os.path.join("/", os.path.dirname(link), target)) if target else ""
            if target.startswith("/") or not os.path.lexists(directory + inner):
                self.notes.append(f"{directory}/{link} is a link to {target}, which isn't backed up with it")

    def _named_files(
        self,
        home: str,
        files: list[str],
        env_file: str | None,
        containers: list[dict[str, Any]],
        outside: list[str],
    ) -> list[str]:
        """Add what compose files name and what is mounted into containers, as far as it belongs to this CHT.
        Returns the files that are `outside` its home, with those that are known."""
        named = compose.named_files(files, env_file, self.env)
        self.notes += named.notes
        for text in named.problems:
            self.problem(text)
        self._compare_data(named.data, current([of for of in containers if data_mounts([of])]))
        for of in containers:
            for mount in of["mounts"]:
                own = any(mount["name"].endswith(f"_{volume}") for volume in VOLUMES)
                if mount["type"] == "bind":
                    named.files.setdefault(os.path.normpath(mount["source"]), f"a mount of {of['service']}")
                elif not own and not plan.below(mount["destination"], plan.DATA_IN_CONTAINER):
                    where = f"{mount['name'] or mount['type']} of {of['service']} ({mount['destination']})"
                    self.notes.append(f"the volume {where} is not backed up")
        saved = [*self.data, *self.elsewhere.values(), *map(os.path.realpath, self.data)]
        for path, why in sorted(named.files.items()):
            real_home, real = os.path.realpath(home), os.path.realpath(path)
            if not plan.below(path, home) and plan.below(real, real_home):
                path = home + real[len(real_home) :]
            # What is in CouchDB's data is saved; what has it in it is more than this CHT's, but for the home.
            around = not plan.below(path, home) and any(plan.below(of, path) for of in saved)
            if around or any(plan.below(path, of) for of in saved):
                continue
            self._add_named(path, why, home, outside)
        return sorted(outside)

    def _add_named(self, path: str, why: str, home: str, outside: list[str]) -> None:
        if any(plan.below(path, of) for of in SYSTEM) or (plan.below(home, path) and path != home):
            return  # the system's own, or more than this CHT
        try:
            of = os.stat(path)
        except FileNotFoundError:
            what = f"{path}, {why}, isn't there"
            if os.path.islink(path):
                self.problem(f"{what}: it is a link to {os.readlink(path)}")
            else:
                self.notes.append(what)
            return
        except OSError as error:
            self.problem(f"{path}, {why}, can't be read: {error.strerror}")
            return
        inside = plan.below(path, home) and plan.below(os.path.realpath(path), os.path.realpath(home))
        if kind := plan.special(of.st_mode):
            if inside:
                self.notes.append(f"{path} is {kind} and is left out")
        elif not inside and (stat.S_ISDIR(of.st_mode) or of.st_size > MOST_OUTSIDE):
            self.problem(f"{path}, {why}, is not backed up: it is outside the home {home}")
        elif stat.S_ISDIR(of.st_mode):
            try:
                self._add_tree(self._add(path) if os.path.islink(path) else path)
            except OSError as error:
                self.problem(f"{path}, {why}, can't be read: {error.strerror}")
        else:
            end = self._add(path)
            for each in {path, end}:
                if not plan.below(each, home) and each not in outside:
                    outside.append(each)

    def _compare_data(self, named: list[str], couchdb: list[dict[str, Any]]) -> None:
        """See whether a CouchDB that is started from what is saved will find its data."""
        mounts = data_mounts(couchdb)
        unsure = [name for name in self.env.unsure if re.fullmatch(r"(COUCHDB|DB\d+)_DATA", name)]
        expected, actual = ({os.path.realpath(path) for path in of} for of in (named, mounts))
        saved = {os.path.realpath(directory) for directory in self.data}
        # More may be named than is used: files of both kinds of CouchDB, one and several nodes.
        if mounts and named and not unsure and not actual <= expected and actual <= saved:
            self.problem(
                f"by the compose files and .env CouchDB's data is in {', '.join(sorted(expected))}, but the"
                f" container has it in {', '.join(sorted(actual))}: after a restore, or once it is made anew,"
                " CouchDB would be empty. Correct COUCHDB_DATA"
            )

    def _volumes(self, docker: Docker, project: str) -> dict[str, str]:
        """Mountpoints by volume name. They are remembered, for a run while Docker is stopped."""
        memory = f"{self.state}/volumes.json"
        try:
            with open(memory, encoding="utf-8") as file:
                known: dict[str, str] = json.load(file)
        except (OSError, ValueError):
            known = {}
        found = {}
        for volume in (f"{project}_{name}" for name in VOLUMES):
            mountpoint = known.get(volume, f"/var/lib/docker/volumes/{volume}/_data")
            if not docker.stopped:
                try:
                    mountpoint = docker.mountpoint(volume)
                except subprocess.CalledProcessError as error:
                    self.problem(f"the volume {volume} is missing: {_reason(error)}")
                    continue
                except (OSError, subprocess.SubprocessError) as error:
                    self.problem(f"Docker doesn't say where the volume {volume} is: {_reason(error)}")
            if os.path.isdir(mountpoint):
                found[volume] = mountpoint
            else:
                self.problem(f"the volume {volume} is missing: there is no {mountpoint}")
        if not docker.stopped and found != known and not self.dry_run:
            write_atomically(memory, json.dumps(found, indent=2) + "\n")
        return found

    def _certificates(self, docker: Docker, containers: list[dict[str, Any]]) -> dict[str, str]:
        nginx = sorted(
            (of for of in containers if of["service"] == "nginx"), key=lambda of: not of["running"]
        )
        if not nginx:
            self.problem("the Compose project has no nginx container, so the certificate and key are missing")
            return {}
        copied = {}
        for what, name in CERTIFICATES.items():
            source, target = f"/etc/nginx/private/{name}", f"{self.scratch}/{name}"
            copied[what] = target
            if self.dry_run:
                continue
            try:
                docker.copy_out(nginx[0]["id"], source, target)
                if not stat.S_ISREG(os.lstat(target).st_mode):
                    raise OSError(0, "it is no file")
                os.chmod(target, 0o600 if what == "key" else 0o644)
                if "-----BEGIN" not in compose.read_text(target):
                    self.problem(f"nginx's {source} is no PEM file")
            except (OSError, subprocess.SubprocessError) as error:
                del copied[what]
                self.problem(f"nginx's {what} {source} can't be copied: {_reason(error)}")
        return copied

    # ---- the manifest -----------------------------------------------------------------------------------

    def count(self) -> dict[str, Any]:
        """Counts of every database now, by CouchDB itself. Where it doesn't answer, `source` is "files",
        `reason` says why, and the caller takes the counts from the files' headers."""
        reason = self.why_not_asked
        if self.couchdb_addresses:
            for address in self.couchdb_addresses:
                for user, password in self.logins:
                    try:
                        return {"source": "server", "databases": ask_couchdb(address, user, password)}
                    except urllib.error.HTTPError as error:
                        reason = f"CouchDB answers {error.code} {error.reason} to the user {user} of .env"
                        if error.code == 401:
                            continue
                    except (OSError, ValueError, KeyError, TypeError) as error:
                        reason = f"CouchDB can't be asked: {_reason(error)}"
                    break
            self.problem(f"{reason}; counts are from the files")
        return {"source": "files", "reason": reason, "databases": {}}

    def scan(self) -> dict[str, Any]:
        """Read the headers of all files, and once more when something looks wrong: a compaction replaces a
        file by removing it and renaming another, a database is made and deleted shard by shard, and the
        directory may be read between. Only what lasts is wrong."""
        scanned = couch_files.scan(*self.data, elsewhere=self.elsewhere)
        for _attempt in range(3):
            if not scanned["problems"]:
                break
            time.sleep(2)
            before = {plan.without_numbers(text) for text in scanned["problems"]}
            scanned = couch_files.scan(*self.data, elsewhere=self.elsewhere)
            lasting = [text for text in scanned["problems"] if plan.without_numbers(text) in before]
            same = len(lasting) == len(before)
            scanned["problems"] = lasting
            if same:
                break
        paths = [*scanned["shardFiles"], *scanned["unreadable"]]
        # In a data directory, which may be called anything, as may databases.
        found = (couch_files.IN_SHARDS.search(path) for path in paths)
        self._remember_look(of[0] for of in found if of)
        return scanned

    def manifest_before(self) -> dict[str, Any]:
        # The server is asked before the files are read: what it has acknowledged by then is in them.
        counts = self.count()
        scanned = self.scan()
        if counts["source"] == "files":
            counts["databases"] = manifest.counts_of(scanned["databases"])
        for text in scanned["problems"]:
            self.problem(f"CouchDB's files: {text}")
        self._compare_listed(counts, scanned)
        # What has been counted must be in the list, so the list is made after it. Of a database that was
        # made, or deleted, between the two looks, nothing was counted that the archive could be held to.
        self._order(self._walk_data())
        moved = self.unsteady()
        counts["databases"] = {name: of for name, of in counts["databases"].items() if name not in moved}
        files = {path: self._describe(path) for path in self.paths}
        prefix = self._prefix()
        return {
            "format": manifest.FORMAT,
            "part": "before",
            "deployment": self.deployment,
            "host": platform.node(),
            "archive": self.archive,
            "time": moment(time.time()),
            "versions": self.versions,
            "containers": self.containers,
            "places": self.places,
            "counts": counts,
            "shards": self._shards(scanned, moved),
            "views": {prefix + path: of["updateSequence"] for path, of in scanned["views"].items()},
            "files": files,
            "parents": self._parents(),
            "notes": self.notes + scanned["notes"],
            "problems": self.problems,
        }

    def _describe(self, path: str) -> dict[str, Any]:
        """Kind, owner, mode and size; and a checksum of what doesn't change while CouchDB runs."""
        try:
            of = os.lstat(path)
            if stat.S_ISDIR(of.st_mode):
                return {"kind": "directory", **manifest.owned(of)}
            if stat.S_ISLNK(of.st_mode):
                return {"kind": "link", "target": os.readlink(path)}
            described = {"kind": "file", **manifest.owned(of), "size": of.st_size}
            data = [*self.data, *self.elsewhere.values()]
            if not any(path.startswith(f"{directory}/") for directory in data):
                self.seen[path] = _state(of)
                described["sha256"] = manifest.checksum(path)
            return described
        except FileNotFoundError:  # swapped by a compaction or deleted since it was listed
            return {"kind": "vanished"}
        except OSError as error:
            self.problem(f"{path} can't be read: {error.strerror}")
            return {"kind": "vanished"}

    def _changed(self) -> list[str]:
        """Files that aren't what they were when their checksums were made: the archive may have either."""
        changed = []
        for path, before in self.seen.items():
            try:
                now = _state(os.lstat(path))
            except OSError:
                now = None
            if now != before:
                changed.append(path)
                self.notes.append(f"{path} changed during the backup, so a copy of it can't be compared")
        return changed

    def _parents(self) -> dict[str, Any]:
        """Owners and modes of the directories above what is put back, as far as they aren't in the
        archive."""
        found: dict[str, Any] = {}
        roots = [*self.data, *self.elsewhere.values(), *self.places.get("outside", [])]
        home = f"{self.settings['chtHome'].rstrip('/')}/"
        for path in [*roots, *(path for path in self.paths if path.startswith(home))]:
            while (path := os.path.dirname(path)) != "/" and path not in found:
                if path not in self.added:
                    with contextlib.suppress(OSError):
                        found[path] = manifest.owned(os.stat(path))
        return dict(sorted(found.items()))

    def _compare_listed(self, counts: dict[str, Any], scanned: dict[str, Any]) -> None:
        """See whether every database that CouchDB lists has files in what is backed up. Databases come and
        go, so both are asked again where they don't agree."""
        lacking = self._listed(counts) - scanned["databases"].keys()
        if lacking:
            time.sleep(2)
            lacking &= self._listed(self.count()) - self.scan()["databases"].keys()
        for name in sorted(lacking):
            self.problem(f"CouchDB lists the database {name}, but no file of it is in {', '.join(self.data)}")

    def _listed(self, counts: dict[str, Any]) -> set[str]:
        """The databases that CouchDB lists: by its own answer, else by its files."""
        if counts["source"] == "server":
            return set(counts["databases"])
        found: set[str] = set()
        for directory in self.data:
            # What is wrong with the file itself is told by the scan.
            with contextlib.suppress(OSError, couch_files.Unreadable):
                path = couch_files.located(f"{directory}/_dbs.couch", self.elsewhere)
                found.update(couch_files.listed_databases(path))
        return found

    def _prefix(self) -> str:
        # `scan` gives paths in the data directory when there is one; the manifest has absolute ones always.
        return f"{self.data[0]}/" if len(self.data) == 1 else ""

    def _shards(self, scanned: dict[str, Any], unsteady: set[str]) -> dict[str, Any]:
        return {
            self._prefix() + path: of
            for path, of in scanned["shardFiles"].items()
            if couch_files.database_of(path) not in unsteady
        }

    def unsteady(self) -> set[str]:
        """Databases that were made, deleted, or made again between the first look at CouchDB's directories
        and the last one."""
        names = {name for look in self.epochs for name in look}
        return {name for name in names if len({look.get(name) for look in self.epochs}) > 1}

    def manifest_after(self) -> dict[str, Any]:
        # The files first, so that the server's numbers are the later ones.
        scanned = self.scan()
        counts = self.count()
        self._compare_listed(counts, scanned)
        if counts["source"] == "files":
            counts["databases"] = manifest.counts_of(scanned["databases"])
        self._walk_data()
        unsteady = self.unsteady()
        # A shard that was lost while borg worked, for one.
        for text in scanned["problems"]:
            self.problem(f"CouchDB's files: {text}")
        # Of a database that was just being made or deleted, nothing was wrong.
        self.problems = [text for text in self.problems if plan.damaged(text) not in unsteady]
        counts["databases"] = {name: of for name, of in counts["databases"].items() if name not in unsteady}
        return {
            "format": manifest.FORMAT,
            "part": "after",
            "archive": self.archive,
            "time": moment(time.time()),
            "counts": counts,
            "shards": self._shards(scanned, unsteady),
            # The archive holds these as they were at some moment, in part, or not at all.
            "unsteady": sorted(unsteady),
            "changed": self._changed(),
            # Those of the first part, without what turned out to be none.
            "problems": self.problems,
        }

    # ---- storing ----------------------------------------------------------------------------------------

    def begin_counter(self) -> None:
        """Where this machine has never written to the repository, or has lost or damaged its count, let borg
        count from the time: see `plan.first_counter`. `pulumi up` does the same; this is for a machine that
        has lost its state since. Raises NoBackup."""
        security = f"{self.state}/borg/.config/borg/security"
        counters = glob.glob(f"{glob.escape(security)}/*/nonce")
        for path in counters:
            with open(path, "rb") as file:
                if plan.is_counter(file.read(100)):
                    continue
            write_atomically(path, plan.first_counter(time.time()), 0o600)
            self.notes.append(f"{path} was damaged; borg counts on from the time, beyond all that it used")
        if counters:
            return
        code, lines, output = self.borg("repo-info", "--json")
        repository = plan.repository_id(output)
        if repository is None:
            raise NoBackup(plan.explain(code, lines))
        os.makedirs(f"{security}/{repository}", mode=0o700, exist_ok=True)
        write_atomically(f"{security}/{repository}/nonce", plan.first_counter(time.time()), 0o600)

    def borg(self, *action: str) -> tuple[int | None, list[str], str]:
        """Run one of borgmatic's actions. Returns borg's exit code, its warnings and errors, and what was
        printed.

        What borg keeps on this machine to be faster may be lost or damaged (a full disk, a crash). It can be
        made anew from the repository, so it is removed then, and borg gets a second try. What protects
        against a replaced repository isn't there, but in borg's security directory, and stays.
        """
        code, lines, output = self._once(*action)
        broken = plan.broken_cache(code, lines)
        if broken is None:
            return code, lines, output
        cache = f"{self.state}/borg/.cache/borg"
        say(f"borg's cache {cache} is unusable, so it is removed and made anew ({broken})")
        shutil.rmtree(cache, ignore_errors=True)
        self.notes.append(f"borg's cache was unusable and was made anew ({broken})")
        return self._once(*action)

    def _once(self, *action: str) -> tuple[int | None, list[str], str]:
        if action[0] == "create":
            output, errors = self._store(*action)
        else:
            self.child = self._borgmatic(*action)
            output, errors = self._communicate()
        assert self.child is not None
        code, lines = read_borgmatic(self.child.returncode, errors)
        if plan.lacks_cause(code, lines):
            lines += ask_ssh(os.path.join(os.path.dirname(self.configuration), "ssh_config"))
        return code, lines, output

    def _store(self, *action: str) -> tuple[str, str]:
        """Run `borgmatic create` over the listed paths.

        borg gets the list on its standard input: so each path is copied once and in our order. (With
        directories as roots, borg would store a file again that a compaction swapped meanwhile.)
        """
        reader, writer = os.pipe()
        done = threading.Event()
        list_ = os.fdopen(writer, "w", encoding="utf-8", errors="surrogateescape")
        giver = threading.Thread(target=self._give_list, args=(list_, done), daemon=True)
        try:
            try:
                self.child = self._borgmatic(*action, stdin=reader)
            finally:
                os.close(reader)
            giver.start()
            return self._communicate(self._progress())
        finally:
            done.set()
            if giver.ident is not None:
                giver.join(STOP_TIMEOUT)
            # borg has ended, and what wasn't read is of no use; a borg that can't be killed isn't waited for.
            with contextlib.suppress(OSError):
                if not giver.is_alive():
                    list_.close()

    def _borgmatic(
        self, action: str, *arguments: str, stdin: Any = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        command = [
            borgmatic(),
            "--config",
            self.configuration,
            "--no-color",
            "--archive-name-format",
            self.archive,
        ]
        return subprocess.Popen(
            [*command, action, *arguments],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd="/",
            env=own_environment(),
            # borgmatic passes signals on to its whole process group, which must not hold this process.
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip

    def _communicate(self, progress: Callable[[], None] | None = None) -> tuple[str, str]:
        """Wait for borgmatic's end. Raises NoBackup when nothing happens for too long, and what kept borg
        from being given its list."""
        assert self.child is not None
        idle = Idle()
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.child.communicate(timeout=1)
                if self.broken is not None:
                    raise self.broken
                stalled = idle.look(descendants(self.child.pid), time.monotonic())
                if stalled is not None:
                    raise NoBackup(stalled)
                if progress is not None:
                    progress()
        except BaseException:
            self.stop_child()
            raise

    def stop_child(self) -> None:
        """End borgmatic, borg and ssh, gently first so that borg gives its locks back."""
        child = self.child
        if child is None:
            return
        for number, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
            deadline = time.monotonic() + patience
            try:
                os.killpg(child.pid, number)
                while time.monotonic() < deadline:
                    child.poll()
                    os.killpg(child.pid, 0)  # fails when none of the group is left
                    time.sleep(0.1)
            except ProcessLookupError:
                return

    def _give_list(self, list_: IO[str], done: threading.Event) -> None:
        """Write the list of paths for borg, the manifest's second part last and only when it is there.

        borg takes the list in blocks, and takes the next one only when it has stored all paths of those
        before. So the last path is begun with more slashes (one means the same) than a few blocks hold: when
        borg has taken them all out of the pipe, it has stored everything before. Now the second part is
        made, and its path is ended. A list that ends early ends in the path of a file that isn't there,
        never in one that is.

        Whatever goes wrong before all is given is the run's failure at once (`broken`): the list must not
        just end, or borg would make an archive of what it has been given so far.

        (A named pipe as the last path would need borg's read_special, with which its chunker `fixed` fails:
        "Illegal seek".)
        """
        before, after = self.places["manifestBefore"], self.places["manifestAfter"]
        try:
            for path in [*self.paths, before]:
                list_.write(f"{path}\0")
            list_.write(f"{self.unfinished()}{'/' * LIST_BLOCK}")
            list_.flush()
            while unread(list_):
                if done.wait(0.1):
                    return
            try:
                write_atomically(after, json.dumps(self.manifest_after(), indent=1) + "\n", 0o600)
            except Exception as error:  # the rest is stored, and is worth more than nothing
                if not isinstance(error, OSError):
                    complain_of_bug()
                self.problem(f"the manifest's second part can't be made: {_reason(error)}")
            else:
                list_.write(f"../{os.path.basename(after)}\0")
            list_.close()
        except BrokenPipeError:
            pass  # borg has ended; its exit code says more
        except Exception as error:
            self.broken = error

    def unfinished(self) -> str:
        """The path that ends borg's list when the manifest's second part couldn't be made."""
        return f"{self.scratch}/unfinished"

    def _progress(self) -> Callable[[], None]:
        """A function that says once a minute how far borg is, by the file that it has open."""
        reached: dict[str, int] = {}
        total = 0
        for path in self.paths:
            reached[path] = total
            total += self.sizes.get(path, 0)
        said = time.monotonic()

        def tell() -> None:
            nonlocal said
            assert self.child is not None
            if time.monotonic() - said < PROGRESS_INTERVAL:
                return
            said = time.monotonic()
            opened = (path for process in descendants(self.child.pid) for path in open_files(process))
            path = next((path for path in opened if path in reached), None)
            if path is not None and total:
                read = reached[path]
                say(f"{read / total:.0%} read: {megabytes(read)} of {megabytes(total)}, now {path}")

        return tell

    def look_up(self) -> list[dict[str, Any]] | None:
        """The archives that borg lists; None, with a note, when they can't be listed. Then borg's word that
        it made the archive must do: it says so only when the server has it."""
        for pause in (0, LOOK_UP_PAUSE):
            time.sleep(pause)
            code, lines, output = self.borg("repo-list", "--json")
            try:
                return json.loads(output)[0]["archives"]
            except (ValueError, LookupError, TypeError):
                why = plan.explain(code, lines)
        self.notes.append(f"borg made the archive, but it couldn't be looked up afterwards: {why}")
        return None

    def among(self, archives: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The archive of this run among those that borg lists."""
        return next((of for of in archives if of["name"] == self.archive), None)

    # ---- the run ----------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Make the backup and return the result (see `last-backup.json`). Raises NoBackup."""
        self.collect()
        say(
            f"{self.archive}: {len(self.sizes)} files, {megabytes(sum(self.sizes.values()))};"
            f" CouchDB's data is in {', '.join(self.data)}"
        )
        before = self.manifest_before()
        write_atomically(self.places["manifestBefore"], json.dumps(before, indent=1) + "\n", 0o600)
        self.begin_counter()
        code, lines, output = self.borg("create", "--json")
        self.borg_exit_code = code
        answer = plan.read_answer(code, lines)
        if not answer.may_have_archive:
            raise NoBackup(answer.problems[0])
        created = plan.created(output)
        self.figures = created.get("stats") or {}
        if created.get("name") == self.archive:
            self.created = {"id": created.get("id"), "time": created.get("start")}
        listed = self.look_up()
        if listed is not None:
            found = self.among(listed)
            self.created = found and {"id": found["id"], "time": found.get("start") or found.get("time")}
        if self.created is None:
            raise NoBackup(
                f"borg ended with {code}, but there is no archive {self.archive}: {plan.explain(code, lines)}"
            )
        self.problems += answer.problems
        vanished = [path if path.startswith("/") else f"/{path}" for path in answer.vanished]
        vanished = [path for path in vanished if path != self.unfinished()]
        gone = []
        for path in vanished:
            if os.path.exists(path) and not path.endswith(".view"):  # which CouchDB builds anew
                self.problem(f"{path} is not in the archive: it was being replaced when borg came to it")
            else:
                gone.append(("gone", f"{path}: went away during the backup"))
        self.notes += couch_files.grouped(gone)
        stored = self.figures.get("nfiles")
        expected = len(self.sizes) + 2 - len(vanished)
        if stored is not None and stored < expected:
            self.problem(f"the archive holds {stored} files instead of {expected}")
        return self.result()

    def dry(self) -> int:
        """Say what a backup would hold. Writes nothing."""
        self.collect()
        counts = self.count()
        scanned = self.scan()
        if counts["source"] == "files":
            counts["databases"] = manifest.counts_of(scanned["databases"])
        say(f"would make {self.archive} in {self.settings['repository']}")
        say(
            f"{len(self.sizes)} files, {megabytes(sum(self.sizes.values()))};"
            f" counts from CouchDB's {counts['source']}:"
        )
        for name, of in sorted(counts["databases"].items()):
            say(f"  {name}: {of['documents']:,} documents, update sequence {of['updateSequence']:,}")
        for what, place in self.places.items():
            if not what.startswith("manifest"):
                say(f"  {what}: {json.dumps(place)}")
        self.problems += [f"CouchDB's files: {text}" for text in scanned["problems"]]
        for text in self.notes:
            say(f"note: {text}")
        for text in self.problems:
            complain(f"problem: {text}")
        return INCOMPLETE if self.problems else COMPLETE

    def result(self, bug: bool = False) -> dict[str, Any]:
        archive, figures = self.created, self.figures
        finished = time.time()
        return {
            "deployment": self.deployment,
            "started": moment(self.started),
            "finished": moment(finished),
            "startedAt": round(self.started),
            "finishedAt": round(finished),
            "ok": archive is not None and not self.problems,
            "archive": self.archive if archive else None,
            "archiveId": archive["id"] if archive else None,
            "originalSize": figures.get("original_size"),
            "compressedSize": figures.get("compressed_size"),
            "deduplicatedSize": figures.get("deduplicated_size"),
            "files": figures.get("nfiles"),
            "borgExitCode": self.borg_exit_code,
            "exitCode": BUG
            if bug
            else NONE
            if archive is None
            else INCOMPLETE
            if self.problems
            else COMPLETE,
            "problems": self.problems,
            "notes": self.notes,
        }


class Idle:
    """Whether anything still happens in the processes of a run."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, float]] = {}
        """What had been done, and since when it is no more."""

    def look(self, processes: list[int], now: float) -> str | None:
        """Look at what the processes have done by `now` (seconds). Returns in one line what is wrong when it
        is too long that they did anything."""
        work = {process: (name_of(process), work_done(process)) for process in processes}
        # ssh asks the server now and then whether it lives, whatever borg does.
        for who, limit, each in (
            ("borg and its ssh did", IDLE_LIMIT, [done for _name, done in work.values()]),
            ("borg did", STUCK_LIMIT, [done for name, done in work.values() if name != "ssh"]),
        ):
            done, since = sum(of or 0 for of in each), self.seen.get(who)
            if since is None or since[0] != done or not each or None in each:
                self.seen[who] = (done, now)
            elif now - since[1] > limit:
                opened = [path for process in processes for path in open_files(process) if path[0] == "/"]
                opened = [path for path in opened if not path.startswith(("/dev/", "/proc/"))]
                where = f" (the last file it has open is {opened[-1]})" if opened else ""
                return f"{who} nothing for {limit // 60} minutes, so they were stopped{where}"
        return None


def _end_with_parent() -> None:
    # prctl(PR_SET_PDEATHSIG, SIGTERM): borg must not go on, unobserved, when this process was killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def own_environment() -> dict[str, str]:
    """The environment for borg: nothing that a login, /etc/environment or systemd says about another borg's
    repository, passphrase or answers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BORG_")}


def borgmatic() -> str:
    """borgmatic of the Python environment that runs this script."""
    return os.path.join(os.path.dirname(sys.executable), "borgmatic")


def borgmatic_version() -> str:
    try:
        return importlib.metadata.version("borgmatic")
    except importlib.metadata.PackageNotFoundError as error:
        raise NoBackup(f"borgmatic is not in the Python environment of {sys.executable}") from error


def borg_version() -> str:
    command = ["borg", "--version"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60, env=own_environment()
        )
        return done.stdout.strip().removeprefix("borg ")
    except (OSError, subprocess.SubprocessError) as error:
        raise NoBackup(f"borg doesn't work: {_reason(error)}") from error


def ask_ssh(configuration: str) -> list[str]:
    """Why ssh can't reach the backup server, in its own words; none where it can."""
    command = ["ssh", "-F", configuration, "offsite"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", timeout=60, env=own_environment(),
        )  # fmt: skip
        # ssh's own failures; any other code is that of what runs on the server.
        if done.returncode == 255:
            return [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return []


def read_borgmatic(exit_code: int, errors: str) -> tuple[int | None, list[str]]:
    """borg's own exit code out of borgmatic's (0 or 1) and what it logged; and the log without borgmatic's
    own remarks. borgmatic 2.1 says "Treating exit code 107 (…) as a warning" or "… returned non-zero exit
    status 2.", and nothing for 0. A borgmatic that failed without a word about borg gives None."""
    codes = re.findall(
        r"Treating exit code (\d+)|non-zero exit status (\d+)|died with <Signals\.\w+: (\d+)>", errors
    )
    remarks = (
        r"Treating exit code|returned non-zero exit status|^summary:|An error occurred$|^Need some help\?"
        r"|^(\S+: )?Error running"
    )
    lines = [line.strip() for line in errors.splitlines()]
    lines = [line.removeprefix("offsite: ") for line in lines if line and not re.search(remarks, line)]
    if codes:
        return int("".join(codes[-1])), list(dict.fromkeys(lines))
    return (0 if exit_code == 0 else None), list(dict.fromkeys(lines))


def unread(pipe: IO[str]) -> int:
    """Bytes in a pipe that its reader hasn't taken yet."""
    waiting = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder)


def descendants(parent: int) -> list[int]:
    """Process numbers of the children of a process, and of theirs."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            children = [int(text) for text in file.read().split()]
    except OSError:
        return []
    return [process for child in children for process in (child, *descendants(child))]


def name_of(process: int) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def work_done(process: int) -> int | None:
    """Bytes that a process has read and written so far, and the time that it has computed, in one number; 0
    when it has ended, None when the kernel doesn't tell."""
    try:
        with open(f"/proc/{process}/io", encoding="ascii") as file:
            moved = sum(int(line.split()[1]) for line in file if line.startswith(("rchar", "wchar")))
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            after_name = file.read().rpartition(")")[2].split()
        return moved + int(after_name[11]) + int(after_name[12])  # utime and stime, see proc(5)
    except PermissionError:
        return None
    except (OSError, ValueError, IndexError):
        return 0


def open_files(process: int) -> list[str]:
    """Paths of the files that a process has open."""
    try:
        return [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        return []


def current(containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of some containers that run; all of them when none does."""
    return [of for of in containers if of["running"]] or containers


def data_mounts(couchdb: list[dict[str, Any]]) -> list[str]:
    """What is mounted at CouchDB's data directory."""
    return sorted(
        {
            mount["source"]
            for of in current(couchdb)
            for mount in of["mounts"]
            if mount["destination"] == plan.DATA_IN_CONTAINER and mount["source"]
        }
    )


def logins(couchdb: list[dict[str, Any]], env: dict[str, str]) -> list[tuple[str, str]]:
    """Names and passwords of CouchDB's administrator: those that its containers were started with, then those
    of `.env`, which may have been changed since."""
    found = [of["environment"] for of in current(couchdb) if of["environment"].get("COUCHDB_PASSWORD")]
    return list(
        dict.fromkeys(
            (of.get("COUCHDB_USER") or "medic", of.get("COUCHDB_PASSWORD", "")) for of in [*found, env]
        )
    )


def without_links(directories: list[str]) -> tuple[list[str], list[str]]:
    """Where the directories are that links lead to, and those links. An archive that holds something below a
    link would be written through it when it is extracted, and is refused."""
    links = [path for path in directories if os.path.islink(path)]
    return [os.path.realpath(path) if path in links else path for path in directories], links


def check_data_directory(directory: str, elsewhere: dict[str, str]) -> None:
    """Refuse what is no CouchDB data directory, such as the mount point of a disk that isn't mounted."""
    try:
        os.listdir(directory)
    except OSError as error:
        raise NoBackup(f"CouchDB's data directory {directory} can't be read: {error.strerror}") from error
    missing = [
        name
        for name in ("_dbs.couch", "shards")
        if not os.path.exists(couch_files.located(os.path.join(directory, name), elsewhere))
    ]
    if missing:
        raise NoBackup(
            f"{directory} has no {' and no '.join(missing)}, so it is not CouchDB's data directory"
            " (is its disk mounted? is COUCHDB_DATA right?)"
        )


def remember(backup: Backup, result: dict[str, Any]) -> None:
    """Write last-backup.json and the metrics beside it."""
    path = f"{backup.state}/last-backup.json"
    last_success = result["finishedAt"] if result["ok"] else None
    if last_success is None:
        try:
            with open(path, encoding="utf-8") as file:
                last_success = json.load(file).get("lastSuccessAt")
        except (OSError, ValueError, AttributeError):
            pass
    result["lastSuccessAt"] = last_success
    write_atomically(path, json.dumps(plain_values(result), indent=2) + "\n")
    write_atomically(f"{backup.state}/last-backup.prom", plan.metrics(result, last_success))


def report(result: dict[str, Any]) -> None:
    for text in result["notes"][:MAX_LINES]:
        say(f"note: {text}")
    problems = result["problems"]
    for text in problems[:MAX_LINES]:
        complain(f"<3>problem: {text}" if os.environ.get("JOURNAL_STREAM") else f"problem: {text}")
    if len(problems) > MAX_LINES:
        complain(f"and {len(problems) - MAX_LINES} more problems")
    took = result["finishedAt"] - result["startedAt"]
    if result["archive"] is None:
        complain(f"no backup was made ({took} s)")
        return
    say(
        f"{result['archive']} {'is complete' if result['ok'] else 'is INCOMPLETE'}: {result['files']} files,"
        f" {megabytes(result['originalSize'])}, {megabytes(result['deduplicatedSize'])} of it new, {took} s"
    )


def stopped(number: int, _frame: Any) -> None:
    for other in SIGNALS:  # once is enough; the rest is tidying up
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def attempt(action: Callable[[], dict[str, Any]], backup: Backup) -> dict[str, Any]:
    """Run, and turn every way to fail into a result with one line."""
    try:
        return action()
    except NoBackup as error:
        backup.problem(str(error))
    except Stopped as error:
        backup.problem(f"stopped by {error}")
    except (OSError, subprocess.SubprocessError) as error:
        backup.problem(_reason(error))
    except Exception as error:  # a fault of this program: its report must be of today all the same
        complain_of_bug()
        backup.problem(f"a fault of the backup program itself: {type(error).__name__}: {_reason(error)}")
        return backup.result(bug=True)
    return backup.result()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="backup.py",
        description="Back up a CHT deployment with borgmatic: CouchDB's files, compose files, .env,"
        " certificate and key, credentials, and a manifest of it all.",
        epilog="Exit codes: 0 the backup is complete; 1 a backup was made but something is missing in it,"
        " which is named; 2 no backup was made, the reason is named; 70 the program itself is at fault. The"
        " result is kept in"
        " /var/lib/cht-backup/DEPLOYMENT/last-backup.json.",
    )
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup/DEPLOYMENT/settings.json")
    parser.add_argument(
        "--config", metavar="FILE", help="borgmatic's configuration (default: borgmatic.yaml beside SETTINGS)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be backed up, and change nothing"
    )
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        settings = read_settings(options.settings)
    except NoBackup as error:
        complain(error)
        return NONE
    configuration = options.config or os.path.join(
        os.path.dirname(os.path.abspath(options.settings)), "borgmatic.yaml"
    )
    backup = Backup(settings, configuration, options.dry_run)
    for number in SIGNALS:
        signal.signal(number, stopped)
    if options.dry_run:
        try:
            return backup.dry()
        except (NoBackup, OSError, subprocess.SubprocessError) as error:
            complain(f"problem: {error if isinstance(error, NoBackup) else _reason(error)}")
            return NONE
        except Stopped:
            return NONE
    try:
        os.makedirs(backup.state, mode=0o700, exist_ok=True)
        lock = os.open(f"{backup.state}/run.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        complain(f"another backup of {backup.deployment} is running")
        return NONE
    except OSError as error:
        complain(f"{backup.state}: {error.strerror} (run as root)")
        return NONE
    try:
        shutil.rmtree(backup.scratch, ignore_errors=True)  # of a run that was killed
        os.makedirs(backup.scratch, mode=0o700)
        result = attempt(backup.run, backup)
        remember(backup, result)
    except OSError as error:
        complain(f"problem: {_reason(error)}")
        return NONE
    finally:
        shutil.rmtree(backup.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(backup.scratch))
    report(result)
    return result["exitCode"]


if __name__ == "__main__":
    exit_with(main)
