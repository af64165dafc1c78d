"""What a program ends with: why it can't go on, and its exit codes."""

from __future__ import annotations

import subprocess

RIGHT, WRONG, REFUSED = 0, 1, 2


class Stopped(BaseException):
    """The run was told to end by a signal."""


class Refused(Exception):
    """The restore isn't begun or can't go on. The text is for the operator."""


class NoBackup(Exception):
    """No archive can be made. The text is one line for the operator."""


def reason_of(error: BaseException) -> str:
    """One line of what a program or the system said."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"exit code {error.returncode}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
