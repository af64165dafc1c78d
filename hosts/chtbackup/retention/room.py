"""Room on the server's disk for retention itself, which writes before it frees: what borg asks for, and how it does
with less.

borg's `compact` wants room for a segment of the largest size, 500 MB by default, and for its index four times over
(`check_free_space` in its repository.py). On a disk that is full, retention makes that size small for its run, and
first frees what needs no copy.
"""

from __future__ import annotations

import configparser
import os
import shutil

from chtbackup.repository import segment_log
from chtbackup.repository.files import read
from chtbackup.repository.seals import Repository
from chtbackup.retention.borg import Borg, Refused

SMALL = 5_000_000  # bytes of a segment while there is little room
OBJECT = 20 << 20  # the largest object of borg's
SOME = 2 << 20  # locks, small files
# Percent of a segment that must be free until it goes, as long as there is little room: next to nothing is copied.
FREE_ALREADY = 95
CHANGED = ("max_segment_size", "additional_free_space")


def settings_of(text: str) -> dict[str, str]:
    """The section `repository` of borg's `config`; empty where it can't be read."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
        return dict(parser["repository"])
    except (configparser.Error, KeyError):
        return {}


def needed(path: str, settings: dict[str, str]) -> int:
    """Bytes that must be free for borg to delete and to compact with these settings. Raises OSError."""
    sizes = [os.path.getsize(os.path.join(path, name)) for name in os.listdir(path) if name.startswith("index.")]
    hints = 20 * len(segment_log.segments(path))
    more = settings.get("additional_free_space", "0")
    # borg takes 2G there, too: whoever has such a reserve gets it back after the run.
    aside = int(more) if more.isdigit() else 1 << 62
    return 4 * max(sizes, default=0) + hints + aside + int(settings.get("max_segment_size", SMALL)) + OBJECT + SOME


def is_scarce(repository: Repository) -> bool:
    """Whether less is free than borg wants by the repository's own settings."""
    return shutil.disk_usage(repository.path).free < needed(repository.path, _kept(repository))


def make(borg: Borg, repository: Repository) -> None:
    """Where little is free, have borg do with less, until `give_back`. Raises Refused where even that isn't there."""
    if not is_scarce(repository):
        return
    check(repository)
    for name, value in zip(CHANGED, (str(SMALL), "0")):
        borg.run("config", repository.path, name, value)


def check(repository: Repository) -> None:
    """Raises Refused where retention can't begin for want of room."""
    free, least = shutil.disk_usage(repository.path).free, needed(repository.path, {"max_segment_size": str(SMALL)})
    if free < least:
        raise Refused(
            f"the disk is full: {free / 1e6:.0f} MB are free, and {least / 1e6:.0f} MB are needed to remove anything."
            " Delete the reserve: docs/retention.md, “When the disk is full”"
        )


def give_back(borg: Borg, repository: Repository) -> None:
    """What `make` has changed is again as root has kept it, also after a run that was killed."""
    now, kept = settings_of(read(f"{repository.path}/config")), _kept(repository)
    for name in CHANGED:
        if name in kept and now.get(name) != kept[name]:
            borg.run("config", repository.path, name, kept[name])


def _kept(repository: Repository) -> dict[str, str]:
    """The settings before a run: seals.py keeps a copy of `config`, and none is made while retention is at work."""
    return settings_of(read(f"{repository.state}/config"))
