"""The network in which a drill runs CouchDB: it leads no further than this machine."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.docker import Docker

ROUTELESS = 25  # Docker's first version that gives an internal network no default route


def require_network(docker: Docker, name: str) -> None:
    """Raises Refused where the database can't be started in a Docker network."""
    try:
        network = json.loads(docker.run("network", "inspect", name))[0]
    except subprocess.CalledProcessError:
        network = None
    if why := network_problem(network, name):
        raise Refused(why)


def network_problem(network: dict[str, Any] | None, name: str) -> str | None:
    """Why the database can't be started in a Docker network, described by `docker network inspect`."""
    make = (
        f"`docker network create --internal {name}` on this machine, as root, makes it; with the setting"
        " cht-backup:drill.manageDocker `pulumi up` does"
    )
    if network is None:
        return f"the Docker network {name} is missing: {make}"
    if not network.get("Internal"):
        return (
            f"the Docker network {name} isn't internal, so the restored CouchDB could reach others with the data"
            f" of real people: remove it (`docker network rm {name}`); {make} anew"
        )
    others = sorted(of.get("Name", "?") for of in (network.get("Containers") or {}).values())
    if others:
        return f"the Docker network {name} is for drills alone, but these use it: {', '.join(others)}"
    return None


def require_isolation(containers: list[dict[str, Any]], network: str, version: str) -> None:
    """See to it that containers, described by `docker inspect`, really have no way further than this machine.
    `version` is the Docker engine's. Raises Refused."""
    for of in containers:
        if not of["State"]["Pid"]:
            continue  # it has ended; `death` says why
        networks = list(of["NetworkSettings"]["Networks"])
        try:
            routes = [read(f"/proc/{of['State']['Pid']}/net/{name}") for name in ("route", "ipv6_route")]
        except FileNotFoundError:
            continue
        if networks != [network] or of["HostConfig"]["PortBindings"]:
            raise Refused(f"the restored CouchDB has a way out of this machine, beside the network {network}")
        if way_out(*routes):
            raise Refused(open_network(network, version))


def way_out(routes: str, routes6: str) -> bool:
    """Whether a container has a default route, by its /proc/PID/net/route and ipv6_route."""
    default = any(line.split()[1:2] == ["00000000"] for line in routes.splitlines())
    lines6 = (line.split() for line in routes6.splitlines())
    # The kernel's own entry that refuses everything is on `lo`.
    return default or any(of[0] == "0" * 32 and of[1] == "00" and of[-1] != "lo" for of in lines6 if len(of) > 2)


def open_network(name: str, version: str) -> str:
    """What to say where a container in this network has a default route. `version` is the Docker engine's."""
    said = f"the restored CouchDB has a route out of this machine in the network {name}"
    major = re.match(r"(\d+)\.", version)
    if major and int(major[1]) < ROUTELESS:
        return f"{said}: this machine's Docker, {version}, gives one to all networks. Drills take {ROUTELESS} or newer"
    return said


def read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        if path.endswith("ipv6_route"):  # a kernel without IPv6
            return ""
        raise
