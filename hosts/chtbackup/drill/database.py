"""CouchDB, started on the copy in a network of its own."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import say
from chtbackup.docker import Docker
from chtbackup.drill.configuration import at, compose, own_text, resolve
from chtbackup.drill.container import compose_file, secrets_of, unlimited
from chtbackup.drill.findings import Findings
from chtbackup.drill.images import compare_images
from chtbackup.drill.network import require_isolation
from chtbackup.drill.scratch import own_containers
from chtbackup.drill.settings import project
from chtbackup.manifest.copy import Copy
from chtbackup.restore.choose import Archive
from chtbackup.restore.secrets import scrub, values_in

LOG_LINES = 12


class Database:
    def __init__(self, docker: Docker, settings: dict[str, Any], findings: Findings) -> None:
        self.docker = docker
        self.settings = settings
        self.findings = findings
        self.containers = 0
        """How many were started."""

    def start(self, archive: Archive, copy: Copy, folder: str, work: str) -> None:
        """Start the archive's CouchDB on its copy in a folder. Raises Refused."""
        findings, network = self.findings, self.settings["network"]
        engine = json.loads(self.docker.run("info", "--format", "{{json .}}"))
        config = resolve(archive, copy, folder, work)
        for service in config.get("services", {}).values():
            findings.secrets += secrets_of(service.get("environment") or {})
        made, notes = compose_file(config, archive.places, copy, self.settings, engine)
        for text in [*notes, *filter(None, [unlimited(engine)])]:
            findings.remark(text)
        images = sorted({of["image"] for of in made["services"].values()})
        findings.report["image"] = ", ".join(images)
        compare_images(self.docker, images, archive, self.settings, findings)
        for of in made["services"].values():
            for mount in of["volumes"]:
                if os.path.realpath(mount["source"]) != mount["source"]:
                    raise Refused(f"{copy.plain(mount['source'])} in the archive leads elsewhere; not mounted")
        say(f"starting {', '.join(made['services'])} in the network {network}")
        self.containers = len(made["services"])
        words = ["--project-name", project(self.settings), "--file", "-"]
        # The passwords go through the standard input: they are in no argument list and in no further file.
        done = compose([*words, "up", "--detach", "--no-build", "--pull", "never"], folder, json.dumps(made))
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            # Its image's name and directories are in .env, too, so this isn't left out of other texts.
            values = secrets_of(values_in(own_text(at(archive.places["environment"], archive, copy))))
            raise Refused(scrub(f"CouchDB's container doesn't start: {said}", [*findings.secrets, *values]))
        require_isolation(self._inspect(), network, str(engine.get("ServerVersion", "")))
        findings.right(f"network: CouchDB runs in {network}, with no route further than this machine")

    def _inspect(self) -> list[dict[str, Any]]:
        ids = own_containers(self.docker, self.settings["deployment"])
        return json.loads(self.docker.run("inspect", *ids)) if ids else []

    def dead(self) -> str | None:
        """Why CouchDB will never answer; None while it may."""
        return death(self._inspect(), self.settings["memoryMebibytes"], self.containers)

    def keep_log(self) -> None:
        """Put the last lines of CouchDB's log into the report."""
        log = self.findings.report["log"]
        for container in own_containers(self.docker, self.settings["deployment"]):
            done = subprocess.run(
                ["docker", "logs", "--tail", str(LOG_LINES), container], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=60,
            )  # fmt: skip
            for line in done.stdout.splitlines():
                log.append(scrub(line, self.findings.secrets)[:300])
                say(f"CouchDB's log: {log[-1]}")


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
