"""What Compose says of an archive's own compose files and .env, read so that they can't reach beyond the copy."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.files import write_atomically
from chtbackup.compose import anew
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.places import real_path
from chtbackup.restore.choose import Archive

COMPOSE_TIMEOUT = 300


def resolve(archive: Archive, copy: Copy, folder: str, work: str) -> dict[str, Any]:
    """Run `docker compose config` in a folder, with files written anew in the directory `work`. Raises Refused."""
    places, home, name = archive.places, archive.home, archive.project
    files = [path for path in places["composeFiles"] if path.startswith(f"{home}/compose/")]
    if not files or name is None or not places["environment"]:
        raise Refused("CouchDB can't be started: the archive lacks its compose files, .env or volumes")
    # Compose, as root, reads whatever these name, and quotes it in its errors.
    written, foreign = [], []
    os.makedirs(work, mode=0o700, exist_ok=True)
    for path in [places["environment"], *files]:
        try:
            text = own_text(at(path, archive, copy))
            if path in files:
                text, foreign = anew.anew(text, lambda name: _archived(name, f"{home}/compose", archive, copy))
                written.append(f"{work}/compose-{len(written)}.yml")
                write_atomically(written[-1], text, 0o600)
        except ValueError as error:
            raise Refused(f"CouchDB can't be started: {path} in the archive: {error}") from None
        if foreign:
            raise Refused(
                f"CouchDB can't be started: {path} in the archive reads other files ({', '.join(foreign)}), which"
                " a drill doesn't allow, as they could be anybody's"
            )
    words = ["--env-file", at(places["environment"], archive, copy)]
    words += ["--project-directory", copy.at(f"{home}/compose")]
    words += [word for path in written for word in ("--file", path)]
    # The production's name gives the volumes their names. Nothing but text is made here.
    done = compose(["--project-name", name, *words, "config", "--format", "json"], folder)
    if done.returncode != 0:
        raise Refused(
            "the archive's compose files can't be read with this machine's Docker Compose (2 is needed):"
            f" `docker compose config` ends with exit code {done.returncode}; its words aren't shown, they may hold"
            " passwords"
        )
    return json.loads(done.stdout)


def compose(words: list[str], folder: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Compose in a folder, with a text on its standard input."""
    return subprocess.run(
        ["docker", "compose", *words],
        input=text, capture_output=True, text=True, cwd=folder, timeout=COMPOSE_TIMEOUT,
        # It prefers the environment to .env, so there is nothing in it.
        env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": "/root", "LANG": "C.UTF-8"},
    )  # fmt: skip


def at(path: str, archive: Archive, copy: Copy) -> str:
    """Where something is in the copy, by the links that the archive itself has."""
    return copy.at(real_path(path, archive.before))


def _archived(name: str, folder: str, archive: Archive, copy: Copy) -> str | None:
    """Where a file that a compose file names is in the copy; None where the archive has no such file."""
    path = os.path.normpath(os.path.join(folder, name))
    if archive.before["files"].get(path, {}).get("kind") not in ("file", "link") or "$" in name:
        return None
    try:
        own_text(at(path, archive, copy))
    except ValueError:
        return None
    return at(path, archive, copy)


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
