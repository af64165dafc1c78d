"""Start a restored CHT, and see whether it answers."""

from __future__ import annotations

import os
import subprocess
import time

from chtbackup.base.text import duration, say
from chtbackup.compose import files as compose
from chtbackup.manifest import write as manifest
from chtbackup.restore.choose import Archive
from chtbackup.restore.output import Output
from chtbackup.restore.running import ask_database, ask_nginx, never_starts
from chtbackup.restore.secrets import scrub, secrets_in
from chtbackup.restore.targets import works


def start(archive: Archive, files: manifest.Counts, outside: str, output: Output) -> list[str]:
    """Start the containers and ask them. `files` is what CouchDB's files hold; `outside` is where files are kept that
    the operator puts in place. Returns what is wrong, one line each."""
    places, project, home = archive.places, archive.project, archive.home
    began = time.monotonic()
    compose_files = [path for path in places["composeFiles"] if path.startswith(f"{home}/compose/")]
    if not compose_files or project is None or not places["environment"]:
        return ["the CHT can't be started: the archive lacks its compose files, .env or volumes"]
    for path in places.get("outside", []):
        if not os.path.lexists(path):
            return [f"the CHT can't be started without {path}: it is kept in {outside}{path}"]
    command = ["docker", "compose"] if works("docker", "compose", "version") else ["docker-compose"]
    words = [*command, "--project-name", project, "--env-file", places["environment"]]
    words += [word for path in compose_files for word in ("--file", path)]
    say(f"starting: {' '.join(words)} up --detach")
    done = subprocess.run([*words, "up", "--detach"], cwd=home, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        text = compose.read_text(places["environment"])
        return [f"the containers don't start: {scrub(said[0], secrets_in(text))}"]
    answer = ask_database(project, archive, files, places["environment"], lambda: never_starts(project), output)
    problems = answer.problems + ask_nginx(project, output)
    if not problems:
        say(f"started and answering after {duration(time.monotonic() - began)}")
    return problems
