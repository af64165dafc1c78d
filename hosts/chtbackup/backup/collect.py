"""Find everything that belongs to a backup."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from chtbackup.backup import plan
from chtbackup.backup.configuration import find_configuration
from chtbackup.backup.contents import Contents
from chtbackup.backup.counts import Counter
from chtbackup.backup.data import Data
from chtbackup.backup.named import Named
from chtbackup.backup.run import Run
from chtbackup.backup.volumes import copy_certificates, find_volumes
from chtbackup.base import pack
from chtbackup.base.errors import reason_of
from chtbackup.borg.start import borg_version
from chtbackup.compose import files as compose
from chtbackup.couchdb.containers import logins
from chtbackup.docker import ask_docker


class Collection:
    """What was found, and where."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.contents = Contents(run)
        self.data = Data(run, self.contents)
        self.counter = Counter(run, self.data)
        self.places: dict[str, Any] = {}
        self.versions: dict[str, str | None] = {}
        self.containers: list[dict[str, Any]] = []

    def collect(self) -> None:
        """Find everything; what Docker holds is copied to the scratch directory.

        What is missing becomes a problem, so that the rest is saved all the same. Only CouchDB's data must
        be there: an archive without it would be taken for the newest good one. Raises NoBackup for that.
        """
        run, contents, data = self.run, self.contents, self.data
        compose_files, env_file, env = find_configuration(run)
        # Both take a while to start, and nothing waits for them until the end.
        threads = concurrent.futures.ThreadPoolExecutor(2)
        borg_is, compose_is = threads.submit(borg_version), threads.submit(compose.version)
        threads.shutdown(wait=False)
        docker, containers, near = ask_docker(run.settings["composeProject"], run.home)
        if docker.stopped:
            self.counter.why_not_asked = "Docker doesn't answer"
            run.problem(f"Docker doesn't answer, so the certificate and versions are missing: {docker.stopped}")
        elif not containers:
            run.problem(f"no container belongs to the Compose project {run.settings['composeProject']}")
        data.containers = [of for of in containers if of["service"].startswith("couchdb")]
        links = data.find(env)
        trees = data.walk()
        data.check()
        data.remember()
        data.list_files(trees)
        volumes = find_volumes(run, docker)
        certificates = {} if docker.stopped else copy_certificates(run, docker, containers)

        contents.add_links(links)
        named = Named(run, contents, data, env)
        for path in [*compose_files, *([env_file] if env_file else [])]:
            named.add_file(path)
        for path in [] if run.dry_run else certificates.values():  # a dry run copies nothing
            contents.add(path)
        if not run.dry_run:
            add_recover_program(run, contents)
        for volume, mountpoint in list(volumes.items()):
            try:
                named.add_tree(mountpoint)
            except OSError as error:
                del volumes[volume]
                run.problem(f"the volume {volume} is missing: {mountpoint} can't be read: {error.strerror}")
        named.add_named(compose_files, env_file, [*containers, *near])
        contents.drop_links_above()

        self.places = {
            "couchdb": data.directories,
            "elsewhere": data.elsewhere,
            "outside": named.outside,
            "composeFiles": compose_files,
            "environment": env_file,
            "volumes": volumes,
            "certificate": certificates.get("certificate"),
            "key": certificates.get("key"),
            "manifestBefore": f"{run.scratch}/manifest-before.json",
            "manifestAfter": f"{run.scratch}/manifest-after.json",
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
            "docker": docker.version,
            "compose": None if docker.stopped else compose_is.result(),
        }
        self.counter.logins = logins(data.containers, env.values)
        self._find_couchdb(bool(docker.stopped), bool(containers))

    def _find_couchdb(self, docker_stopped: bool, containers: bool) -> None:
        """Where CouchDB can be asked for its counts."""
        couchdb = self.data.containers
        running = [of for of in couchdb if of["running"]]
        self.counter.addresses = [address for of in running for address in of["addresses"]]
        if running and not self.counter.addresses:
            self.run.problem(
                "CouchDB's container has no address in a Docker network, so it can't be asked for its counts"
            )
        elif not docker_stopped and containers and not couchdb:
            project = self.run.settings["composeProject"]
            self.run.problem(f"the Compose project {project} has no CouchDB container; counts are from the files")
        elif couchdb and not running:
            self.run.notes.append("CouchDB is stopped; counts are from the files")


def add_recover_program(run: Run, contents: Contents) -> None:
    """Put these programs into the archive as one file, which a recovery kit on paper needs: the archive brings what
    restores it."""
    path = f"{run.scratch}/recover.pyz"
    try:
        with open(path, "wb") as file:
            file.write(pack.program().content)
    except OSError as error:
        run.notes.append(f"the archive holds no program for a recovery: {reason_of(error)}")
    else:
        contents.add(path)
