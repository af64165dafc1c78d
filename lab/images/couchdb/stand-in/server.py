"""A read-only stand-in for CouchDB: it answers the few requests that backups and drills make, from real files.

GET /                         welcome; it says that it is a stand-in
GET /_up                      status
GET /_membership              its node's name: the first argument, else that of CHT's image
GET /_node/_local/_dbs/DATABASE  which nodes a database belongs to
GET /_all_dbs                 names of the databases whose shards are there
GET /DATABASE                 document counts, sequence and file size, as CouchDB sums them over the shards
GET /DATABASE/_all_docs       with startkey, endkey, limit, include_docs
GET /DATABASE/DOCUMENT        and /DATABASE/DOCUMENT/ATTACHMENT

As with CouchDB, a database that belongs to another node is a 500, and so is what was damaged; a list of documents
breaks off there. Everything but `/` and `/_up` needs the administrator's name and password (Basic), as in CHT. Anything
else is answered with 501: no number is invented.
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
from typing import Any

from chtbackup.couchdb.files import Unreadable, newest_header
from chtbackup.couchdb.scan import scan
from documents import Corrupt, Document, File

DATA = "/opt/couchdb/data"
CREDENTIALS = "/opt/couchdb/etc/local.d/cluster-credentials.ini"
# The version whose files these are. The format of its headers is what is read.
VERSION = "3.5.0"
ITERATIONS = 600_000


def write_credentials() -> None:
    """Write the administrator's password, the secret and the uuid where they are absent, as CHT's image does; and put
    the password's hash in its place, as CouchDB does."""
    if not os.path.exists(CREDENTIALS):
        write(
            f"[admins]\n{os.environ['COUCHDB_USER']} = {os.environ['COUCHDB_PASSWORD']}\n\n"
            f"[couch_httpd_auth]\nsecret = {os.environ['COUCHDB_SECRET']}\n\n"
            f"[couchdb]\nuuid = {os.environ['COUCHDB_UUID']}\n"
        )
    with open(CREDENTIALS) as file:
        text = file.read()
    found = re.match(r"\[admins\]\n(.+) = (?!-pbkdf2:)(.+)\n", text)
    if found:
        salt = secrets.token_hex(16)
        key = hashlib.pbkdf2_hmac("sha256", found[2].encode(), salt.encode(), ITERATIONS).hex()
        hashed = f"[admins]\n{found[1]} = -pbkdf2:sha256-{key},{salt},{ITERATIONS}\n"
        write(hashed + text[found.end() :])


def write(text: str) -> None:
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
        self.kept: dict[str, tuple[Any, dict[str, Any]]] = {}

    def now(self) -> dict:
        with self.lock:
            if time.monotonic() - self.at > 1 or not self.found:
                self.found = scan(DATA)
                self.at = time.monotonic()
            return self.found

    def shards(self, name: str) -> list[str]:
        paths = (path for path in self.now()["shardFiles"] if path.split("/", 2)[2].rsplit(".", 2)[0] == name)
        return [f"{DATA}/{path}" for path in paths]

    def owners(self, name: str) -> list[str]:
        """The node that wrote a database last. Raises Corrupt."""
        for path in self.shards(name):
            try:
                return [str(epoch[0]) for epoch in newest_header(path).term[12][:1]]
            except (Unreadable, IndexError, TypeError, FileNotFoundError):
                continue
        raise Corrupt(name)

    def documents(self, name: str) -> dict[str, Any]:
        """What `Document` needs, by id in CouchDB's order. Raises Corrupt."""
        paths = self.shards(name)
        state = [(path, os.stat(path).st_mtime_ns, os.stat(path).st_size) for path in paths]
        kept = self.kept.get(name)
        if kept is None or kept[0] != state:
            found = {id: (path, id, trees) for path in paths for id, trees in File(path).documents()}
            kept = self.kept[name] = state, dict(sorted(found.items()))
        return kept[1]


login = Login()
databases = Databases()
node = "couchdb@127.0.0.1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
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
        elif path == "/_membership":
            self.reply(200, {"all_nodes": [node], "cluster_nodes": [node]})
        else:
            parts = [urllib.parse.unquote(part) for part in path[1:].split("/")]
            if len(parts) > 2 and parts[1] == "_design":
                parts[1:3] = [f"_design/{parts[2]}"]
            try:
                self.database(*parts)
            except ConnectionError:  # whoever asked has gone
                self.close_connection = True
            except (Corrupt, Unreadable, FileNotFoundError):
                self.reply(500, {"error": "internal_server_error", "reason": "file_corruption"})

    def database(self, name: str, *inside: str) -> None:
        known = databases.now()["databases"]
        if name == "_all_dbs" and not inside:
            return self.reply(200, sorted(known))
        if name == "_node" and inside[:2] == ("_local", "_dbs") and len(inside) == 3 and inside[2] in known:
            return self.reply(200, {"_id": inside[2], "by_node": dict.fromkeys(databases.owners(inside[2]), [])})
        if name not in known:
            if not re.fullmatch(r"[a-z_][a-z0-9_$()+/-]*", name) or "/" in name or inside:
                return self.refuse()
            return self.reply(404, {"error": "not_found", "reason": "Database does not exist."})
        if node not in databases.owners(name):
            return self.reply(500, {"error": "internal_server_error", "reason": "No DB shards could be opened."})
        if not inside:
            return self.counts(name, known[name])
        if inside == ("_all_docs",):
            return self.list(databases.documents(name))
        found = databases.documents(name).get(inside[0])
        if found is None or len(inside) > 2:
            return self.reply(404, {"error": "not_found", "reason": "missing"})
        if len(inside) == 1:
            return self.reply(200, Document(*found).json(self.query().get("att_encoding_info") == "true"))
        attachment = Document(*found).attachment(inside[1])
        if attachment is None:
            return self.reply(404, {"error": "not_found", "reason": "Document is missing attachment"})
        self.give(200, *attachment)

    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))

    def list(self, known: dict[str, Any]) -> None:
        """Rows, a line for each, as CouchDB writes them. What can't be read ends the answer in its middle."""
        query = self.query()
        first, last = (json.loads(query[key]) if key in query else None for key in ("startkey", "endkey"))
        ids = [id for id in known if (first is None or id >= first) and (last is None or id <= last)]
        ids = ids[: int(query.get("limit", len(ids)))]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(f'{{"total_rows":{len(known)},"offset":0,"rows":[\r\n')
        for number, id in enumerate(ids):
            row: dict[str, Any] = {"id": id, "key": id}
            document = Document(*known[id])
            row["value"] = {"rev": document.revision}
            if query.get("include_docs") == "true":
                try:
                    row["doc"] = document.json(query.get("att_encoding_info") == "true")
                except Corrupt:
                    self.close_connection = True
                    return
            self.chunk((",\r\n" if number else "") + json.dumps(row, separators=(",", ":")))
        self.chunk("\r\n]}\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def counts(self, name: str, of: dict[str, Any]) -> None:
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

    def refuse(self) -> None:
        self.reply(501, {"error": "not_implemented", "reason": "This stand-in only reads; CouchDB's image has all."})

    do_PUT = do_POST = do_DELETE = do_HEAD = refuse

    def reply(self, status: int, body: object) -> None:
        self.give(status, "application/json", "identity", (json.dumps(body) + "\n").encode())

    def give(self, status: int, kind: str, encoding: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if encoding != "identity":
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        print(self.address_string(), format % args, file=sys.stderr)


if __name__ == "__main__":
    node = sys.argv[1] if len(sys.argv) > 1 else node
    write_credentials()
    ThreadingHTTPServer(("", 5984), Handler).serve_forever()
