"""Work for the CHT of a lab's machine: couchdb_load.py fill GIGABYTES DATA | work FILE

Talks to it as its users do, through nginx. `fill` writes documents and photographs until DATA, CouchDB's directory, has
so many gigabytes, and a view of them is there. `work` goes on writing at a steady pace, and asks every quarter of a
second in turn for what CHT's own pages ask for: it adds a line `SECONDS KIND MILLISECONDS` to FILE for each answer,
with `failed` in place of the time where there was none. It ends when it is told so by a signal.
"""

import base64
import http.client
import json
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import threading
import time

ENVIRONMENT = "/home/ubuntu/cht/upgrade-service/.env"
DATABASE = "medic"
VIEW = "campaign/by_place"
PHOTOGRAPH = 250_000
DOCUMENT = 3_500
"""Bytes that a document takes, about."""
BATCH = 200
PLACES = 500
MAP = "function (doc) { if (doc.campaign) { emit(doc.place, 1); } }"


class Client:
    """One connection to the CHT, made anew when it ends."""

    def __init__(self):
        with open(ENVIRONMENT, encoding="utf-8") as file:
            login = dict(re.findall(r"^COUCHDB_(USER|PASSWORD)=(.*)$", file.read(), re.M))
        word = base64.b64encode(f"{login['USER']}:{login['PASSWORD']}".encode()).decode()
        self.headers = {"Authorization": f"Basic {word}", "Content-Type": "application/json"}
        self.connection = None

    def ask(self, method, path, body=None, limit=60, **headers):
        """What CouchDB answers. Raises OSError and http.client.HTTPException."""
        if self.connection is None:
            context = ssl._create_unverified_context()
            self.connection = http.client.HTTPSConnection("127.0.0.1", context=context, timeout=limit)
        try:
            self.connection.request(method, f"/{path}", body, {**self.headers, **headers})
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return text


def document(dice):
    """Like a report of a visit: a few fields, some text that compresses."""
    words = [
        dice.choice(("fever", "cough", "visit", "follow", "child", "mother", "village", "dose")) for _ in range(150)
    ]
    fields = {f"field_{number}": f"{dice.getrandbits(64):x}" for number in range(60)}
    return {
        "_id": f"campaign-{dice.getrandbits(96):x}",
        "campaign": True,
        "place": dice.randrange(PLACES),
        **fields,
        "note": " ".join(words),
    }


def write_batch(client, dice):
    documents = [document(dice) for _ in range(BATCH)]
    client.ask("POST", f"{DATABASE}/_bulk_docs", json.dumps({"docs": documents}))
    return documents


def write_photograph(client, dice):
    name = f"campaign-photo-{dice.getrandbits(96):x}"
    client.ask("PUT", f"{DATABASE}/{name}/photo", os.urandom(PHOTOGRAPH), **{"Content-Type": "image/jpeg"})


def size_of(directory):
    said = subprocess.run(["du", "-s", "-B1", directory], check=True, capture_output=True, text=True).stdout
    return int(said.split()[0])


def fill(gigabytes, directory):
    wanted = gigabytes * 1_000_000_000
    client = Client()
    if b"stand-in" in client.ask("GET", ""):
        raise SystemExit("the lab's CouchDB is a stand-in, which takes no writes: the load needs CouchDB's own image")
    try:
        client.ask("PUT", f"{DATABASE}/_design/campaign", json.dumps({"views": {"by_place": {"map": MAP}}}))
    except OSError as error:
        if " 409 " not in str(error):
            raise

    def work(seed, write):
        own, dice = Client(), random.Random(seed)
        while not full.is_set():
            write(own, dice)

    full = threading.Event()
    seed = time.time_ns()
    writers = [threading.Thread(target=work, args=(seed + n, write_photograph), daemon=True) for n in range(3)]
    for writer in writers:
        writer.start()
    dice, written = random.Random(seed - 1), 0
    while (size := size_of(directory)) < wanted:
        # Photographs take most of the room, as with users' phones.
        if 8 * written * DOCUMENT < size:
            for _ in range(10):
                written += len(write_batch(client, dice))
        else:
            time.sleep(1)
    full.set()
    for writer in writers:
        writer.join()
    client.ask("GET", f"{DATABASE}/_design/{VIEW.replace('/', '/_view/')}?limit=1", limit=3600)
    return {"bytes": size_of(directory), "documents": json.loads(client.ask("GET", DATABASE))["doc_count"]}


class Working:
    """Steady writes, and questions whose answers are timed."""

    def __init__(self, path):
        self.over = threading.Event()
        self.known = []
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def every(self, seconds, act):
        """Do something at a steady pace, whatever single ones take."""
        client, dice = Client(), random.Random(time.time_ns())
        due = time.monotonic()
        while not self.over.wait(max(0, due - time.monotonic())):
            due = max(due + seconds, time.monotonic() - 10 * seconds)
            try:
                act(client, dice)
            except (OSError, http.client.HTTPException) as error:
                print(error, file=sys.stderr, flush=True)

    def write(self, client, dice):
        """Ten documents."""
        documents = [document(dice) for _ in range(10)]
        client.ask("POST", f"{DATABASE}/_bulk_docs", json.dumps({"docs": documents}))
        self.known = (self.known + [each["_id"] for each in documents])[-1000:]

    def questions(self, dice):
        place = dice.randrange(PLACES)
        view = VIEW.replace("/", "/_view/")
        yield "read a document", "GET", f"{DATABASE}/{dice.choice(self.known)}", None
        yield (
            "list 50 documents",
            "GET",
            f"{DATABASE}/_all_docs?limit=50&include_docs=true&startkey=%22campaign-%22",
            None,
        )
        yield "ask a view", "GET", f"{DATABASE}/_design/{view}?key={place}&limit=50&include_docs=true", None
        yield "write a document", "POST", DATABASE, json.dumps(document(dice))

    def ask(self, client, dice):
        for kind, method, path, body in self.questions(dice):
            began, begin = time.time(), time.perf_counter()
            try:
                client.ask(method, path, body)
                took = f"{1000 * (time.perf_counter() - begin):.2f}"
            except (OSError, http.client.HTTPException) as error:
                print(error, file=sys.stderr, flush=True)
                took = "failed"
            self.file.write(f"{began:.2f} {kind.replace(' ', '_')} {took}\n")
            self.file.flush()
            if self.over.wait(0.25):
                return

    def run(self):
        client, dice = Client(), random.Random(time.time_ns())
        self.write(client, dice)
        acts = ((1, self.write), (2, write_photograph), (0.25, self.ask))
        threads = [threading.Thread(target=self.every, args=act, daemon=True) for act in acts]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.over.set())
        for thread in threads:
            thread.start()
        self.over.wait()
        for thread in threads:
            thread.join(60)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        print(json.dumps(fill(float(sys.argv[2]), sys.argv[3])))
    else:
        Working(sys.argv[2]).run()
