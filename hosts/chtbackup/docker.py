"""The machine's Docker engine, asked by its command line tool."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from chtbackup.base.errors import reason_of

FOLDERS = ("compose", "upgrade-service")  # of compose files, in the home

DOCKER_TIMEOUT = 120  # seconds; a Docker engine that doesn't answer in this time counts as stopped
DOCKER_TRIES, DOCKER_PAUSE = 3, 2  # a container may go between being listed and being looked at


class Docker:
    """The machine's Docker engine, asked with its command line tool. Containers are found by their labels,
    because their names depend on the version of Compose."""

    def __init__(self) -> None:
        self.stopped: str | None = None
        """Why the engine can't be asked, in one line; None while it answers."""
        self.missing = False
        """Whether it isn't installed at all."""
        try:
            self.version: str | None = self.run("version", "--format", "{{.Server.Version}}").strip()
        except (OSError, subprocess.SubprocessError) as error:
            self.version = None
            self.missing = isinstance(error, FileNotFoundError)
            self.stopped = reason_of(error)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=True,
            timeout=DOCKER_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def containers(self, project: str) -> list[dict[str, Any]]:
        """The project's containers. Their environments hold passwords."""
        return self.labelled(f"com.docker.compose.project={project}")

    def labelled(self, label: str) -> list[dict[str, Any]]:
        ids = self.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()
        found = []
        for of in json.loads(self.run("inspect", *ids)) if ids else []:
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
                    "environment": dict(entry.split("=", 1) for entry in of["Config"].get("Env") or [] if "=" in entry),
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
                digests[image_id] = json.loads(self.run("image", "inspect", image_id))[0].get("RepoDigests") or []
            # The image was removed while its container stayed, or Docker doesn't answer any more.
            except (subprocess.SubprocessError, ValueError, LookupError):
                digests[image_id] = []
        return digests

    def copy_out(self, container: str, path: str, target: str) -> None:
        # --follow-link: certbot's files are links into its own tree.
        self.run("cp", "--follow-link", f"{container}:{path}", target)

    def mountpoint(self, volume: str) -> str:
        return self.run("volume", "inspect", "--format", "{{.Mountpoint}}", volume).strip()


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
            docker.stopped = reason_of(error)
        if docker.missing:
            break
    return docker, [], []
