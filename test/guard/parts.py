"""What the tests of the guard, the seals and the audit share: an account, OpenSSH's server with the product's own
limits for it, every borg that the guard is tried with, a repository with archives, and sessions that speak borg's
protocol by hand.

Everything runs as it does on an offsite server, but for three things. Programs are mostly forked from a process that
has loaded them (loaded.py), and reached without sshd in between, which makes a session some 20 times cheaper; whatever
sshd has a part in goes over sshd, and so does a fraction of the rest. Seals are made by a thread in place of systemd's
path unit. And the repository is put back to what it was in an instant, instead of being made anew for each test."""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import msgpack

ROOT = Path(__file__).resolve().parents[2]
HERE, HOSTS = ROOT / "test" / "guard", ROOT / "hosts"
sys.path.insert(0, str(HOSTS))
sys.dont_write_bytecode = True

from chtbackup.repository import segment_log  # noqa: E402

ENVIRONMENTS = json.loads(os.environ["GUARD_ENVIRONMENTS"])
"""Folders of virtual environments by the version of borg in them."""
MANIFEST = bytes(32)
LIMIT = 180  # seconds that anything here may take
PATIENCE = 3  # how often as long it may take beside two labs


def wait_for(condition, seconds=LIMIT, what="it"):
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} didn't happen within {seconds} s")
        time.sleep(0.01)
    return found


# ---- the machine ------------------------------------------------------------------------------------------


class Machine:
    """A folder that everybody can read, and an account, which receives backups. Both go when the tests end."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cht-backup-guard-"))
        self.folder.chmod(0o755)
        self.user = f"cht-guard-{os.getpid()}"
        self.home = self.folder / "home"
        remove_left_accounts()
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/bin/sh", "--home-dir", str(self.home)]
        # A password that nobody has, unlike none at all, doesn't lock the account for sshd.
        subprocess.run(["useradd", *options, "--password", "*", self.user], check=True)
        account = pwd.getpwnam(self.user)
        self.uid, self.gid = account.pw_uid, account.pw_gid
        self.programs = self.folder / "programs"
        self.programs.mkdir()
        shutil.copytree(HOSTS / "chtbackup", self.programs / "chtbackup", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("loaded.py", "read_all.py", "relay.py"):
            shutil.copy(HERE / name, self.programs)
        (self.home / ".ssh").mkdir(parents=True)
        for name in ("host", "client"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(self.folder / "client.pub", self.home / ".ssh" / "authorized_keys")
        self.own(self.home)

    def own(self, path):
        """Give a folder and all that is in it to the account."""
        subprocess.run(["chown", "-R", f"{self.uid}:{self.gid}", str(path)], check=True)

    def remove(self):
        end_all_of(self.uid)
        wait_for(
            lambda: subprocess.run(["userdel", self.user], capture_output=True).returncode in (0, 6), 20, "userdel"
        )
        shutil.rmtree(self.folder, ignore_errors=True)


def end_all_of(uid):
    """End what an account runs: it was made for the tests, so that nothing else is ended."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                os.kill(int(name), signal.SIGKILL)


def remove_left_accounts():
    """Accounts of runs that were killed."""
    for account in pwd.getpwall():
        of = re.fullmatch(r"cht-guard-(\d+)", account.pw_name)
        if of and not os.path.exists(f"/proc/{of[1]}"):
            end_all_of(account.pw_uid)
            subprocess.run(["userdel", account.pw_name], check=False)
            shutil.rmtree(Path(account.pw_dir).parent, ignore_errors=True)


@functools.cache
def machine():
    made = Machine()
    atexit.register(made.remove)
    return made


class Loaded:
    """A process that has loaded programs (loaded.py), and the processes that it forks."""

    def __init__(self, python, name, programs, account=None):
        of = machine()
        self.socket = str(of.folder / name / "socket")
        Path(self.socket).parent.mkdir()
        if account is not None:
            of.own(Path(self.socket).parent)
            account = {"user": account.uid, "group": account.gid, "extra_groups": []}
        self.log = open(of.folder / name / "log", "wb")  # noqa: SIM115
        command = [str(python), "-I", str(of.programs / "loaded.py"), self.socket, str(of.programs), *programs]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd="/", **(account or {})
        )
        if self.process.stdout.readline() != b"ready\n":
            raise AssertionError((of.folder / name / "log").read_text())
        atexit.register(self.process.kill)

    def start(self, program, words, files, environment=None, directory="/", **settings):
        return Forked(self.socket, request(program, words, environment, directory, settings), files)

    def run(self, program, *words, environment=None, directory="/", input_file=None):
        """Run a program to its end: exit code, output, errors."""
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull, "rb"))
            output, errors = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            files = [input_file or nothing, output, errors]
            forked = self.start(program, [str(word) for word in words], files, environment, str(directory))
            code = forked.wait()
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))
        return Done(code, *texts)


def request(program, words, environment, directory, settings):
    return {
        "program": program,
        "words": words,
        "environment": environment or {},
        "directory": directory,
        "set": settings,
    }


@dataclasses.dataclass
class Done:
    code: int
    output: str
    errors: str


class Forked:
    """A process that loaded.py has forked."""

    def __init__(self, path, asked, files):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        numbers = [file if isinstance(file, int) else file.fileno() for file in files]
        socket.send_fds(self.connection, [json.dumps(asked).encode() + b"\n"], numbers)
        self.words = self.connection.makefile("r")
        self.pid = int(self.words.readline())
        self.code = None

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds=LIMIT):
        if self.code is None:
            ready, _, _ = select.select([self.connection], [], [], seconds)
            if not ready:
                raise AssertionError(f"a program didn't end within {seconds} s")
            self.code = int(self.words.readline())
            self.words.close()
            self.connection.close()
        return self.code


# ---- sessions by hand -------------------------------------------------------------------------------------


class Ended(Exception):
    """The server has ended the session."""


class Refused(Exception):
    """The server has answered with an error."""

    def __init__(self, kind, text):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


NEGOTIATE = {"client_data": {"client_version": (1, 4, 0, 0, 0), "sysinfo": {}}}


class Session:
    """A session that is bound to nothing that borg's own client keeps to. A call is a map of its number (`i`), its name
    (`m`) and its arguments (`a`), an answer one of the number and either a result (`r`) or an exception."""

    def __init__(self, process, to_server, from_server, errors):
        self.process, self.errors = process, errors
        self.to_server, self.from_server = to_server, from_server
        self.unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=1 << 28, use_list=False)
        self.calls = 0

    def write(self, data):
        """Bytes as they are."""
        view = memoryview(data)
        deadline = time.monotonic() + LIMIT
        while view:
            _, ready, _ = select.select([], [self.to_server], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError("the server reads no more")
            try:
                view = view[os.write(self.to_server, view[: 1 << 15]) :]
            except BrokenPipeError:
                raise Ended(self.said()) from None

    def packed(self, method, arguments, form=None):
        """A call as bytes."""
        self.calls += 1
        # Texts and bytes are one type, as borg has it: its server compares names that are bytes.
        packer = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape")
        return packer.pack(form if form is not None else {"i": self.calls, "m": method, "a": arguments})

    def send(self, method, arguments, form=None):
        self.write(self.packed(method, arguments, form))

    def answer(self, seconds=LIMIT):
        """The next answer; raises Refused or Ended. None where there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            for answer in self.unpacker:
                if not isinstance(answer, dict):
                    return answer
                if b"exception_class" in answer:
                    short = b"".join(answer.get(b"exception_short") or ()).decode("utf-8", "replace")
                    raise Refused(answer[b"exception_class"].decode(), short)
                return answer[b"r"]
            ready, _, _ = select.select([self.from_server], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                return None
            data = os.read(self.from_server, 1 << 20)
            if not data:
                raise Ended(self.said())
            self.unpacker.feed(data)

    def call(self, method, **arguments):
        self.send(method, arguments)
        return self.answer()

    def negotiate(self):
        return self.call("negotiate", **NEGOTIATE)

    def said(self):
        """What the server wrote to standard error so far."""
        if not self.errors.closed:
            self.errors.seek(0)
            self.text = self.errors.read().decode("utf-8", "replace")
        return self.text

    def close(self, seconds=LIMIT):
        """Say that nothing more comes, and wait until the server has ended: its exit code."""
        if self.to_server is not None:
            os.close(self.to_server)
            self.to_server = None
        code = self.process.wait(seconds)
        if self.from_server is not None:
            os.close(self.from_server)
            self.from_server = None
            self.said()
            self.errors.close()
        return code

    def kill(self):
        """The server's program alone, as a power cut does."""
        self.process.kill()
        self.close()


# ---- a deployment -----------------------------------------------------------------------------------------

ARCHIVES = 3
PASSPHRASE = "correct horse"


class Deployment:
    """A repository of one borg, with three archives in it, a client, and the programs around it. `guarded` and `sealed`
    say which of the two layers are there."""

    def __init__(self, version):
        of = machine()
        self.version = version
        self.python = bring(version)
        self.folder = of.folder / f"deployment-{version}"
        self.live = self.folder / "live"
        self.repository, self.state = self.live / "server" / "repository", self.live / "state"
        self.base, self.source = self.live / "client", self.live / "source"
        self.settings_file = self.folder / "repository.json"
        self.folder.mkdir()
        self.sealing, self.sealer = threading.Lock(), None
        self.sshd = None
        self.guarded = self.sealed = True
        self.operator = self.live / "operator"
        """Where borg as the account keeps what it knows."""
        for folder in (self.repository, self.state, self.base, self.source, self.operator):
            folder.mkdir(parents=True)
        of.own(self.repository)
        of.own(self.operator)
        self.as_account = Loaded(self.python, f"account-{version}", ["guard", "borg"], of)
        self.as_root = Loaded(self.python, f"root-{version}", ["borg", "seal", "audit", "read_all"])
        self.set()
        self.archives, self.kept = {}, {}
        self.location = f"ssh://offsite{self.repository}"
        threading.Thread(target=self._seal_what_comes, daemon=True).start()
        self.begin()
        self.save()

    def begin(self):
        self.borg("init", "--encryption", "repokey-blake2", self.location)
        # Small segments, so that there are many; the operator's own setting, made on the server.
        config = self.repository / "config"
        config.write_text(re.sub(r"max_segment_size = \d+", "max_segment_size = 100000", config.read_text()))
        for number in range(ARCHIVES):
            self.backup(f"archive-{number}")
        self.audit()

    def set(self, **changes):
        of = machine()
        self.settings = {
            "deployment": "moh",
            "user": of.user,
            "repository": str(self.repository),
            "state": str(self.state),
            "spool": f"{self.state}/spool",
            "nonce": f"{self.state}/nonce",
            "sealer": 0 if self.sealed else of.uid,
            "sealWait": 20,
            "commitsPerDay": 100000,
            "sessionDays": 1,
            "idleHours": 1,
            **changes,
        }
        self.settings_file.write_text(json.dumps(self.settings))

    # ---- the state of everything, kept and put back -------------------------------------------------------

    def save(self, name="three"):
        self.settle()
        self.kept[name] = dict(self.archives)
        subprocess.run(["rm", "-rf", f"{self.folder}/{name}"], check=True)
        subprocess.run(["cp", "-a", str(self.live), f"{self.folder}/{name}"], check=True)

    def reset(self, guarded=True, sealed=True, name="three"):
        """Back to the three archives, or what else was saved. Without seals everything is the account's, as borg makes
        it."""
        with self.sealing:
            self.guarded, self.sealed = guarded, sealed
            subprocess.run(["rm", "-rf", str(self.live)], check=True)
            subprocess.run(["cp", "-a", f"{self.folder}/{name}", str(self.live)], check=True)
            self.archives = dict(self.kept[name])
            self.set()
            if not sealed:
                self.program("seal", "open")
                (self.state / "open").unlink()  # nobody waits for an end of it
        self.mark()

    def mark(self, settled=False):
        """Remember every finished segment, none of which may ever change from here on."""
        if not settled:
            self.settle()
        self.segments = self.hashes()
        self.log = self.replay()

    # ---- seals and audit ----------------------------------------------------------------------------------

    def program(self, name, action, *words):
        done = self.as_root.run(name, action, self.settings_file, *words)
        return done

    def _seal_what_comes(self):
        """In the place of systemd's path unit: seals when borg has finished a transaction, or the guard waits."""
        before = None
        while True:
            with contextlib.suppress(FileNotFoundError), self.sealing:
                of = os.stat(self.repository / "transactions")
                now = (of.st_ino, of.st_size, of.st_mtime_ns)
                waits = os.path.exists(f"{self.state}/spool/seal")
                if self.sealed and (now != before or waits):
                    self.program("seal", "seal")
                    before = now
            time.sleep(0.02)

    @contextlib.contextmanager
    def opened_by_operator(self):
        """For maintenance: nothing seals meanwhile, and all is sealed after it."""
        with self.sealing:
            for action in ("open", "close"):
                done = self.program("seal", action)
                if done.code != 0:
                    raise AssertionError(done.errors)
                if action == "open":
                    yield

    def settle(self):
        """Until all that is finished is sealed."""
        if self.sealed:
            with self.sealing:
                done = self.program("seal", "seal")
            if done.code != 0:
                raise AssertionError(done.errors)

    def audit(self):
        """What the audit has found up to now, one text for each kind."""
        self.settle()
        self.program("audit", "audit")
        return json.loads((self.state / "last-audit.json").read_text())["problems"]

    def approve(self, because="tests"):
        done = self.program("audit", "approve", "--because", because)
        if done.code != 0:
            raise AssertionError(done.errors)

    def ledger(self):
        """Ids of the archives that are there, as root knows them without the key."""
        return [of["id"] for of in json.loads((self.state / "ledger.json").read_text()) if of["gone"] is None]

    # ---- the client ---------------------------------------------------------------------------------------

    def environment(self, base=None, over_sshd=False):
        rsh = f"ssh -F {self.ssh_config()}" if over_sshd else f"{self.python} -ISB {machine().programs}/relay.py"
        serve = request("guard", [str(self.settings_file)], None, "/", {})
        if not self.guarded:
            serve = request("borg", self.bare_serve(), None, "/", {})
        return {
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_RSH": rsh,
            "BORG_BASE_DIR": str(base or self.base),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
            "BORG_SELFTEST": "disabled",
            "BORG_HOSTNAME_IS_UNIQUE": "yes",
            "RELAY": json.dumps({"socket": self.as_account.socket, **serve}),
        }

    def bare_serve(self):
        return ["serve", "--append-only", "--restrict-to-repository", str(self.repository)]

    def borg(self, *words, check=True, base=None, over_sshd=False, directory=None, environment=None, user=None):
        """The client's borg, or with `user` the server's own, as the account."""
        loaded = self.as_account if user == "account" else self.as_root
        variables = {**self.environment(base, over_sshd), **(environment or {})}
        done = loaded.run(
            "borg", "--lock-wait", "20", *words, environment=variables, directory=directory or self.source
        )
        if check and done.code != 0:
            raise AssertionError(f"borg {' '.join(map(str, words))}: exit code {done.code}\n{done.errors}")
        return done

    def backup(self, name, over_sshd=False, base=None, size=250_000, more=()):
        """An honest backup, which must work: of files, some of which are new. `more` options for borg."""
        for old in list(self.source.iterdir())[:-3]:
            old.unlink()
        for number in range(2):
            (self.source / f"{name}-{number}").write_bytes(os.urandom(size // 2))
        self.borg("create", *CREATE, *more, f"{self.location}::{name}", ".", over_sshd=over_sshd, base=base)
        self.archives[name] = contents(self.source)

    def empty(self):
        """Take all of it away, for a repository of the test's own, without seals."""
        with self.sealing:
            self.sealed = False
            for folder in (self.repository, self.state, self.operator, self.source):
                shutil.rmtree(folder)
                folder.mkdir()
        machine().own(self.repository)
        machine().own(self.operator)

    def list(self, **options):
        return self.borg("list", "--short", self.location, **options).output.split()

    def extract(self, name, **options):
        with tempfile.TemporaryDirectory(prefix="cht-backup-guard-") as folder:
            done = self.borg("extract", f"{self.location}::{name}", directory=folder, check=False, **options)
            return contents(Path(folder)), done

    def read(self, **options):
        """What each archive that the client sees holds, read in one session."""
        done = self.as_root.run("read_all", self.location, environment=self.environment(**options))
        if done.code != 0:
            raise AssertionError(done.errors)
        return json.loads(done.output)

    # ---- sessions by hand ---------------------------------------------------------------------------------

    def session(self, over_sshd=False, negotiate=True, **settings):
        """A session with the guard, or where it is taken away with bare `borg serve`."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        if over_sshd:
            command = ["ssh", "-F", str(self.ssh_config()), "offsite", "borg serve"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            made = Session(process, os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno()), errors)
            process.stdin.close()
            process.stdout.close()
        else:
            here, there = os.pipe()
            theirs, ours = os.pipe()
            program, words = ("guard", [str(self.settings_file)]) if self.guarded else ("borg", self.bare_serve())
            process = self.as_account.start(program, words, [here, ours, errors], **settings)
            os.close(here)
            os.close(ours)
            made = Session(process, there, theirs, errors)
        if negotiate:
            made.negotiate()
        return made

    def opened(self, exclusive=True, **options):
        """A session that has opened the repository."""
        made = self.session(**options)
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                # borg looks for the lock ten times in the time that it waits.
                made.call("open", path=str(self.repository), lock=True, lock_wait=5, exclusive=exclusive)
                return made
            except Refused as refused:
                if refused.kind != "LockTimeout" or time.monotonic() > deadline:
                    raise

    def ssh_config(self, more=""):
        """The client's way over sshd, whose forced command is the guard, or bare `borg serve` where that is taken away.
        `more` is further configuration of sshd."""
        if self.sshd is None:
            self.sshd = Sshd(self.folder, self.settings_file, self.python)
        self.sshd.serve(
            f"{self.python} -I {machine().programs}/chtbackup guard {self.settings_file}"
            if self.guarded
            else f"{self.python} -I -m borg {' '.join(self.bare_serve())}",
            more,
        )
        return self.sshd.config

    # ---- what must hold -----------------------------------------------------------------------------------

    def finished(self):
        """Paths of the segments that are finished, by their numbers. One that a killed session has finished is sealed
        when the next one has written borg's index for it."""
        there = segment_log.segments(str(self.repository))
        newest = next((number for number in reversed(there) if segment_log.is_committed(there[number])), -1)
        return {number: path for number, path in there.items() if number <= newest}

    def hashes(self):
        return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.finished().values()}

    def replay(self):
        """Where the log says that each object is, by its id: the number of its segment and its place there."""
        found = {}
        for number, path in self.finished().items():
            for place, entry in enumerate(segment_log.entries(path)):
                if entry.tag == segment_log.PUT:
                    found[entry.id] = (number, place)
                elif entry.tag == segment_log.DELETE:
                    found.pop(entry.id, None)
        found.pop(MANIFEST, None)
        return found

    def lost_segments(self):
        """Which segments of `mark` aren't there any more as they were."""
        with contextlib.suppress(AssertionError):  # a repository that was torn apart can't be sealed
            self.settle()
        now = self.hashes()
        return [path for path, digest in self.segments.items() if now.get(path) != digest]

    def lost(self):
        """What of `mark` isn't there any more as it was: segments, or objects by the log. Empty where all is."""
        lost = self.lost_segments()
        log = self.replay()
        return lost + [id.hex() for id, place in self.log.items() if log.get(id) != place]

    def roll_back(self):
        """What docs/restore.md has an operator do after a false manifest: the repository as it was at `mark`."""
        newest = max(int(os.path.basename(path)) for path in self.segments)
        with self.sealing:
            for number, path in segment_log.segments(str(self.repository)).items():
                if number > newest:
                    os.remove(path)
            for path in self.repository.iterdir():
                if path.name.split(".")[0] in ("index", "hints", "integrity"):
                    path.unlink()


CREATE = ["--chunker-params", "12,16,14,4095", "--compression", "none"]


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def bring(version):
    """Copy a borg to where the account can run it: the user's cache is closed to it. Returns its Python."""
    there, here = Path(ENVIRONMENTS[version]), machine().folder / f"borg-{version}"
    for path in there.glob("lib/python3*/site-packages/*"):
        if re.match(r"(borg|msgpack|packaging)", path.name):
            shutil.copytree(path, here / path.relative_to(there))
    (here / "bin").mkdir()
    (here / "bin" / "python").symlink_to("/usr/bin/python3")
    shutil.copy(there / "pyvenv.cfg", here)
    # As the server's own programs start it, which look for it beside their package, before the machine's.
    program = here / "bin" / "borg"
    program.write_text(f'#!/bin/sh\nexec {here}/bin/python -I -m borg "$@"\n')
    program.chmod(0o755)
    beside = machine().programs / "borg" / "bin"
    beside.mkdir(parents=True, exist_ok=True)
    (beside / "borg").unlink(missing_ok=True)
    (beside / "borg").symlink_to(program)
    return here / "bin" / "python"


class Sshd:
    """OpenSSH's server on a port of its own, with the product's limits for the account, and the forced command."""

    def __init__(self, folder, settings_file, python):
        of = machine()
        self.folder = folder / "sshd"
        self.folder.mkdir()
        self.process, self.command = None, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.config = self.folder / "ssh_config"
        key = (of.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")
        self.config.write_text(
            f"Host offsite\n HostName 127.0.0.1\n Port {self.port}\n User {of.user}\n IdentityFile {of.folder}/client\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {self.folder}/known_hosts\n BatchMode yes\n LogLevel ERROR\n"
        )

    def serve(self, command, more=""):
        if (command, more) == self.command:
            return
        self.stop()
        of = machine()
        match = (HOSTS / "server" / "sshd.conf").read_text()
        for name, value in {"DEPLOYMENT": "moh", "SERVER_USER": of.user, "SERVE_COMMAND": command}.items():
            match = match.replace(f"@{name}@", value)
        text = (
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {of.folder}/host\nPidFile none\nMaxStartups 200\n"
            f"LogLevel INFO\nUsePAM no\nSubsystem sftp internal-sftp\nStrictModes no\n{more}\n{match}"
        )
        (self.folder / "sshd_config").write_text(text)
        os.makedirs("/run/sshd", exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            sshd = ["setpriv", "--pdeathsig", "TERM"]  # it ends with the tests, however those end
            sshd += ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(sshd, stdout=log, stderr=log)
        atexit.register(self.stop)
        wait_for(self._listens, 20, "the start of sshd")
        self.command = (command, more)

    def _listens(self):
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        # Refused before it listens; reset while it starts.
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.port)):
            return True

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = self.command = None


# ---- tests ------------------------------------------------------------------------------------------------


@functools.cache
def deployment(version):
    return Deployment(version)


def with_each_borg(case, versions=None):
    """Makes of a class of tests one for each borg, or each of these, with `self.made` as that borg's deployment."""
    module = sys.modules[case.__module__]
    for version in ENVIRONMENTS:
        if versions is not None and version not in versions:
            continue
        name = f"{case.__name__}_{version.replace('.', '_')}"
        made = type(name, (case, unittest.TestCase), {"version": version, "__module__": case.__module__})
        setattr(module, name, made)
    return case


def with_newest_borg(case):
    """For what takes long, and is borg's own work on the server."""
    return with_each_borg(case, list(ENVIRONMENTS)[-1:])


class Case:
    """What every class of tests here has."""

    guarded = sealed = True

    def setUp(self):
        self.made = deployment(self.version)
        self.made.reset(self.guarded, self.sealed)

    def holds(self, alarm=None, over_sshd=False):
        """Every earlier archive extracts byte for byte, the next honest backup works, and the audit has found what it
        should: a pattern, or nothing."""
        made = self.made
        self.assertEqual(made.lost(), [])
        if made.sealed:
            self.assertEqual(json.loads(made.program("seal", "look").output)["unsealed"], "")
        found = made.audit()
        if alarm is None:
            self.assertEqual(found, [])
        else:
            self.assertRegex("\n".join(found), alarm)
        made.backup("next", over_sshd=over_sshd)
        read = made.read(over_sshd=over_sshd)
        self.assertEqual({name: read.get(name) for name in made.archives}, made.archives)

    def extract_all(self, **options):
        """The same with `borg extract` itself."""
        for name, expected in self.made.archives.items():
            found, done = self.made.extract(name, **options)
            self.assertEqual(done.code, 0, done.errors)
            self.assertEqual(found, expected, name)

    def refused(self, action, *arguments, **named):
        """What the server said when it refused."""
        with self.assertRaises(Refused) as caught:
            action(*arguments, **named)
        return caught.exception.text
