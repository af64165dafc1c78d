"""The containers of a restored CHT: where they are, what became of them, whether CouchDB and nginx answer as they
should."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import re
import ssl
import subprocess
import time
import urllib.error
from collections.abc import Callable
from typing import Any

from chtbackup.compose import files as compose
from chtbackup.couchdb import http as couch_server
from chtbackup.couchdb.containers import logins
from chtbackup.couchdb.http import ask_couchdb
from chtbackup.docker import Docker
from chtbackup.manifest import write as manifest
from chtbackup.restore.archives import answer_problems
from chtbackup.restore.choose import Archive
from chtbackup.restore.output import Output
from chtbackup.restore.secrets import became, environment_of, scrub, values_in

MOST_STARTS = 5  # of a container by Docker, after which it isn't waited for
START_LIMIT = 180  # seconds that CouchDB and nginx get to answer after the start
REFUSAL_LIMIT = 30  # seconds in which CouchDB may still refuse its own password, while it starts
NGINX_LIMIT = 60  # seconds, once CouchDB has answered


@dataclasses.dataclass
class Answer:
    """What the running CouchDB said."""

    problems: list[str]
    counts: manifest.Counts = dataclasses.field(default_factory=dict)
    """What it has, by database; none where it didn't answer."""
    server: couch_server.Server | None = None


def ask_database(
    project: str,
    archive: Archive,
    files: manifest.Counts,
    env_file: str,
    dead: Callable[[], str | None],
    output: Output,
) -> Answer:
    """Log in to the CouchDB of a Compose project, and compare what it says with the counts in its `files`. `env_file`
    is the deployment's .env. `dead` says why it can't answer any more; None while it may."""
    known = logins(_couchdb_containers(project), values_in(compose.read_text(env_file)))
    user, password = known[0]
    reason, began = "", time.monotonic()
    # A cluster's nodes find each other one after the other.
    alone = len(archive.places["couchdb"]) == 1
    while time.monotonic() < began + START_LIMIT:
        if why := dead():
            return Answer([why])
        other = None
        try:
            at = address(project, "couchdb")
            server = couch_server.Server(at, user, password)
            counts = ask_couchdb(at, user, password)
            break
        except urllib.error.HTTPError as error:
            # Not the phrase that it sends, which may be anything.
            phrase = http.client.responses.get(error.code, "")
            reason = f"it answers {f'{error.code} {phrase}'.strip()} to the user {user} of .env"
            if error.code == 401 and (user, password) != known[-1]:
                user, password = known[known.index((user, password)) + 1]
                continue
            if error.code in (401, 403) and time.monotonic() > began + REFUSAL_LIMIT:
                return Answer(
                    [
                        f"login: CouchDB refuses the user {user} with the password of .env; the volume with"
                        " its credentials and .env don't go together"
                    ]
                )
            if error.code >= 500 and (other := couch_server.of_another_node(server, list(files))):
                reason = other
        except (OSError, ValueError, KeyError, TypeError, LookupError, subprocess.SubprocessError) as error:
            reason = str(error)
        if other and alone:
            return Answer([other])
        time.sleep(0.5)
    else:
        return Answer([f"CouchDB doesn't answer within {START_LIMIT} s: {reason}{_state(project, 'couchdb')}"])
    output.right(f"login: CouchDB accepts the user {user} with the password of .env")
    problems = [f"CouchDB's own answer: {text}" for text in answer_problems(files, counts, archive.unsteady)]
    if not problems:
        documents = sum(of["documents"] for of in counts.values())
        output.right(f"CouchDB itself answers with {len(counts)} databases and {documents:,} documents")
    return Answer(problems, counts, server)


def ask_nginx(project: str, output: Output) -> list[str]:
    """Whether nginx shows the certificate that its volume holds. Returns what is wrong, one line each."""
    place = f"{Docker().mountpoint(f'{project}_cht-ssl')}/cert.pem"
    try:
        with open(place, encoding="ascii") as file:
            first = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read(), re.S)
        if first is None:
            return [f"TLS: {place} holds no certificate"]
        wanted = _fingerprint(first[0])
    except (OSError, ValueError) as error:
        return [f"TLS: {place} can't be read as a certificate: {error}"]
    reason, deadline = "", time.monotonic() + NGINX_LIMIT
    while time.monotonic() < deadline:
        try:
            shown = ssl.get_server_certificate((address(project, "nginx"), 443), timeout=10)
            break
        except (OSError, LookupError, subprocess.SubprocessError) as error:
            reason = str(error)
        time.sleep(0.5)
    else:
        return [f"TLS: nginx doesn't answer on port 443: {reason}{_state(project, 'nginx')}"]
    if _fingerprint(shown) != wanted:
        return ["TLS: nginx shows another certificate than the restored one; phones may refuse it"]
    output.right("TLS: nginx shows the restored certificate on port 443")
    return []


def _fingerprint(certificate: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


def never_starts(project: str | None) -> str | None:
    """Why CouchDB can't answer any more, as Docker starts it again and again; None while it may."""
    for of in _inspected(project, "couchdb"):
        if of["State"]["Status"] == "restarting" and of.get("RestartCount", 0) >= MOST_STARTS:
            return f"CouchDB doesn't start{_state(project, 'couchdb')}"
    return None


def address(project: str, service: str) -> str:
    """The address of a service's container that runs. Raises LookupError where none does."""
    for of in Docker().containers(project):
        if of["service"].startswith(service) and of["running"] and of["addresses"]:
            return of["addresses"][0]
    raise LookupError(f"no container of the service {service} runs")


def _couchdb_containers(project: str) -> list[dict[str, Any]]:
    """CouchDB's containers: what Compose has given them is how it reads `.env`. None where Docker doesn't answer."""
    with contextlib.suppress(OSError, ValueError, LookupError, subprocess.SubprocessError):
        return [of for of in Docker().containers(project) if of["service"].startswith("couchdb")]
    return []


def _inspected(project: str | None, service: str) -> list[dict[str, Any]]:
    """What Docker says of a service's containers; nothing where it doesn't answer."""
    docker = Docker()
    try:
        found = [of["id"] for of in docker.containers(str(project)) if of["service"].startswith(service)]
        return json.loads(docker.run("inspect", *found)) if found else []
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _state(project: str | None, service: str) -> str:
    """What became of a service's container that doesn't answer, with its last line, to be put behind a reason."""
    told = []
    for of in _inspected(project, service):
        line = ""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            line = subprocess.run(
                ["docker", "logs", "--tail", "1", of["Id"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", timeout=60,
            ).stdout.strip()  # fmt: skip
        told.append(became(of, scrub(line, environment_of(of))))
    return f" ({'; '.join(told)})" if told else ""
