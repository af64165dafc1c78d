"""A read-only stand-in for CouchDB: it answers the few requests a backup makes, from the headers of real files.

GET /            welcome; it says that it is a stand-in
GET /_up         status
GET /_all_dbs    names of the databases whose shards are there
GET /DATABASE    document counts, sequence and file size, as CouchDB sums them over the shards

Everything but `/` and `/_up` needs the administrator's name and password (Basic), as in CHT. Anything else is
answered with 501: no number is invented.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from couch_files import scan

DATA = "/opt/couchdb/data"
CREDENTIALS = "/opt/couchdb/etc/local.d/cluster-credentials.ini"
# The version whose files these are. The format of its headers is what is read.
VERSION = "3.5.0"
ITERATIONS = 600_000


def write_credentials() -> None:
    """Write the administrator's hash, the secret and the uuid where they are absent, as CHT's image does."""
    if os.path.exists(CREDENTIALS):
        return
    salt = secrets.token_hex(16)
    password = os.environ["COUCHDB_PASSWORD"].encode()
    key = hashlib.pbkdf2_hmac("sha256", password, salt.encode(), ITERATIONS).hex()
    text = (
        f"[admins]\n{os.environ['COUCHDB_USER']} = -pbkdf2:sha256-{key},{salt},{ITERATIONS}\n\n"
        f"[couch_httpd_auth]\nsecret = {os.environ['COUCHDB_SECRET']}\n\n"
        f"[couchdb]\nuuid = {os.environ['COUCHDB_UUID']}\n"
    )
    with open(CREDENTIALS + ".new", "w", opener=lambda path, flags: os.open(path, flags, 0o640)) as file:
        file.write(text)
    os.replace(CREDENTIALS + ".new", CREDENTIALS)


class Login:
    """Checks names and passwords against the hashes that the credentials file holds."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def allows(self, header: str) -> bool:
        if header in self.known:  # the hash is slow on purpose
            return True
        try:
            kind, _, value = header.partition(" ")
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return False
        with open(CREDENTIALS) as file:
            found = re.search(
                rf"^{re.escape(name)} = -pbkdf2:sha256-([0-9a-f]+),([0-9a-f]+),(\d+)$", file.read(), re.MULTILINE
            )
        if kind.lower() != "basic" or found is None:
            return False
        key = hashlib.pbkdf2_hmac("sha256", password.encode(), found[2].encode(), int(found[3])).hex()
        if not hmac.compare_digest(key, found[1]):
            return False
        self.known.add(header)
        return True


class Databases:
    """What the files' headers say, at most a second old."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at = 0.0
        self.found: dict = {}

    def now(self) -> dict:
        with self.lock:
            if time.monotonic() - self.at > 1 or not self.found:
                self.found = scan(DATA)["databases"]
                self.at = time.monotonic()
            return self.found


login = Login()
databases = Databases()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"cht-backup-lab (CouchDB {VERSION} files)"

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if path == "/":
            vendor = {"name": "cht-backup lab: a read-only stand-in that reads CouchDB's files"}
            self.reply(200, {"couchdb": "Welcome", "version": VERSION, "vendor": vendor})
        elif path == "/_up":
            self.reply(200, {"status": "ok"})
        elif not login.allows(self.headers.get("Authorization", "")):
            self.reply(401, {"error": "unauthorized", "reason": "Name or password is incorrect."})
        elif path == "/_all_dbs":
            self.reply(200, sorted(databases.now()))
        else:
            self.database(urllib.parse.unquote(path[1:]))

    def database(self, name: str) -> None:
        of = databases.now().get(name)
        if of is not None:
            self.reply(
                200,
                {
                    "db_name": name,
                    "doc_count": of["documents"],
                    "doc_del_count": of["deleted"],
                    "update_seq": f"{of['updateSequence']}-",
                    "sizes": {"file": of["size"]},
                    "cluster": {"q": of["shards"], "n": 1},
                },
            )
        elif re.fullmatch(r"[a-z_][a-z0-9_$()+/-]*", name) and "/" not in name:
            self.reply(404, {"error": "not_found", "reason": "Database does not exist."})
        else:
            self.refuse()

    def refuse(self) -> None:
        self.reply(501, {"error": "not_implemented", "reason": "This stand-in only reads; CouchDB's image has all."})

    do_PUT = do_POST = do_DELETE = do_HEAD = refuse

    def reply(self, status: int, body: object) -> None:
        data = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        print(self.address_string(), format % args, file=sys.stderr)


if __name__ == "__main__":
    write_credentials()
    ThreadingHTTPServer(("", 5984), Handler).serve_forever()
