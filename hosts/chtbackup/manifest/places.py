"""Where a manifest says that a CHT is."""

from __future__ import annotations

import os
from typing import Any

VOLUMES = ("cht-credentials", "cht-ssl")
CERTIFICATES = {"certificate": "cert.pem", "key": "key.pem"}  # in nginx's /etc/nginx/private


def home_of(places: dict[str, Any]) -> str | None:
    """The CHT's home by its compose files and .env, which are in `compose/` and `upgrade-service/` there."""
    files = [*places["composeFiles"], *([places["environment"]] if places["environment"] else [])]
    return os.path.dirname(os.path.dirname(files[0])) if files else None


def targets_of(places: dict[str, Any]) -> list[str]:
    """The directories that are put in place as a whole: the CHT's home, and CouchDB's where not inside it."""
    home = home_of(places)
    outside = [path for path in data_of(places) if home is None or not path.startswith(f"{home}/")]
    outside = [path for path in outside if not any(path.startswith(f"{other}/") for other in outside)]
    return [*([home] if home else []), *outside]


def project_of(places: dict[str, Any]) -> str | None:
    """Name of the Compose project, by the volumes' names."""
    for name in places["volumes"]:
        for volume in VOLUMES:
            if name.endswith(f"_{volume}"):
                return name.removesuffix(f"_{volume}")
    return None


def roots_of(places: dict[str, Any]) -> list[str]:
    """Everything that belongs to a copy: directories with all that is in them, and single files."""
    singles = [places.get(name) for name in ("environment", "certificate", "key")]
    singles += [*places["composeFiles"], *places.get("outside", [])]
    return [*data_of(places), *places["volumes"].values(), *filter(None, singles)]


def data_of(places: dict[str, Any]) -> list[str]:
    """The directories that CouchDB's data is in: its own, and those that are mounted into them or that a link in them
    leads to."""
    return [*places["couchdb"], *places.get("elsewhere", {}).values()]


def as_couchdb_sees(path: str, places: dict[str, Any]) -> str:
    """The path by which CouchDB knows a file of its data; others are as they are."""
    within = [of for of in places.get("elsewhere", {}).items() if path.startswith(f"{of[1]}/")]
    virtual, real = max(within, key=lambda of: len(of[1]), default=("", ""))
    return virtual + path[len(real) :]


def real_path(path: str, before: dict[str, Any]) -> str:
    """What a path of an archive leads to by the links in it."""
    for _ in range(40):
        target = before["files"].get(path, {}).get("target")
        if target is None:
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return path
