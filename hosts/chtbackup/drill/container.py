"""The compose file that starts an archive's CouchDB on the copy, made from what Compose says of the archive's own."""

from __future__ import annotations

from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.couchdb.containers import DATA_IN_CONTAINER
from chtbackup.couchdb.order import below
from chtbackup.drill.scratch import LABEL
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.places import VOLUMES

# What a database needs to take over its files and to drop its privileges; nothing else is left to it.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]
TAKEN = ("command", "entrypoint", "environment", "hostname", "image", "ulimits", "user", "working_dir")
"""Of a service in the archive's compose files. No ports, no devices, no privileges, no other files."""


def compose_file(
    config: dict[str, Any],
    places: dict[str, Any],
    copy: Copy,
    settings: dict[str, Any],
    engine: dict[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """A compose file that starts the archive's CouchDB on the copy, and notes about what is different.

    Whoever made the archive may mean harm, so only what is named in TAKEN comes from its compose files, and only
    what is in the copy is mounted. `engine` says which limits the Docker engine can set (`docker info`). Raises
    Refused when the compose files and the archive don't go together.
    """
    services = data_services(config)
    if not services:
        raise Refused("the archive's compose files have no service couchdb that mounts its data")
    names = {key: of.get("name", key) for key, of in (config.get("volumes") or {}).items()}
    made, notes = {}, []
    for name, of in services.items():
        volumes = []
        for mount in of.get("volumes") or []:
            source, target = str(mount.get("source", "")), mount["target"]
            if mount.get("type") == "volume":
                place = places["volumes"].get(names.get(source, source))
            elif source in places["couchdb"] or _holds(source, places):
                place = source
            else:  # a relative path depends on how Compose was called
                alone = target == DATA_IN_CONTAINER and len(services) == len(places["couchdb"]) == 1
                place = places["couchdb"][0] if alone else None
            if place is not None:
                options = {"create_host_path": False}
                volumes.append({"type": "bind", "source": copy.at(place), "target": target, "bind": options})
            elif target == DATA_IN_CONTAINER:
                raise Refused(f"the service {name} has its data in {source}, which is not in the archive")
            elif mount.get("type") == "volume" and any(source.endswith(volume) for volume in VOLUMES):
                raise Refused(f"the service {name} uses the volume {names.get(source, source)}, not in the archive")
            else:
                notes.append(f"{name}: {source or 'what is mounted'} at {target} isn't in the archive; left out")
        aliases = {alias for net in (of.get("networks") or {}).values() for alias in (net or {}).get("aliases") or []}
        service = {key: of[key] for key in TAKEN if of.get(key) is not None}
        made[name] = {
            **service,
            **({"image": settings["image"]} if settings.get("image") else {}),
            **limits(settings, engine, len(services)),
            "volumes": volumes,
            "networks": {"drill": {"aliases": sorted({name, *aliases})}},
            "labels": {LABEL: settings["deployment"]},
            "restart": "no",
            "cap_drop": ["ALL"],
            "cap_add": CAPABILITIES,
            "security_opt": ["no-new-privileges:true"],
            "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
        }
    return {"services": made, "networks": {"drill": {"external": True, "name": settings["network"]}}}, notes


def data_services(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services of CouchDB: one, or one for each node of a cluster. `config` is what Compose says of the
    archive's files. (CHT 5's `couchdb-nouveau` holds an index that CouchDB can do without.)"""
    return {
        name: of
        for name, of in config.get("services", {}).items()
        if name.startswith("couchdb")
        and any(mount.get("target") == DATA_IN_CONTAINER for mount in of.get("volumes") or [])
    }


def _holds(source: str, places: dict[str, Any]) -> bool:
    """Whether a directory is, or has in it, what is mounted into CouchDB's data or what a link in it leads to."""
    return source.strip("/") != "" and any(below(of, source) for of in places.get("elsewhere", {}).values())


def limits(settings: dict[str, Any], engine: dict[str, Any], containers: int) -> dict[str, Any]:
    """Limits of each of some containers. One that the engine can't set would be refused by it."""
    memory = f"{settings['memoryMebibytes'] // containers}m"
    return {
        **({"mem_limit": memory} if engine.get("MemoryLimit") else {}),
        **({"memswap_limit": memory} if engine.get("MemoryLimit") and engine.get("SwapLimit") else {}),
        **({"cpus": round(settings["cpus"] / containers, 2)} if engine.get("CpuCfsQuota") else {}),
        **({"pids_limit": 2048} if engine.get("PidsLimit") else {}),
    }


def unlimited(engine: dict[str, Any]) -> str | None:
    """A note about limits that the engine can't set."""
    wanted = {"memory": "MemoryLimit", "CPU": "CpuCfsQuota"}
    missing = [what for what, flag in wanted.items() if not engine.get(flag)]
    return f"this machine's Docker engine can't limit {' and '.join(missing)}" if missing else None


def secrets_of(environment: dict[str, Any]) -> list[str]:
    """What of an environment must not be shown: every value but the shortest, whatever its name. Compose writes
    each dollar sign twice."""
    values = [str(value).replace("$$", "$") for value in environment.values() if value is not None]
    return [value for value in values if len(value) >= 6]
