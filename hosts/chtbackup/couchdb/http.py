"""A client for a CouchDB that runs on restored data: what is asked beyond the counts that a backup asks for, too."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from chtbackup.base.errors import reason_of
from chtbackup.manifest import write as manifest

HTTP_TIMEOUT = 60
ASK_AGAIN = 2  # seconds, after which a database that was just being made or deleted is asked for once more
COUNT_LIMIT = 1800  # seconds that CouchDB gets to count all its databases

TIMEOUT = 60  # seconds

_reason = reason_of  # by its name of before, which backup and borg use


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


def ask_couchdb(address: str, user: str, password: str) -> manifest.Counts:
    """Document counts and update sequences of every database, from the running CouchDB. Raises OSError
    (urllib's errors are) or ValueError. The password goes into a header, never onto a command line."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    # A proxy of the environment must never see the password.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path: str) -> Any:
        request = urllib.request.Request(f"http://{address}:5984{path}", headers={"Authorization": f"Basic {login}"})
        with opener.open(request, timeout=HTTP_TIMEOUT) as response:
            return json.load(response)

    deadline = time.monotonic() + COUNT_LIMIT
    unsure: list[str] = []  # names for which it had no answer

    def count(name: str, first: bool = True) -> tuple[str, dict[str, int]] | None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it didn't count all its databases within {COUNT_LIMIT} s")
        try:
            of = get("/" + urllib.parse.quote(name, safe=""))
        except urllib.error.HTTPError as error:
            if error.code == 404:  # deleted since the list was made
                return None
            if error.code < 500 or not first:
                raise
            unsure.append(name)  # as for one that it is just making or deleting
            return None
        return name, {
            "documents": int(of["doc_count"]),
            "deleted": int(of["doc_del_count"]),
            "updateSequence": int(str(of["update_seq"]).split("-")[0]),
        }

    # CHT keeps a database for every user, so there may be thousands.
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = [*threads.map(count, get("/_all_dbs"))]
    if unsure:
        time.sleep(ASK_AGAIN)
        found += [count(name, first=False) for name in sorted({*unsure} & {*get("/_all_dbs")})]
    return dict(entry for entry in found if entry is not None)
