"""CouchDB's containers: which they are, what they have mounted, who may log in."""

from __future__ import annotations

from typing import Any

# Where CHT's couchdb images keep their data (cht-core, `couchdb/Dockerfile` and compose templates).
DATA_IN_CONTAINER = "/opt/couchdb/data"


def current(containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of some containers that run; all of them when none does."""
    return [of for of in containers if of["running"]] or containers


def data_mounts(couchdb: list[dict[str, Any]]) -> list[str]:
    """What is mounted at CouchDB's data directory."""
    return sorted(
        {
            mount["source"]
            for of in current(couchdb)
            for mount in of["mounts"]
            if mount["destination"] == DATA_IN_CONTAINER and mount["source"]
        }
    )


def logins(couchdb: list[dict[str, Any]], env: dict[str, str]) -> list[tuple[str, str]]:
    """Names and passwords of CouchDB's administrator: those that its containers were started with, then those
    of `.env`, which may have been changed since."""
    found = [of["environment"] for of in current(couchdb) if of["environment"].get("COUCHDB_PASSWORD")]
    return list(
        dict.fromkeys((of.get("COUCHDB_USER") or "medic", of.get("COUCHDB_PASSWORD", "")) for of in [*found, env])
    )
