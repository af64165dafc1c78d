"""Acts of somebody who has the CHT machine's key, and root there, in borg's protocol, spoken by hand.

Reads {"command": [words that lead to the server], "path": the repository's, "acts": [names]} from standard input.
Prints [name, what the server answered last, in its words] as a line of JSON each. An act that got what it wanted
answers `succeeded`. Without a command: prints the names of all acts.
"""

import json
import sys

from borg.helpers import msgpack
from borg_session import ACTS, Ended, Refused, Server, Session, act, answer_to

MANIFEST, NEW, OTHER = b"\0" * 32, b"\x01" * 32, b"\x02" * 32

wanted = json.load(sys.stdin)
PATH = wanted.get("path", "")
server = Server(wanted.get("command"), PATH)
session, opened = server.session, server.opened


def an_old_id(of):
    return next(id for id in of.call("list", limit=1000, marker=None) if id != MANIFEST)


def calls(name, *calls, **more):
    """An act that opens the repository and makes calls, of which the last one has to be refused."""

    @act(name)
    def made():
        of = opened(**more)
        try:
            for method, arguments in calls:
                of.call(method, **arguments)
        finally:
            of.close()


# ---- deleting and writing over ----


@act("delete an object that was there before")
def delete_old():
    of = opened()
    try:
        of.call("delete", id=an_old_id(of))
    finally:
        of.close()


@act("write over an object that was there before")
def put_old():
    of = opened()
    try:
        id = an_old_id(of)
        before = of.call("get", id=id)
        of.call("put", id=id, data=b"rubbish")
        if of.call("get", id=id) == before:
            raise Refused("what was there stays")
    finally:
        of.close()


@act("delete the list of archives after writing it anew")
def delete_manifest():
    of = opened()
    try:
        of.call("put", id=MANIFEST, data=of.call("get", id=MANIFEST))
        of.call("delete", id=MANIFEST)
    finally:
        of.close()


@act("finish what was given up")
def commit_after_rollback():
    of = opened()
    try:
        of.call("put", id=NEW, data=b"rubbish")
        of.call("rollback")
        of.call("get", id=MANIFEST)
        of.call("commit")
    finally:
        of.close()


@act("delete in a transaction that was given up")
def delete_after_rollback():
    of = opened()
    try:
        id = an_old_id(of)
        of.call("put", id=NEW, data=b"rubbish")
        of.call("rollback")
        of.call("delete", id=id)
    finally:
        of.close()


calls("delete the list of archives", ("delete", {"id": MANIFEST}))
calls("destroy the repository", ("destroy", {}))
calls("break the lock", ("break_lock", {}))
calls("repair the repository", ("check", {"repair": True}))
calls("check the repository", ("check", {}))
calls("scan the repository", ("scan", {"limit": 1000, "marker": None}))
calls("compact the repository", ("commit", {"compact": True}))
calls("commit with nothing to commit", ("commit", {}))
calls("have the server raise an exception", ("inject_exception", {"kind": b"divide"}))

# ---- the key and the counters ----

for what, key in {
    "another key": b"QUJD",
    "an empty key": b"",
    "a key with a line's end in it": b"x\rid = " + b"00" * 32,
    "a key that is a section of the configuration": b"x\n[repository]\nid = 00",
    "a key of two megabytes": b"QUJD" * 500_000,
}.items():
    calls(f"store {what}", ("save_key", {"keydata": key}))


def reservation(name, following, start=0):
    @act(name)
    def made():
        of = opened()
        try:
            free = of.call("get_free_nonce") or 0
            of.call("commit_nonce_reservation", next_unreserved=following(free), start_nonce=free + start)
        finally:
            of.close()


reservation("reserve all counters that there are", lambda _free: 2**64 - 1)
reservation("set the counter back", lambda free: free - 1)
reservation("set the counter to nought", lambda _free: 0)
reservation("reserve counters from the past", lambda free: free + 1024, start=-1024)
reservation("reserve a counter that is a text", lambda _free: "1")

# ---- opening ----


@act("open the repository without a lock and write")
def without_lock():
    of = opened(lock=False)
    try:
        of.call("put", id=NEW, data=b"x")
    finally:
        of.close()


@act("open it for reading and write")
def reading_and_writing():
    of = opened(exclusive=False)
    try:
        of.call("put", id=NEW, data=b"x")
    finally:
        of.close()


@act("open it as an old client does, to write later")
def lock_to_be_upgraded():
    opened(exclusive=None).close()


@act("open it twice in a session")
def open_twice():
    of = opened(exclusive=False)
    try:
        of.call("open", path=PATH, lock=True, exclusive=True)
    finally:
        of.close()


@act("create it where it is, and destroy it")
def create_and_destroy():
    of = session()
    try:
        try:
            of.call("open", path=PATH, create=True, append_only=False, lock=True, exclusive=True)
        except Refused:
            pass
        of.call("destroy")
    finally:
        of.close()


for what, place in {
    "the directory above": f"{PATH}/..",
    "a directory in it": f"{PATH}/data",
    "a place beside it": f"{PATH}-2",
    "the root directory": "/",
    "the home of root": "/~root",
    "its working directory": "/proc/self/cwd",
    "a name with a zero byte": f"{PATH}\0",
    "a number instead of a path": 5,
}.items():

    @act(f"open {what}")
    def open_elsewhere(place=place):
        of = session()
        try:
            of.call("open", path=place, create=True, lock=True, exclusive=True)
        finally:
            of.close()


# ---- words that are none ----


@act("speak the protocol of old clients")
def old_protocol():
    of = session(greet=False)
    try:
        of.write(msgpack.packb((1, 1, "open", (PATH, False, 1, True))))
        of.answer()
    finally:
        of.close()


@act("be a client of long ago")
def old_version():
    of = session(greet=False)
    try:
        of.call("negotiate", client_data=2)
    finally:
        of.close()


for what, data in {
    "a request for a web page": b"GET / HTTP/1.1\r\n\r\n",
    "lists in lists, 200,000 deep": b"\x91" * 200_000,
    "a mapping of four thousand million entries": b"\xdf\xff\xff\xff\xff",
    "60 MB in one frame": b"\xc6" + (60_000_000).to_bytes(4, "big") + bytes(60_000_000),
    "a frame that claims 4 GB": b"\xc6\xff\xff\xff\xff" + bytes(1000),
    "bytes that mean nothing": b"\xc1" * 1000,
    "half a call": b"\x83\xa1i\x05\xa1m\xa3put\xa1a\x82\xa2id\xc4\x20" + NEW[:7],
}.items():

    @act(f"send {what}")
    def send(data=data):
        of = session()
        try:
            of.write(data)
            of.process.stdin.close()
            of.answer()
        finally:
            of.close()


for what, method in {
    "a call that borg hasn't": "get_many",
    "a call of Python's own": "__init__",
    "a call of the guard's own": "put_down",
    "a call with no name": "",
    "a call with a name of 100,000 letters": "x" * 100_000,
}.items():
    calls(f"make {what}", (method, {"path": "/", "text": "x"}))

calls("store an object of 30 MB", ("put", {"id": NEW, "data": bytes(30 << 20)}))
calls("store what isn't bytes", ("put", {"id": NEW, "data": ["x"]}))
calls("store it under an id of 31 bytes", ("put", {"id": b"\0" * 31, "data": b"x"}))
calls("read without an id", ("get", {"id": None}))
calls("list an endless list from nowhere", ("list", {"limit": -1, "marker": b"x"}))


@act("write before a repository is open")
def before_open():
    session().call("put", id=NEW, data=b"x")


@act("hold the lock and say nothing, while another one writes")
def hold_the_lock():
    holder = opened()
    try:
        other = session()
        try:
            other.call("open", path=PATH, lock=True, lock_wait=2, exclusive=True)
        finally:
            other.close()
    finally:
        holder.close()


@act("open twenty sessions at once")
def many_sessions():
    made = [Session(wanted["command"]) for _ in range(20)]
    refused = 0
    for each in made:
        try:
            each.greet()
        except (Ended, Refused):
            refused += 1
    for each in made:
        each.close()
    raise Refused(f"{refused} of 20 sessions were refused, none could keep the others from ending")


if not wanted.get("command"):
    print(json.dumps(list(ACTS)))
else:
    for act_name in wanted["acts"]:
        print(json.dumps([act_name, answer_to(ACTS[act_name])]), flush=True)
