"""The CHT's own configuration in its home: compose files and `.env`."""

from __future__ import annotations

import os

from chtbackup.backup import plan
from chtbackup.backup.run import Run
from chtbackup.compose import files as compose
from chtbackup.compose.environment import Reading
from chtbackup.docker import FOLDERS


def find_configuration(run: Run) -> tuple[list[str], str | None, Reading]:
    """The compose files, `.env`, and what it says. What is missing becomes a problem of the run."""
    files: list[str] = []
    for folder in FOLDERS:
        try:
            names = sorted(os.listdir(f"{run.home}/{folder}"))
        except OSError as error:
            run.problem(f"{run.home}/{folder} can't be read: {error.strerror}")
            continue
        found = [f"{run.home}/{folder}/{name}" for name in names if name.endswith((".yml", ".yaml"))]
        found = [path for path in found if _is_file(run, path)]
        if not found:
            run.problem(f"{run.home}/{folder} holds no compose file (*.yml)")
        files += found
    env_file = f"{run.home}/upgrade-service/.env"
    try:
        env, doubt = compose.read_environment(env_file)
    except OSError as error:
        run.problem(f"{env_file} can't be read: {error.strerror}")
        return files, None, Reading()
    if doubt:
        run.problem(f"{env_file}: {doubt}")
    for name in ("COUCHDB_PASSWORD", "COUCHDB_SECRET", "COUCHDB_UUID"):
        if not env.values.get(name):
            run.notes.append(f"{env_file} sets no {name}")
    for name, variable in env.unsure.items():
        if name.startswith(("COUCHDB_", "DB")):
            run.notes.append(
                f"{env_file}: {name} depends on the variable {variable} of whoever starts the CHT,"
                " which isn't known here"
            )
    return files, env_file, env


def _is_file(run: Run, path: str) -> bool:
    """Whether it is a file, or a link to one. What is left out is named."""
    try:
        if kind := plan.special(os.stat(path).st_mode):
            run.notes.append(f"{path} is {kind} and is left out")
        elif os.path.isfile(path):
            return True
    except OSError as error:
        target = f" (a link to {os.readlink(path)})" if os.path.islink(path) else ""
        run.problem(f"{path}{target} can't be read: {error.strerror}")
    return False
