"""A client for a CouchDB that runs on restored data: what is asked beyond the counts that a backup asks for, too."""

from __future__ import annotations

import base64
import json
import urllib.parse
import urllib.request
from typing import Any

TIMEOUT = 60  # seconds


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


class Straight(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the server may be of somebody who means harm, and each request holds the password."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """One CouchDB. The password goes into a header, never onto a command line, and past every proxy."""

    def __init__(self, address: str, user: str, password: str, port: int = 5984) -> None:
        self.base = f"http://{address}:{port}"
        self.login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Straight)

    def open(self, path: str, **query: Any) -> Any:
        """The response to a GET, to be read and closed. Values of the query are JSON. Raises OSError (urllib's errors
        are)."""
        words = urllib.parse.urlencode({name: json.dumps(value) for name, value in query.items()})
        headers = {"Authorization": f"Basic {self.login}", "Accept-Encoding": "gzip"}
        request = urllib.request.Request(f"{self.base}{path}{'?' if words else ''}{words}", headers=headers)
        return self.opener.open(request, timeout=TIMEOUT)

    def json(self, path: str, **query: Any) -> Any:
        """Raises OSError, ValueError."""
        with self.open(path, **query) as response:
            return json.load(response)


def of_another_node(server: Server, names: list[str]) -> str | None:
    """Why a CouchDB opens none of its databases although they are listed: it runs under another name than the one that
    they belong to. None where it doesn't, or doesn't say. `names` are the databases that there should be."""
    try:
        running = server.json("/_membership")["all_nodes"]
        owners = sorted(server.json(f"/_node/_local/_dbs/{quoted(names[0])}")["by_node"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not owners or set(owners) & set(running):
        return None
    host = owners[0].partition("@")[2]
    return (
        f"CouchDB runs as {', '.join(running)}, but the data belongs to {', '.join(owners)}, so it opens none of the"
        f" databases. Give it that name: NODENAME={host} in its service's environment, where the image is CouchDB's"
        f" own, else `-name {owners[0]}` in /opt/couchdb/etc/vm.args"
    )
