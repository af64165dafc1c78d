"""CouchDB's image on this machine, and whether it is the production's."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from chtbackup.base.errors import Refused, reason_of
from chtbackup.base.text import say
from chtbackup.docker import Docker
from chtbackup.restore.choose import Archive
from chtbackup.restore.output import Output

PULL_TIMEOUT = 3600


def require_images(docker: Docker, archive: Archive, settings: dict[str, Any], output: Output) -> None:
    """See to it, before hours of fetching, that the image is here that the production ran. Raises Refused."""
    ran = _ran(archive)
    names = {settings["image"]} if settings["image"] else {of["image"] for of in ran}
    for name in sorted(names):
        have_image(docker, name, settings["pull"], output)
    if settings["image"] and not any(settings["image"] in (of["image"], *of["digests"]) for of in ran):
        there = ", ".join(sorted({of["image"] for of in ran})) or "unknown"
        output.remark(f"CouchDB's image is {settings['image']} by the settings; the production ran {there}")


def have_image(docker: Docker, name: str, pull: bool, output: Output) -> dict[str, Any]:
    """What `docker image inspect` says of an image. One that isn't here is fetched by its own name, where the
    settings allow to `pull` it. Raises Refused."""
    try:
        return json.loads(docker.run("image", "inspect", name))[0]
    except subprocess.CalledProcessError:
        if not pull:
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
        output.remark(f"the image {name} wasn't on this machine and was pulled")
        return json.loads(docker.run("image", "inspect", name))[0]
    except subprocess.SubprocessError as error:
        raise Refused(
            f"CouchDB's image {name} isn't on this machine and can't be pulled ({reason_of(error)}): load it"
            " (`docker load`), or name another one in the settings"
        ) from None


def compare_images(
    docker: Docker, names: list[str], archive: Archive, settings: dict[str, Any], output: Output
) -> None:
    """Say whether images on this machine are those that the production ran."""
    ran = _ran(archive)
    for name in names:
        here = have_image(docker, name, settings["pull"], output)
        same = {of["imageId"] for of in ran} | {digest for of in ran for digest in of["digests"]}
        if same & {here["Id"], *(here.get("RepoDigests") or [])}:
            output.right(f"image: {name} is the very one that the production ran")
        elif not settings["image"]:
            output.remark(f"the image {name} on this machine is another build than the one that the production ran")


def _ran(archive: Archive) -> list[dict[str, Any]]:
    return [of for of in archive.before["containers"] if of["service"].startswith("couchdb")]
