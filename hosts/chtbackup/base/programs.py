"""The programs by their names, and how to start one of them from another."""

from __future__ import annotations

import importlib
import os
import sys

from chtbackup.base.text import exit_with

PROGRAMS = {
    "alert": "chtbackup.alert.program",
    "audit": "chtbackup.repository.audit",
    "backup": "chtbackup.backup.program",
    "borg": "chtbackup.borg.program",
    "bucket": "chtbackup.bucket.program",
    "bucket-retention": "chtbackup.bucket.retention",
    "confined": "chtbackup.restore.confined",
    "couchdb": "chtbackup.couchdb.scan",
    "drill": "chtbackup.drill.program",
    "fetch": "chtbackup.bucket.fetch",
    "forget": "chtbackup.drill.forget",
    "guard": "chtbackup.repository.guard",
    "page": "chtbackup.watch.page",
    "part": "chtbackup.restore.part",
    "ping": "chtbackup.watch.ping",
    "recover": "chtbackup.recover.program",
    "restore": "chtbackup.restore.program",
    "retention": "chtbackup.retention.program",
    "retention-scheduled": "chtbackup.retention.scheduled",
    "seal": "chtbackup.repository.seal",
    "snapshot": "chtbackup.bucket.snapshot",
    "watch": "chtbackup.watch.program",
}

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Where the package is: a directory, or one inside a zip archive (pack.py), which Python starts like any other."""


def command(program: str, python: str = sys.executable) -> list[str]:
    """How to start one of the programs, without what the environment may add to Python's path."""
    return [python, "-I", "-B", PACKAGE, program]


def run(words: list[str]) -> None:
    """Run the program that the first word names. Never returns."""
    if not words or words[0] not in PROGRAMS:
        asked = words[:1] in (["-h"], ["--help"])
        print(f"usage: chtbackup PROGRAM ...; of {', '.join(PROGRAMS)}", file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    sys.argv = [f"chtbackup {words[0]}", *words[1:]]
    exit_with(importlib.import_module(PROGRAMS[words[0]]).main)
