"""The one program that a CHT host's SSH key may run on the offsite server: borg's own server, cut down to what a client
needs that adds archives and reads them.

sshd starts it as the account that receives the backups, in place of `borg serve --append-only`, which keeps less than
its manual promises. The file belongs to root. It is meant to be read in one go: `CALLS` lists every call that a client
may make, and `Guard` has one method for each. Whatever isn't in that list is refused.

    python3 -I chtbackup guard /etc/cht-backup-server/DEPLOYMENT/repository.json

`-I` keeps Python from taking modules or options from the environment or the working directory. Nothing of what the
client asked sshd to run is used; where it isn't `borg serve`, the session ends at once.

    python3 -I chtbackup guard --check

ends with 0 where this machine's borg is one that the guard knows, and says on standard error what is wrong where it
isn't.
"""

import json
import os
import pwd
import re
import signal
import sys
import time

from chtbackup.base.programs import PACKAGE

ASKED = os.environ.get("SSH_ORIGINAL_COMMAND", "borg serve")
# borg reads some 40 variables, and one of them names a file with code to run. None comes from the client.
os.environ.clear()
os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8", HOME=pwd.getpwuid(os.geteuid()).pw_dir)

# A borg that was built for this machine, where the distribution has none that is new enough (components/borg.ts). It
# comes before the distribution's.
BUILT = os.path.join(
    os.path.dirname(PACKAGE),
    "borg/lib/python{}.{}/site-packages".format(*sys.version_info),
)
if os.path.isdir(BUILT):
    sys.path.insert(0, BUILT)

# Each of these went through the whole suite of test/guard. A newer borg may have calls, or meanings of calls, that
# nobody has looked at here, so it is refused until somebody has.
VERSIONS = ("1.2.8", "1.2.9", "1.4.0", "1.4.1", "1.4.2", "1.4.3", "1.4.4", "1.4.5")

# What a client may call, and why an honest one does.
CALLS = {
    "negotiate": "the first call of a session: client and server tell their versions",
    "open": "choose the repository; `borg init` also creates it by this call, where nothing is yet",
    "load_key": "fetch the repository's key, which the passphrase unwraps on the client",
    "save_key": "store the key of a repository that has none yet: `borg init`",
    "get": "read an object: the manifest, an archive's metadata, a chunk",
    "list": "ids of objects, to rebuild a client's lost cache",
    "__len__": "how many objects there are",
    "get_free_nonce": "where the counter for encryption stands",
    "commit_nonce_reservation": "reserve counters before they are used",
    "put": "add an object, or write the manifest, which lists the archives, anew",
    "delete": "take back an object that this session has added: the checkpoint before",
    "rollback": "give up what isn't committed, after an error",
    "commit": "finish a transaction",
}
# borg's other calls. Neither list may lack one, so that a call that nobody has thought about is noticed.
REFUSED = {
    "destroy": "an append-only client never destroys a repository",
    "break_lock": "the lock of a session that has ended is broken by the next one itself",
    "check": "checks are run on the server",
    "scan": "only a check needs it",
    "inject_exception": "only borg's own tests need it",
}

MANIFEST = bytes(32)
MAX_LIST = 100_000  # ids that one `list` returns; what borg's own client asks for (LIST_SCAN_LIMIT)
MAX_KEY = 4096  # bytes; a key is some 600
MAX_LOCK_WAIT = 3600  # seconds
MAINTENANCE = 2 * 3600  # seconds for which a backup waits for it to end
# In AES blocks. A client reserves 2^28 and what one object of 20 MiB needs (borg's crypto/nonces.py). One that meets
# the repository for the first time starts at seconds since 1970 × 2^31, which no client gets ahead of: that is 34 GB
# a second.
MAX_RESERVATION = 1 << 29
BLOCKS_PER_SECOND = 1 << 31
DAY = 86400
HEADER = 41  # bytes of an object's entry in a segment, beside its data
MAX_NOTES = 20  # refusals that one session may put down
TOO_OLD = "this client is too old: borg 1.2.8 or newer is needed"
LOOKS = 60  # seconds between two looks at the clock
BEGINS = 60  # seconds in which a session has to ask for the repository
GRACE = 60  # seconds in which a session that is told to end may finish its call


def wrong_version(version: str | None) -> str | None:
    """Why the guard can't work with a version of borg; None when it can."""
    if version is None:
        return "borg isn't installed for /usr/bin/python3"
    if version not in VERSIONS:
        return f"borg {version} isn't known to this guard, which was tested with {', '.join(VERSIONS)}"
    return None


def wrong_calls(methods: tuple[str, ...]) -> str | None:
    """Why borg's list of calls isn't the one that the guard knows; None when it is."""
    different = set(methods) ^ (CALLS.keys() | REFUSED.keys())
    return f"this borg has other calls than were looked at: {', '.join(sorted(different))}" if different else None


def wrong_reservation(free: int | None, following: object, now: float) -> str | None:
    """Why counters from `free` (None: 0) up to `following` can't be reserved; None when they can. A counter at its end
    would keep every client from encrypting anything, for ever."""
    if type(following) is not int or following <= (free or 0):
        return "a reservation must lie above the counter"
    limit = max((free or 0) + MAX_RESERVATION, int(now + DAY) * BLOCKS_PER_SECOND)
    return "a reservation was too large" if following > limit else None


def over_quota(size: int, gibibytes: int) -> str | None:
    """Why a repository of so many bytes takes no more; None where it does, or where there is no quota (0)."""
    if not gibibytes or size <= gibibytes * (1 << 30):
        return None
    return (
        f"the repository has its fill: {gibibytes} GiB (cht-backup:server.limits.quotaGibibytes). Remove old archives"
        " (npm run retention), or give it more"
    )


def stored(path: str, newest: int) -> int:
    """Bytes in a repository's segments up to one. What is above it a session has left that broke off, and the next one
    that writes removes."""
    total = 0
    for folder, _folders, files in os.walk(os.path.join(path, "data")):
        for name in files:
            if name.isdecimal() and int(name) <= newest:
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def too_many_commits(log: str, per_day: int, now: float) -> bool:
    """Whether the last day's part of borg's `transactions` file has its fill of commits. Its lines have this machine's
    clock: `transaction 5, UTC time 2026-11-28T02:00:07.123456`."""
    times = re.findall(r"^transaction \d+, UTC time (\S{19})", log, re.MULTILINE)
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - DAY))
    return sum(at >= since for at in times) >= per_day


def is_key(text: object) -> bool:
    """Whether it has the form of a wrapped key: base64 in lines. `config` has other settings in other lines."""
    if not isinstance(text, bytes) or len(text) > MAX_KEY:
        return False
    return all(re.fullmatch(rb"[A-Za-z0-9+/]+=*", line) for line in text.removesuffix(b"\n").split(b"\n"))


def tail(path: str, size: int) -> str:
    """The last bytes of a file as text; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def load_guard():
    """The class of the server, or why borg isn't one that it can be built on. Only here borg is loaded."""
    from borg.helpers import Error
    from borg.remote import RepositoryServer, UnexpectedRPCDataFormatFromClient

    class Refused(Error):
        """cht-backup: {}"""

    class Guard(RepositoryServer):
        rpc_methods = (*CALLS, *REFUSED)  # borg's own loop takes no other

        def __init__(self, settings: dict) -> None:
            super().__init__(None, [settings["repository"]], True, None)
            self.settings = settings
            self.writes = False  # whether this session may write: it holds the exclusive lock
            self.base = -1  # the newest segment from before this session; what is in it and below stays as it is
            self.creates = False
            self.quota = settings.get("quotaGibibytes", 0)  # an earlier version's settings have none
            self.size = 0  # bytes in segments, with what this session has added; with a quota
            self.notes = 0
            self.asked = False  # whether it has asked for the repository
            self.began = self.heard = time.monotonic()
            signal.signal(signal.SIGALRM, self.look_at_clock)
            signal.setitimer(signal.ITIMER_REAL, LOOKS, LOOKS)

        # ---- the end of a session ---------------------------------------------------------------------

        def look_at_clock(self, *_signal) -> None:
            """End a session that is too old or says nothing, since others may wait for its lock. The call that runs is
            finished first; a client that doesn't take its answer gets no more time than GRACE."""
            now = time.monotonic()
            idle = self.settings["idleHours"] * 3600 if self.asked else BEGINS
            if now > min(self.began + self.settings["sessionDays"] * DAY, self.heard + idle):
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, 0)  # borg's loop takes it for the end of the connection, and gives the lock back
                os.close(nothing)
                signal.signal(signal.SIGALRM, lambda *_signal: os._exit(1))
                signal.setitimer(signal.ITIMER_REAL, GRACE)

        def filter_args(self, f, kwargs):
            """borg's loop calls this once for each call of the client."""
            self.heard = time.monotonic()
            return super().filter_args(f, kwargs)

        # ---- refusing ---------------------------------------------------------------------------------

        def refuse(self, text: str, note: bool = True) -> None:
            """Answer with an error. What no honest client does is put down for the audit, which raises an alarm."""
            if note and self.notes < MAX_NOTES:
                self.notes += 1
                self.put_down(
                    f"refused/{os.getpid()}-{time.time_ns()}", json.dumps({"at": int(time.time()), "what": text})
                )
            raise Refused(text)

        def put_down(self, name: str, text: str) -> None:
            path = os.path.join(self.settings["spool"], name)
            try:
                # Complete or not there. The number of files is bounded, as the account must not fill the disk here.
                if len(os.listdir(os.path.dirname(path))) < 1000:
                    temporary = os.path.join(self.settings["spool"], f"{os.getpid()}.new")
                    with open(temporary, "w") as file:
                        file.write(text)
                    os.rename(temporary, path)
            except OSError as error:
                print(f"cht-backup: {path} can't be written: {error.strerror}", file=sys.stderr)

        def need(self, condition: bool, text: str, note: bool = True) -> None:
            if not condition:
                self.refuse(text, note)

        def need_room(self) -> None:
            """borg's own quota is the client's to lift, and counts what it deletes as room (borg#4093, #8355)."""
            why = over_quota(self.size, self.quota)
            self.need(why is None, f"{why}", note=False)

        def need_id(self, id: object) -> None:
            self.need(isinstance(id, bytes) and len(id) == 32, "an object's id has 32 bytes")

        def need_to_read(self) -> None:
            self.need(self.repository is not None, "no repository is open", note=False)

        def need_to_write(self) -> None:
            self.need_to_read()
            self.need(self.writes, "this session was opened for reading only")

        # ---- the calls --------------------------------------------------------------------------------

        def negotiate(self, client_data):
            ok = isinstance(client_data, dict) and isinstance(client_data.get(b"client_version"), tuple)
            self.need(ok, TOO_OLD, note=False)
            return super().negotiate(client_data)

        def positional_to_named(self, method, argv):
            # Clients before 1.1 (2017) make all calls in this form, today's only the first one.
            if method != "negotiate":
                raise UnexpectedRPCDataFormatFromClient(TOO_OLD)
            return super().positional_to_named(method, argv)

        def open(self, path, create=False, lock_wait=None, lock=True, exclusive=None):
            self.asked = True
            # A second `open` would leave the first one's lock, and a failed one must leave nothing to work with.
            self.need(self.repository is None, "a session opens one repository, once")
            self.need(lock is True or lock is False, "a repository is opened with a lock or without")
            # Anything else means that a lock for reading becomes one for writing later, over what others wrote
            # meanwhile.
            self.need(
                exclusive is True or exclusive is False, "a session is for reading or for writing from its beginning"
            )
            self.need(create is True or create is False, "create is yes or no")
            self.need(isinstance(path, (bytes, str)), "a path is a text")
            # `borg key export` asks for none. It gets one for reading: without a lock nobody writes.
            exclusive = exclusive and lock
            if create:
                self.clear_what_broke_off()
            wait = (
                lock_wait if isinstance(lock_wait, (int, float)) and 0 <= lock_wait <= MAX_LOCK_WAIT else MAX_LOCK_WAIT
            )
            try:
                while True:
                    if exclusive:
                        self.wait_for_maintenance()
                    # append_only also where it is created: borg takes this from the client alone then.
                    id = super().open(path, create, wait, True, exclusive, True)
                    if not exclusive or self.may_write(create):
                        self.writes = exclusive
                        return id
                    self.leave()
            except BaseException:
                self.leave()
                raise

        def leave(self) -> None:
            """Give the lock back."""
            if self.repository is not None:
                self.repository.close()
            self.repository = None

        def may_write(self, create: bool) -> bool:
            """With the lock, see what is there, and that it is sealed. False where maintenance has begun meanwhile: its
            borgs have the lock one after another, so that a session which waits for it gets it in between."""
            if self.in_maintenance() and not create:
                return False
            transaction = self.repository.get_transaction_id()
            self.base = -1 if transaction is None else transaction
            self.creates = create
            if self.quota:
                self.size = stored(self.repository.path, self.base)
            self.need_room()
            return self.wait_for_seals()

        def clear_what_broke_off(self) -> None:
            """Make room where a `borg init` broke off: there are a configuration and a key, for which nothing was ever
            stored. Otherwise nobody could begin the repository, or open it."""
            path = self.settings["repository"]
            try:
                names = os.listdir(path)
                stored = [file for _folder, _folders, files in os.walk(os.path.join(path, "data")) for file in files]
                # With a lock it is going on; and what is root's is finished, whatever has become of it.
                left = not stored and "config" in names and set(names) <= {"README", "config", "data", "nonce"}
                left = left and os.stat(os.path.join(path, "config")).st_uid == os.geteuid()
                for name in names if left else ():
                    (os.rmdir if name == "data" else os.remove)(os.path.join(path, name))
            except OSError:
                return  # borg says what is there

        def in_maintenance(self) -> bool:
            return os.path.exists(os.path.join(self.settings["state"], "open"))

        def wait_for_maintenance(self) -> None:
            """Let retention, which has broken the seals, end first: who had the lock would keep it from its work."""
            end = time.monotonic() + MAINTENANCE
            while self.in_maintenance():
                if time.monotonic() > end:
                    self.refuse("the repository is in maintenance (npm run retention, or chtbackup seal open)", False)
                time.sleep(0.5)

        def wait_for_seals(self) -> bool:
            """Let nobody write before what was written is root's: see seal.py, which seals in the order of writing.
            False where maintenance breaks the seals, and makes them at its end."""
            if self.base < 0:
                return True
            newest = self.repository.io.segment_filename(self.base)
            config = os.path.join(self.repository.path, "config")
            end = time.monotonic() + self.settings["sealWait"]
            while not all(os.stat(path).st_uid == self.settings["sealer"] for path in (newest, config)):
                if self.in_maintenance():
                    return False
                if time.monotonic() > end:
                    self.refuse(
                        "the last backup isn't sealed on the server; see there: journalctl -u 'cht-repository-seal-*'",
                        False,
                    )
                self.put_down("seal", "")
                time.sleep(0.2)
            return True

        def load_key(self):
            self.need_to_read()
            return self.repository.load_key()

        def save_key(self, keydata):
            self.need_to_write()
            # Another key would lock everybody out. Whoever changes the passphrase does that on the server.
            new = self.creates and self.base < 0 and not self.repository.load_key()
            self.need(new, "a repository's key isn't exchanged")
            self.need(is_key(keydata), "a key is base64")
            return self.repository.save_key(keydata)

        def get(self, id):
            self.need_to_read()
            self.need_id(id)
            return self.repository.get(id)

        def list(self, limit=None, marker=None):
            self.need_to_read()
            self.need(limit is None or type(limit) is int and limit > 0, "a limit is a number above 0")
            if marker is not None:
                self.need_id(marker)
            return self.repository.list(limit=min(limit or MAX_LIST, MAX_LIST), marker=marker)

        def __len__(self):
            self.need_to_read()
            return len(self.repository)

        def get_free_nonce(self):
            self.need_to_write()
            free = self.repository.get_free_nonce()
            # What root has seen last, in case that borg's file is gone: counters must never be used twice.
            seen = int(tail(self.settings["nonce"], 16) or "0", 16)
            return free if seen == 0 else max(free or 0, seen)

        def commit_nonce_reservation(self, next_unreserved, start_nonce):
            free = self.get_free_nonce()
            self.need(start_nonce == free, "a reservation must begin at the counter", note=False)
            why = wrong_reservation(free, next_unreserved, time.time())
            self.need(why is None, f"{why}")
            return self.repository.commit_nonce_reservation(next_unreserved, self.repository.get_free_nonce())

        def was_before(self, id: bytes) -> bool:
            """Whether an object was in the repository before this session."""
            return id in self.repository and self.repository.index[id][0] <= self.base

        def put(self, id, data):
            self.need_to_write()
            self.need_id(id)
            self.need(isinstance(data, bytes), "an object is bytes")
            # An id is made from the content, so an honest client has nothing else to write: it doesn't know of the
            # object (after a backup that broke off). What is there stays.
            if id == MANIFEST or not self.was_before(id):
                self.size += len(data) + HEADER
                self.need_room()
                self.repository.put(id, data)

        def delete(self, id):
            self.need_to_write()
            self.need_id(id)
            ours = id != MANIFEST and not self.was_before(id)
            self.need(ours, "a client asked to delete what was there before; an append-only client doesn't")
            self.repository.delete(id)

        def rollback(self):
            self.need_to_read()
            # borg leaves in place what was written, and a commit would finish it unseen by borg's index.
            self.writes = False
            return self.repository.rollback()

        def commit(self):
            self.need_to_write()
            self.need(self.repository._active_txn, "there is nothing to commit", note=False)
            log = tail(os.path.join(self.repository.path, "transactions"), 64 * (self.settings["commitsPerDay"] + 1))
            full = too_many_commits(log, self.settings["commitsPerDay"], time.time())
            self.need(
                not full,
                f"there were {self.settings['commitsPerDay']} transactions within a day, and no more are taken",
            )
            return self.repository.commit(compact=False)

    def refusing(method: str, why: str):
        def answer(self):
            self.refuse(f"{method} is refused: {why}", note=method in ("destroy", "break_lock"))

        return answer

    for method, why in REFUSED.items():
        setattr(Guard, method, refusing(method, why))
    return Guard, wrong_calls(RepositoryServer.rpc_methods)


def installed() -> str | None:
    """The version of the borg that would be loaded."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("borgbackup")
    except PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    why = None if re.match(r"\S*borg serve\b", ASKED) else "this key is for backups only"
    why = why or wrong_version(installed())
    if why is None and arguments != ["--check"]:
        os.umask(0o077)
        with open(arguments[0]) as file:
            settings = json.load(file)
        Guard, why = load_guard()
        if why is None:
            from borg.logger import setup_logging

            setup_logging(level="warning", is_serve=True)
            session = Guard(settings)
            try:
                session.serve()
            except Exception as error:
                # What came was no borg's. The client gets no more than the kind of error, and the lock is given back.
                why = f"the session was ended by {type(error).__name__}"
            finally:
                if session.repository is not None:
                    session.repository.close()
    if why is not None:
        print(f"cht-backup: {why}", file=sys.stderr)
        return 1
    return 0
