"""borg and its ssh as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Any

from chtbackup.base.errors import NoBackup, reason_of
from chtbackup.base.process import end_with_parent
from chtbackup.borg.json_log import Message


def environment(base_directory: str, ssh_config: str | None) -> dict[str, str]:
    """The environment for borg: its own files are in `base_directory`, and it reaches a server by `ssh_config`; None is
    for a repository on this machine. Nothing is in it that a login, /etc/environment or systemd says about another
    borg's repository, passphrase or answers."""
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "BORG_BASE_DIR": base_directory,
        # An exit code for each kind of warning and error. borg 1.2 doesn't know it, and gives 0, 1 and 2.
        "BORG_EXIT_CODES": "modern",
        # Nothing may ask: a repository that changed its identity, or lost its encryption, is refused.
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
        **(
            {"BORG_RSH": f"ssh -F {ssh_config}", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "no"}
            if ssh_config is not None
            # A copy, which has been elsewhere.
            else {"BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        ),
    }


def passphrase_pipe(passphrase: str) -> int:
    """A descriptor from which borg can read a passphrase once (`BORG_PASSPHRASE_FD`): so it is in no argument list, no
    environment and no file. The caller closes it."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as pipe:
        pipe.write(passphrase)  # less than a pipe holds
    return reader


def start(command: list[str], own: dict[str, str], passphrase: str, **options: Any) -> subprocess.Popen[str]:
    """Start borg in a session of its own, which ends with this process. `own` is its environment."""
    reader = passphrase_pipe(passphrase)
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[reader],
            env={**own, "BORG_PASSPHRASE_FD": str(reader)}, start_new_session=True, preexec_fn=end_with_parent,
            **options,
        )  # fmt: skip
    finally:
        os.close(reader)


def borg_version() -> str:
    """Raises NoBackup."""
    try:
        done = subprocess.run(
            ["borg", "--version"], capture_output=True, text=True, check=True, timeout=60, env=_own_environment()
        )
        return done.stdout.strip().removeprefix("borg ")
    except (OSError, subprocess.SubprocessError) as error:
        raise NoBackup(f"borg doesn't work: {reason_of(error)}") from error


def ask_ssh(configuration: str) -> list[Message]:
    """Why ssh can't reach the backup server, in its own words; none where it can."""
    command = ["ssh", "-F", configuration, "offsite"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", timeout=60, env=_own_environment(),
        )  # fmt: skip
        # ssh's own failures; any other code is that of what runs on the server.
        if done.returncode == 255:
            return [Message(line.strip()) for line in done.stderr.splitlines() if line.strip()]
    return []


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BORG_")}
