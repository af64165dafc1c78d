"""What only Docker holds: volumes, and the certificate and key in nginx's container."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import Any

from chtbackup.backup.run import Run
from chtbackup.base.errors import reason_of
from chtbackup.base.files import write_atomically
from chtbackup.compose import files as compose
from chtbackup.docker import Docker
from chtbackup.manifest.places import CERTIFICATES, VOLUMES


def find_volumes(run: Run, docker: Docker) -> dict[str, str]:
    """Mountpoints by volume name. They are remembered, for a run while Docker is stopped."""
    memory = f"{run.state}/volumes.json"
    try:
        with open(memory, encoding="utf-8") as file:
            known: dict[str, str] = json.load(file)
    except (OSError, ValueError):
        known = {}
    found = {}
    for volume in (f"{run.settings['composeProject']}_{name}" for name in VOLUMES):
        mountpoint = known.get(volume, f"/var/lib/docker/volumes/{volume}/_data")
        if not docker.stopped:
            try:
                mountpoint = docker.mountpoint(volume)
            except subprocess.CalledProcessError as error:
                run.problem(f"the volume {volume} is missing: {reason_of(error)}")
                continue
            except (OSError, subprocess.SubprocessError) as error:
                run.problem(f"Docker doesn't say where the volume {volume} is: {reason_of(error)}")
        if os.path.isdir(mountpoint):
            found[volume] = mountpoint
        else:
            run.problem(f"the volume {volume} is missing: there is no {mountpoint}")
    if not docker.stopped and found != known and not run.dry_run:
        write_atomically(memory, json.dumps(found, indent=2) + "\n")
    return found


def copy_certificates(run: Run, docker: Docker, containers: list[dict[str, Any]]) -> dict[str, str]:
    """Copy nginx's certificate and key to the scratch directory; a dry run only tells where they would be."""
    nginx = sorted((of for of in containers if of["service"] == "nginx"), key=lambda of: not of["running"])
    if not nginx:
        run.problem("the Compose project has no nginx container, so the certificate and key are missing")
        return {}
    copied = {}
    for what, name in CERTIFICATES.items():
        source, target = f"/etc/nginx/private/{name}", f"{run.scratch}/{name}"
        copied[what] = target
        if run.dry_run:
            continue
        try:
            docker.copy_out(nginx[0]["id"], source, target)
            if not stat.S_ISREG(os.lstat(target).st_mode):
                raise OSError(0, "it is no file")
            os.chmod(target, 0o600 if what == "key" else 0o644)
            if "-----BEGIN" not in compose.read_text(target):
                run.problem(f"nginx's {source} is no PEM file")
        except (OSError, subprocess.SubprocessError) as error:
            del copied[what]
            run.problem(f"nginx's {what} {source} can't be copied: {reason_of(error)}")
    return copied
