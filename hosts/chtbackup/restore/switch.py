"""Put what was extracted in place, in steps that are noted down first: a run that is interrupted in between is finished
by the next."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.files import write_atomically
from chtbackup.base.text import moment, say
from chtbackup.docker import Docker
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.places import CERTIFICATES
from chtbackup.restore.choose import Archive
from chtbackup.restore.output import Output
from chtbackup.restore.targets import Place, make_parents


def switch(archive: Archive, places: list[Place], copy: Copy, journal: str, when: float, output: Output) -> None:
    """Put everything in its place by renames. What is there is moved aside, to a name with the time `when`."""
    suffix = f"before-restore-{moment(when).replace(':', '').replace('-', '')}"
    steps: list[dict[str, Any]] = []
    docker = Docker()
    for name in archive.places["volumes"]:
        steps.append(_prepare_volume(docker, name, archive, copy, suffix))
    # The home last: without its compose files nobody takes what is half in place for a CHT, and starts it.
    for place in reversed(places):
        made = place.base + place.target
        if place.fixed:
            if place.target in archive.before["files"] or place.target == archive.home:
                of = os.stat(made)
                os.chown(place.target, of.st_uid, of.st_gid)
                os.chmod(place.target, of.st_mode & 0o7777)
            for name in sorted(os.listdir(made)):
                steps.append({"from": f"{made}/{name}", "to": f"{place.target}/{name}", "aside": None})
        else:
            make_parents(place.target, archive.before.get("parents", {}))
            aside = f"{place.target}.{suffix}" if place.occupied() else None
            steps.append({"from": made, "to": place.target, "aside": aside})
    keep_outside(archive, copy, f"{os.path.dirname(journal)}/outside", output)
    os.sync()
    state = {"archive": archive.name, "steps": steps, "bases": [place.base for place in places]}
    write_atomically(journal, json.dumps(state, indent=1) + "\n")
    finish_switch(journal)


def keep_outside(archive: Archive, copy: Copy, folder: str, output: Output) -> None:
    """Keep the files that were outside the CHT's home in a folder: where they go is for the operator to decide, as an
    archive could name any place of the system."""
    for path in archive.places.get("outside", []):
        source, kept = copy.at(path), folder + path
        if not os.path.lexists(source):
            continue
        os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
        subprocess.run(
            ["cp", "--archive", "--no-target-directory", "--remove-destination", source, kept],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        output.remark(
            f"{path} is outside the CHT's home and isn't put in place; it is kept in {kept}. Where the CHT needs"
            f" it: mkdir --parents {shlex.quote(os.path.dirname(path))} &&"
            f" cp --archive {shlex.quote(kept)} {shlex.quote(path)}"
        )


def _prepare_volume(docker: Docker, name: str, archive: Archive, copy: Copy, suffix: str) -> dict[str, Any]:
    # With these labels `docker compose up` takes the volume for its own.
    labels = {"project": archive.project, "volume": name.removeprefix(f"{archive.project}_")}
    options = [word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}")]
    docker.run("volume", "create", *options, name)
    mountpoint = docker.mountpoint(name)
    source, made = copy.at(archive.places["volumes"][name]), f"{mountpoint}.restoring"
    shutil.rmtree(made, ignore_errors=True)
    subprocess.run(["cp", "--archive", source, made], check=True, capture_output=True, text=True)
    if name.endswith("_cht-ssl"):
        _complete_certificates(made, archive, copy)
    used = bool(os.listdir(mountpoint))
    return {"from": made, "to": mountpoint, "aside": f"{mountpoint}.{suffix}" if used else None}


def _complete_certificates(directory: str, archive: Archive, copy: Copy) -> None:
    """nginx may have got its certificate by links that lead out of the volume: then the files themselves take their
    place."""
    for what, name in CERTIFICATES.items():
        source = archive.places.get(what)
        path = f"{directory}/{name}"
        if source and not os.path.isfile(path):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
            shutil.copy2(copy.at(source), path)
            say(f"note: {name} is put into nginx's volume as a file")


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
    write_atomically(f"{folder}/restored.json", json.dumps({"archive": state["archive"]}) + "\n")
    os.remove(journal)
    os.sync()
