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
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import couch_files
import manifest
import plan

COMPLETE, INCOMPLETE, NONE = 0, 1, 2
DOCKER_TIMEOUT = 120  # seconds; a Docker engine that doesn't answer in this time counts as stopped
HTTP_TIMEOUT = 60
STOP_TIMEOUT = 60  # seconds that borg gets to end after a signal
PROGRESS_INTERVAL = 60
VOLUMES = ("cht-credentials", "cht-ssl")
CERTIFICATES = {"certificate": "cert.pem", "key": "key.pem"}  # in nginx's /etc/nginx/private
MAX_LINES = 20
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IN_OPEN = 0x20  # of inotify(7)
# borg 1.2 and 1.4 read their list 4,096 characters at a time, after a buffer of 8,192; this is ample.
LIST_BLOCK = 64 * 1024
IDLE_LIMIT = 900  # seconds without a byte moved, after which borg isn't waited for any more


class NoBackup(Exception):
    """No archive can be made. The text is one line for the operator."""


class Stopped(BaseException):
    """The run was told to end by a signal."""


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """A line that can't steer a terminal, or look like two: names of files may hold anything."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    print(plain(text), flush=True)


def complain(text: str) -> None:
    print(plain(text), file=sys.stderr, flush=True)


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
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)


class Docker:
    """The machine's Docker engine, asked with its command line tool. Containers are found by their labels,
    because their names depend on the version of Compose."""

    def __init__(self) -> None:
        self.stopped: str | None = None
        """Why the engine can't be asked, in one line; None while it answers."""
        try:
            self.version: str | None = self._run("version", "--format", "{{.Server.Version}}").strip()
        except (OSError, subprocess.SubprocessError) as error:
            self.version = None
            self.stopped = _reason(error)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=True,
            timeout=DOCKER_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def containers(self, project: str) -> list[dict[str, Any]]:
        """The project's containers, without their environments, which hold passwords."""
        ids = self._run(
            "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label=com.docker.compose.project={project}"
        ).split()
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
                    "data": [
                        mount["Source"]
                        for mount in of["Mounts"]
                        if mount.get("Destination") == plan.DATA_IN_CONTAINER
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
            except subprocess.CalledProcessError:  # the image was removed while its container stayed
                digests[image_id] = []
        return digests

    def copy_out(self, container: str, path: str, target: str) -> None:
        # --follow-link: certbot's files are links into its own tree.
        self._run("cp", "--follow-link", f"{container}:{path}", target)

    def mountpoint(self, volume: str) -> str:
        return self._run("volume", "inspect", "--format", "{{.Mountpoint}}", volume).strip()


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

    def count(name: str) -> tuple[str, dict[str, int]] | None:
        try:
            of = get("/" + urllib.parse.quote(name, safe=""))
        except urllib.error.HTTPError as error:
            if error.code == 404:  # deleted since the list was made
                return None
            raise
        return name, {
            "documents": int(of["doc_count"]),
            "deleted": int(of["doc_del_count"]),
            "updateSequence": int(str(of["update_seq"]).split("-")[0]),
        }

    # CHT keeps a database for every user, so there may be thousands.
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        return dict(entry for entry in threads.map(count, get("/_all_dbs")) if entry is not None)


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
        self.borg_exit_code: int | None = None
        self.env: dict[str, str] = {}
        self.couchdb_addresses: list[str] = []
        self.why_not_asked = "CouchDB is stopped"
        self.data: list[str] = []
        self.places: dict[str, Any] = {}
        self.paths: list[str] = []  # in the order in which they are copied
        self.sizes: dict[str, int] = {}  # by absolute path
        self.versions: dict[str, str | None] = {}
        self.containers: list[dict[str, Any]] = []

    def problem(self, text: str) -> None:
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
        borg, compose = threads.submit(borg_version), threads.submit(compose_version)
        threads.shutdown(wait=False)
        docker = Docker()
        containers: list[dict[str, Any]] = []
        if docker.stopped:
            self.why_not_asked = "Docker doesn't answer"
            self.problem(
                f"Docker doesn't answer, so the certificate and versions are missing: {docker.stopped}"
            )
        else:
            containers = docker.containers(project)
            if not containers:
                self.problem(f"no container belongs to the Compose project {project}")
        couchdb = [of for of in containers if of["service"].startswith("couchdb")]
        mounts = sorted({source for of in couchdb for source in of["data"]})

        self.data = plan.data_directories(self.settings["couchdbData"], self.env, mounts) or [
            f"{home}/couchdb"
        ]
        self.data, links = without_links(self.data)
        for directory in self.data:
            check_data_directory(directory)
        real = {os.path.realpath(directory) for directory in self.data}
        for source in mounts:
            if os.path.realpath(source) not in real:
                self.problem(
                    f"CouchDB keeps its data in {source}, which is not backed up"
                    f" (only {', '.join(self.data)} is)"
                )

        trees = {directory: plan.walk(directory, [plan.LEFT_OUT]) for directory in self.data}
        self._order(trees)
        volumes = self._volumes(docker, project)
        certificates = {} if docker.stopped else self._certificates(docker, containers)

        for path in [*links, *compose_files, *([env_file] if env_file else []), *certificates.values()]:
            self._add(path)
        for mountpoint in volumes.values():
            tree = plan.walk(mountpoint)
            for path in tree.paths:
                self._add(os.path.join(mountpoint, path) if path else mountpoint)

        self.places = {
            "couchdb": self.data,
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
            "borg": borg.result(),
            "borgmatic": borgmatic_version(),
            "docker": docker.version,
            "compose": None if docker.stopped else compose.result(),
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
        compose: list[str] = []
        for folder in ("compose", "upgrade-service"):
            try:
                names = sorted(os.listdir(f"{home}/{folder}"))
            except OSError as error:
                self.problem(f"{home}/{folder} can't be read: {error.strerror}")
                continue
            found = [f"{home}/{folder}/{name}" for name in names if name.endswith((".yml", ".yaml"))]
            if not found:
                self.problem(f"{home}/{folder} holds no compose file (*.yml)")
            compose += found
        env_file = f"{home}/upgrade-service/.env"
        try:
            with open(env_file, encoding="utf-8", errors="surrogateescape") as file:
                self.env = plan.parse_env(file.read())
        except OSError as error:
            self.problem(f"{env_file} can't be read: {error.strerror}")
            return compose, None
        for name in ("COUCHDB_PASSWORD", "COUCHDB_SECRET", "COUCHDB_UUID"):
            if not self.env.get(name):
                self.notes.append(f"{env_file} sets no {name}")
        return compose, env_file

    def _order(self, trees: dict[str, plan.Tree]) -> None:
        self.paths = plan.copied_in_order({directory: tree.paths for directory, tree in trees.items()})
        for directory, tree in trees.items():
            self.sizes.update({os.path.join(directory, path): size for path, size in tree.sizes.items()})

    def _add(self, path: str) -> None:
        self.paths.append(path)
        if os.path.isfile(path) and not os.path.islink(path):
            self.sizes[path] = os.stat(path).st_size

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
                except subprocess.SubprocessError as error:
                    self.problem(f"the volume {volume} is missing: {_reason(error)}")
                    continue
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
                os.chmod(target, 0o600 if what == "key" else 0o644)
                with open(target, "rb") as file:
                    if b"-----BEGIN" not in file.read():
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
            user, password = self.env.get("COUCHDB_USER") or "medic", self.env.get("COUCHDB_PASSWORD", "")
            for address in self.couchdb_addresses:
                try:
                    return {"source": "server", "databases": ask_couchdb(address, user, password)}
                except urllib.error.HTTPError as error:
                    reason = f"CouchDB answers {error.code} {error.reason} to the user {user} of .env"
                except (OSError, ValueError, KeyError, TypeError) as error:
                    reason = f"CouchDB can't be asked: {_reason(error)}"
            if f"{reason}; counts are from the files" not in self.problems:
                self.problem(f"{reason}; counts are from the files")
        return {"source": "files", "reason": reason, "databases": {}}

    def scan(self) -> dict[str, Any]:
        """Read the headers of all files, and once more when something looks wrong: a compaction replaces a
        file by removing it and renaming another, and the directory may be read between the two."""
        scanned = couch_files.scan(*self.data)
        if scanned["problems"]:
            time.sleep(2)
            scanned = couch_files.scan(*self.data)
        return scanned

    def manifest_before(self) -> dict[str, Any]:
        # The server is asked before the files are read: what it has acknowledged by then is in them.
        counts = self.count()
        scanned = self.scan()
        if counts["source"] == "files":
            counts["databases"] = manifest.counts_of(scanned["databases"])
        for text in scanned["problems"]:
            self.problem(f"CouchDB's files: {text}")
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
            "shards": self._shards(scanned),
            "views": {prefix + path: of["updateSequence"] for path, of in scanned["views"].items()},
            "files": {path: self._describe(path) for path in self.paths},
            "notes": self.notes + scanned["notes"],
            "problems": self.problems,
        }

    def _describe(self, path: str) -> dict[str, Any]:
        """Kind, owner, mode and size; and a checksum of what doesn't change while CouchDB runs."""
        try:
            of = os.lstat(path)
            described: dict[str, Any] = {
                "mode": f"{stat.S_IMODE(of.st_mode):04o}",
                "uid": of.st_uid,
                "gid": of.st_gid,
            }
            if stat.S_ISDIR(of.st_mode):
                return {"kind": "directory", **described}
            if stat.S_ISLNK(of.st_mode):
                return {"kind": "link", "target": os.readlink(path)}
            described = {"kind": "file", **described, "size": of.st_size}
            if not any(path.startswith(f"{directory}/") for directory in self.data):
                with open(path, "rb") as file:
                    described["sha256"] = hashlib.sha256(file.read()).hexdigest()
            return described
        except FileNotFoundError:  # swapped by a compaction or deleted since it was listed
            return {"kind": "vanished"}

    def _prefix(self) -> str:
        # `scan` gives paths in the data directory when there is one; the manifest has absolute ones always.
        return f"{self.data[0]}/" if len(self.data) == 1 else ""

    def _shards(self, scanned: dict[str, Any]) -> dict[str, Any]:
        return {self._prefix() + path: of for path, of in scanned["shardFiles"].items()}

    def manifest_after(self) -> dict[str, Any]:
        # The files first, so that the server's numbers are the later ones.
        scanned = self.scan()
        # A shard that was lost while borg worked, for one.
        for text in scanned["problems"]:
            if f"CouchDB's files: {text}" not in self.problems:
                self.problem(f"CouchDB's files: {text}")
        counts = self.count()
        if counts["source"] == "files":
            counts["databases"] = manifest.counts_of(scanned["databases"])
        return {
            "format": manifest.FORMAT,
            "part": "after",
            "archive": self.archive,
            "time": moment(time.time()),
            "counts": counts,
            "shards": self._shards(scanned),
        }

    # ---- storing ----------------------------------------------------------------------------------------

    def store(self) -> tuple[int | None, list[str], list[dict[str, Any]]]:
        """Run `borgmatic create` over the listed paths, and `repo-list` after it in the same start, which
        takes borgmatic a second otherwise. Returns borg's exit code, its warnings and errors, and what both
        printed: statistics and the list of archives; nothing when one of them failed.

        borg gets the list on its standard input: so each path is copied once and in our order. (With
        directories as roots, borg would store a file again that a compaction swapped meanwhile.)
        """
        reader, writer = os.pipe()
        try:
            self.child = self._borgmatic("create", "--json", "repo-list", "--json", stdin=reader)
        finally:
            os.close(reader)
        done = threading.Event()
        watchers = [
            threading.Thread(target=self._give_list, args=(writer, done)),
            threading.Thread(target=self._watch, args=(done,)),
        ]
        try:
            for thread in watchers:
                thread.start()
            output, errors = self._communicate()
        finally:
            done.set()
            for thread in watchers:
                if thread.ident is not None:
                    thread.join()
        printed = []
        with contextlib.suppress(ValueError):
            printed = json.loads(output)
        code, lines = read_borgmatic(self.child.returncode, errors)
        return code, lines, printed

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
            # borgmatic passes signals on to its whole process group, which must not hold this process.
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip

    def _communicate(self) -> tuple[str, str]:
        assert self.child is not None
        try:
            return self.child.communicate()
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

    def _give_list(self, writer: int, done: threading.Event) -> None:
        """Write the list of paths for borg, the manifest's second part last and only when it is there.

        The path before the last one is the manifest's first part. The kernel tells when borg opens that
        file; then everything before it has been read. Now the second part is made and given to borg as one
        more path. borg takes the list in blocks, so a block's worth of slashes (one means the same) makes
        the path before the last one fill its block. Nobody waits for ever: when this process ends, however
        it ends, borg sees the end of the list; when borg ends, the write fails.

        (A named pipe as the last path would need borg's read_special, with which its chunker `fixed` fails:
        "Illegal seek".)
        """
        before, after = self.places["manifestBefore"], self.places["manifestAfter"]
        folder, name = os.path.split(before)
        opened = watch_opening(before)
        try:
            with os.fdopen(writer, "w", encoding="utf-8", errors="surrogateescape") as list_:
                for path in self.paths:
                    list_.write(f"{path}\0")
                list_.write(f"{folder}{'/' * LIST_BLOCK}{name}\0{'/' * LIST_BLOCK}")
                list_.flush()
                if self._wait_for(opened, done):
                    text = json.dumps(self.manifest_after(), indent=1) + "\n"
                    write_atomically(after, text, 0o600)
                    list_.write(f"{after}\0")
                elif not done.is_set():
                    self.problem("the manifest's second part is missing: borg never came to the first")
        except BrokenPipeError:
            pass  # borg has ended; its exit code says more
        except Exception as error:  # whatever it is: the operator must hear of it
            self.problem(f"the manifest's second part can't be made: {_reason(error)}")
        finally:
            os.close(opened)

    def _wait_for(self, opened: int, done: threading.Event) -> bool:
        """Wait until the watched file has been opened. False when borg has ended, or does nothing at all."""
        idle_since, work = time.monotonic(), -1
        while not done.is_set():
            if select.select([opened], [], [], 0.1)[0]:
                return True
            now = sum(bytes_moved(process) for process in descendants(self.child.pid))
            if now != work:
                idle_since, work = time.monotonic(), now
            elif time.monotonic() - idle_since > IDLE_LIMIT:
                return False
        return False

    def _watch(self, done: threading.Event) -> None:
        """Say once a minute how far borg is, by the file that it has open."""
        reached: dict[str, int] = {}
        total = 0
        for path in self.paths:
            reached[path] = total
            total += self.sizes.get(path, 0)
        while not done.wait(PROGRESS_INTERVAL):
            opened = (path for process in descendants(self.child.pid) for path in open_files(process))
            path = next((path for path in opened if path in reached), None)
            if path is not None and total:
                read = reached[path]
                say(f"{read / total:.0%} read: {megabytes(read)} of {megabytes(total)}, now {path}")

    def look_up(self) -> dict[str, Any] | None:
        """The archive by its exact name: what borg lists for it, or None when it isn't there."""
        self.child = self._borgmatic("repo-list", "--json")
        output, errors = self._communicate()
        try:
            archives = json.loads(output)[0]["archives"]
        except (ValueError, LookupError, TypeError):
            code, lines = read_borgmatic(self.child.returncode, errors)
            raise NoBackup(f"the new archive can't be looked up: {plan.explain(code, lines)}") from None
        return self.among(archives)

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
        code, lines, printed = self.store()
        self.borg_exit_code = code
        answer = plan.read_answer(code, lines)
        if not answer.may_have_archive:
            raise NoBackup(answer.problems[0])
        listed = next((of["archives"] for of in printed if "archives" in of), None)
        archive = self.look_up() if listed is None else self.among(listed)
        if archive is None:
            raise NoBackup(
                f"borg ended with {code}, but there is no archive {self.archive}: {plan.explain(code, lines)}"
            )
        self.problems += answer.problems
        for path in answer.vanished:
            path = path if path.startswith("/") else f"/{path}"
            if os.path.exists(path):
                self.problem(f"{path} is not in the archive: it was being replaced when borg came to it")
            else:
                self.notes.append(f"{path} went away during the backup")
        figures = next((of["archive"]["stats"] for of in printed if "archive" in of), {})
        stored = figures.get("nfiles")
        expected = len(self.sizes) + 2 - len(answer.vanished)
        if stored is not None and stored < expected:
            self.problem(f"the archive holds {stored} files instead of {expected}")
        return self.result(
            archive={"id": archive["id"], "time": archive.get("start") or archive.get("time")},
            figures=figures,
        )

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

    def result(
        self,
        archive: dict[str, Any] | None = None,
        figures: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        figures = figures or {}
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
            "exitCode": NONE if archive is None else INCOMPLETE if self.problems else COMPLETE,
            "problems": self.problems,
            "notes": self.notes,
        }


def _end_with_parent() -> None:
    # prctl(PR_SET_PDEATHSIG, SIGTERM): borg must not go on, unobserved, when this process was killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


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
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip().removeprefix("borg ")
    except (OSError, subprocess.SubprocessError) as error:
        raise NoBackup(f"borg doesn't work: {_reason(error)}") from error


def compose_version() -> str | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=True,
                timeout=DOCKER_TIMEOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            continue
    return None


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


def watch_opening(path: str) -> int:
    """A file descriptor that becomes readable when somebody opens the file (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(path), IN_OPEN) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return descriptor


def descendants(parent: int) -> list[int]:
    """Process numbers of the children of a process, and of theirs."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            children = [int(text) for text in file.read().split()]
    except OSError:
        return []
    return [process for child in children for process in (child, *descendants(child))]


def bytes_moved(process: int) -> int:
    """Bytes that a process has read and written so far; 0 when it has ended."""
    try:
        with open(f"/proc/{process}/io", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith(("rchar", "wchar")))
    except OSError:
        return 0


def open_files(process: int) -> list[str]:
    """Paths of the files that a process has open."""
    try:
        return [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        return []


def without_links(directories: list[str]) -> tuple[list[str], list[str]]:
    """Where the directories are that links lead to, and those links. An archive that holds something below a
    link would be written through it when it is extracted, and is refused."""
    links = [path for path in directories if os.path.islink(path)]
    return [os.path.realpath(path) if path in links else path for path in directories], links


def check_data_directory(directory: str) -> None:
    """Refuse what is no CouchDB data directory, such as the mount point of a disk that isn't mounted."""
    try:
        os.listdir(directory)
    except OSError as error:
        raise NoBackup(f"CouchDB's data directory {directory} can't be read: {error.strerror}") from error
    missing = [name for name in ("_dbs.couch", "shards") if not os.path.exists(os.path.join(directory, name))]
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
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    write_atomically(f"{backup.state}/last-backup.prom", plan.metrics(result, last_success))


def report(result: dict[str, Any]) -> None:
    for text in result["notes"][:MAX_LINES]:
        say(f"note: {text}")
    problems = result["problems"]
    for text in problems[:MAX_LINES]:
        complain(f"<3>problem: {text}" if os.environ.get("JOURNAL_STREAM") else f"problem: {text}")
    if len(problems) > MAX_LINES:
        print(f"and {len(problems) - MAX_LINES} more problems", file=sys.stderr)
    took = result["finishedAt"] - result["startedAt"]
    if result["archive"] is None:
        print(f"no backup was made ({took} s)", file=sys.stderr, flush=True)
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
    backup.archive = ""
    return backup.result()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="backup.py",
        description="Back up a CHT deployment with borgmatic: CouchDB's files, compose files, .env,"
        " certificate and key, credentials, and a manifest of it all.",
        epilog="Exit codes: 0 the backup is complete; 1 a backup was made but something is missing in it,"
        " which is named; 2 no backup was made, the reason is named. The result is kept in"
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
        print(error, file=sys.stderr)
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
        print(f"another backup of {backup.deployment} is running", file=sys.stderr)
        return NONE
    except OSError as error:
        print(f"{backup.state}: {error.strerror} (run as root)", file=sys.stderr)
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
    sys.exit(main())
