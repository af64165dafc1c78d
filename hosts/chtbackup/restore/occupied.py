"""What is on a machine already where a restore would put a CHT."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import say
from chtbackup.docker import Docker
from chtbackup.restore.choose import Archive
from chtbackup.restore.needs import would_install_docker
from chtbackup.restore.targets import Place


def refuse_data(archive: Archive, places: list[Place], request: dict[str, Any]) -> None:
    """Refuse to go where something is already. Raises Refused; changes nothing."""
    docker = Docker()
    volumes, project = archive.places["volumes"], archive.project
    if docker.stopped and would_install_docker(request):
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
    occupied = [place.target for place in places if place.occupied()]
    occupied += [f"the volume {name}" for name in volumes if _volume_used(docker, name)]
    if occupied and not request.get("replace"):
        raise Refused(
            f"there is data already: {', '.join(occupied)}. Nothing was changed. With --replace it is"
            " moved aside, not deleted"
        )
    _refuse_mounts(archive, places)


def _refuse_mounts(archive: Archive, places: list[Place]) -> None:
    for place in places:
        if place.fixed and place.occupied():
            why = "is a file system of its own" if place.mounted else f"holds a file system ({place.mounts[0]})"
            raise Refused(
                f"{place.target} {why} and isn't empty, so it can't be moved aside: move what is in it yourself,"
                " or unmount"
            )
        for data in archive.places["couchdb"]:
            if place.mounted and place.target.startswith(f"{data}/"):
                raise Refused(
                    f"{place.target} is a file system of its own inside CouchDB's directory {data}: unmount it"
                )


def _volume_used(docker: Docker, name: str) -> bool:
    try:
        return bool(os.listdir(docker.mountpoint(name)))
    except (OSError, subprocess.SubprocessError):
        return False
