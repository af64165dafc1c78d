"""What the tests of the bucket copy share: a real S3 server with versioning, object lock and policies (SeaweedFS), a
proxy that counts requests and gets in their way, and a deployment with a real borg repository."""

import contextlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / "hosts"
sys.path.insert(0, str(HOSTS))
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

import boto3  # noqa: E402
import botocore.config  # noqa: E402

KEEP_DAYS, LOCK_DAYS = 20, 30
PREFIX = "moh/"
PYTHON = {"python": sys.base_prefix, "packages": sys.prefix}
KEYS = {name: (name.upper(), f"{name}-secret") for name in ("admin", "writer", "reader", "deleter", "intruder")}


PATIENCE = 3  # how often as long anything may take beside two labs


def wait_for(condition, seconds=60, what="it"):
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} didn't happen within {seconds} s")
        time.sleep(0.02)
    return found


def free_ports(count):
    """So many ports that are free, and those 10,000 above them as well, which SeaweedFS takes, too."""
    ports = []
    with contextlib.ExitStack() as held:

        def hold(port):
            of = held.enter_context(socket.socket())
            of.bind(("127.0.0.1", port))
            return of.getsockname()[1]

        while len(ports) < count:
            port = hold(0)
            # OverflowError: there is no such port.
            with contextlib.suppress(OSError, OverflowError):
                hold(port + 10000)
                ports.append(port)
    return ports


def policy(name):
    text = (ROOT / "components" / f"bucket-{name}-policy.json").read_text()
    values = {"BUCKET_ARN": "arn:aws:s3:::copy-*", "PREFIX": PREFIX, "LONGEST_LOCK_DAYS": str(LOCK_DAYS + 1)}
    for placeholder, value in values.items():
        text = text.replace(f"@{placeholder}@", value)
    return text


class Store:
    """SeaweedFS with an administrator, the writer, reader and deleter as the policies have them, and an intruder who
    may do everything that locks allow. `policies` are other ones than those, by name, as JSON; `options` further ones
    of SeaweedFS."""

    def __init__(self, policies=None, options=()):
        self.folder = tempfile.mkdtemp(prefix="cht-backup-store-")
        s3, master, volume, filer = free_ports(4)
        self.port = s3
        identities = [
            {"name": "admin", "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
            {"name": "writer", "policyNames": ["writer"]},
            {"name": "reader", "policyNames": ["reader"]},
            {"name": "deleter", "policyNames": ["deleter"]},
            {"name": "intruder", "policyNames": ["intruder"]},
        ]
        for of in identities:
            of["credentials"] = [dict(zip(("accessKey", "secretKey"), KEYS[of["name"]], strict=True))]
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        anything = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        policies = {**{name: policy(name) for name in ("writer", "reader", "deleter")}, **(policies or {})}
        policies["intruder"] = anything
        configuration = {
            "identities": identities,
            "policies": [{"name": name, "content": text} for name, text in policies.items()],
        }
        Path(self.folder, "s3.json").write_text(json.dumps(configuration))
        os.mkdir(f"{self.folder}/data")
        self.log = open(f"{self.folder}/log", "w")
        weed = shutil.which("weed") or os.path.join(os.path.dirname(sys.executable), "weed")
        self.process = subprocess.Popen(
            [weed, "server", f"-dir={self.folder}/data", "-s3", f"-s3.port={s3}", f"-master.port={master}",
             f"-volume.port={volume}", f"-filer.port={filer}", "-master.volumeSizeLimitMB=64", "-volume.max=2000",
             "-ip=127.0.0.1", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.folder}/s3.json", *options],
            stdout=self.log, stderr=subprocess.STDOUT, cwd=self.folder,
        )  # fmt: skip
        self.admin = self.client("admin", f"http://127.0.0.1:{s3}")
        try:
            wait_for(self._answers, 60, "the start of SeaweedFS")
        except BaseException:
            self.stop()
            raise

    def _answers(self):
        # It answers before it can store; a bucket that was made shows that it can.
        if self.process.poll() is not None:
            raise AssertionError(f"SeaweedFS ended: {Path(self.folder, 'log').read_text()[-2000:]}")
        with contextlib.suppress(Exception):
            self.admin.create_bucket(Bucket="copy-ready")
            self.admin.put_object(Bucket="copy-ready", Key="x", Body=b"x")
            return True

    def client(self, name, endpoint=None):
        key, secret = KEYS[name]
        return boto3.client(
            "s3", endpoint_url=endpoint or f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id=key, aws_secret_access_key=secret,
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, request_checksum_calculation="when_required",
                retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30,
            ),
        )  # fmt: skip

    def make_bucket(self, name, lock=True, default=LOCK_DAYS, mode="COMPLIANCE"):
        self.admin.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        if lock and default:
            rule = {"DefaultRetention": {"Mode": mode, "Days": default}}
            configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
            self.admin.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=configuration)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Proxy:
    """Stands between the programs and the store. `answer` may return (status, S3's code) for a request that has come
    whole, or keep it waiting; `change` makes other headers and another content of an answer, `cut` may return after how
    many bytes of one the connection breaks; while `down`, connections are cut; `requests` holds (method, path) of
    everything that came."""

    def __init__(self, port):
        self.requests = []
        self.sent = 0
        self.answer = lambda method, path: None
        self.change = lambda headers, content: (headers, content)
        self.cut = lambda method, path: None
        self.down = False
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                length = int(self.headers.get("Content-Length") or 0)
                if proxy.down:
                    self.close_connection = True
                    self.connection.close()
                    return
                proxy.requests.append((self.command, self.path))
                body = self.rfile.read(length)
                if proxy.down:
                    self.close_connection = True
                    self.connection.close()
                    return
                refused = proxy.answer(self.command, self.path)
                if refused is not None:
                    status, code = refused
                    text = f"<Error><Code>{code}</Code><Message>{code}, please</Message></Error>".encode()
                    self.reply(status, [("Content-Type", "application/xml")], text)
                    return
                proxy.sent += length
                there = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        there.putheader(name, value)
                there.endheaders(body)
                answer = there.getresponse()
                headers, content = proxy.change(answer.getheaders(), answer.read())
                self.reply(answer.status, headers, content, answer.getheader("Content-Length"))
                there.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

            def reply(self, status, headers, content, length=None):
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                head = self.command == "HEAD"
                self.send_header("Content-Length", length if head and length else str(len(content)))
                self.end_headers()
                cut = None if head else proxy.cut(self.command, self.path)
                if cut is not None:
                    self.wfile.write(content[:cut])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif not head:
                    self.wfile.write(content)

            def log_message(self, *_arguments):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments):
                pass  # connections that are cut are what this is for

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Run:
    """A program that has ended."""

    def __init__(self, code, output, errors, report):
        self.code, self.output, self.errors, self.report = code, output, errors, report

    def __repr__(self):
        return f"exit code {self.code}\n{self.output}\n{self.errors}"


class Deployment:
    """A borg repository with a client that may only append, and the programs' settings for a bucket. With an
    `account` (a number), borg and the copy run as that user, whose the repository is."""

    def __init__(self, store, bucket, endpoint=None, repository=None, account=None):
        self.store, self.bucket, self.account = store, bucket, account
        self.programs = HOSTS / "chtbackup"
        self.folder = Path(tempfile.mkdtemp(prefix="cht-backup-copy-"))
        self.home = Path(repository).parent if repository else self.folder / "home"
        self.repository = self.home / "repository"
        self.state, self.snapshot = self.folder / "state", self.home / "snapshot"
        self.source = self.folder / "source"
        for folder in (self.repository, self.state, self.snapshot, self.source):
            folder.mkdir(parents=True)
        credentials = self.folder / "credentials"
        key, secret = KEYS["writer"]
        credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        self.settings = {
            "deployment": "moh",
            "repository": str(self.repository),
            "snapshot": str(self.snapshot),
            "state": str(self.state),
            "endpoint": endpoint or f"http://127.0.0.1:{store.port}",
            "region": "us-east-1",
            "bucket": bucket,
            "prefix": PREFIX,
            "pathStyle": True,
            "credentials": str(credentials),
            "mode": "COMPLIANCE",
            "keepDays": KEEP_DAYS,
            "lockDays": LOCK_DAYS,
            "lockWait": 5,
            "leastInterval": 0,
            "maxAge": 48,
            "uploadRate": 0,
            "storageClass": None,
            "readBack": 3,
        }
        self.set()
        # The forced command of the CHT machine's key, with a pipe in place of ssh.
        rsh = self.folder / "rsh"
        rsh.write_text(f"#!/bin/sh\nexec borg serve --append-only --restrict-to-repository {self.repository}\n")
        rsh.chmod(0o755)
        self.location = f"ssh://offsite{self.repository}"
        self.environment = {
            **os.environ,
            "BORG_PASSPHRASE": "correct horse",
            "BORG_RSH": str(rsh),
            "BORG_BASE_DIR": str(self.folder / "client"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "LOGNAME": "tester",  # what an account is called that only has a number
        }
        if account is not None:
            self.hand_over()
        self.borg("init", "--encryption", "repokey-blake2", self.location)
        # Small segments, so that there are many: the tests' backups are small.
        self.borg("config", self.repository, "max_segment_size", "2000000")

    def hand_over(self):
        """Give everything to the account, and the copy's programs a place where it may read them."""
        self.programs = self.folder / "chtbackup"
        shutil.copytree(HOSTS / "chtbackup", self.programs)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, self.account, self.account)

    def seal(self):
        """Give root what is committed, as the server does: the account can add to it, and change or remove nothing."""
        committed = max(int(of.suffix[1:]) for of in self.repository.glob("index.*"))
        for of in self.repository.glob("data/*/*"):
            if int(of.name) <= committed:
                os.chown(of, 0, self.account)
                of.chmod(0o440)
        for of in (self.repository, self.repository / "data", *self.repository.glob("data/*")):
            os.chown(of, 0, self.account)
            of.chmod(0o1770)
        os.chown(self.repository / "config", 0, self.account)
        (self.repository / "config").chmod(0o640)

    def _as_account(self, command):
        """A command that runs another one as the account. Its Python may lie in root's home, where nobody else may
        look, so the account sees another home, in a mount namespace of its own, with nothing but that."""
        if self.account is None:
            return command
        home = Path.home().resolve()
        of = {str(Path(prefix).resolve()): self.folder / name for name, prefix in PYTHON.items()}
        inside = {prefix: folder for prefix, folder in of.items() if Path(prefix).is_relative_to(home)}
        lines = ["set -e"]
        lines += [f"mkdir -p {folder}; mount --bind {prefix} {folder}" for prefix, folder in inside.items()]
        lines += [f"mount -t tmpfs -o mode=0755 tmpfs {home}"] if inside else []
        lines += [f"mkdir -p {prefix}; mount --bind {folder} {prefix}" for prefix, folder in inside.items()]
        lines += [f'exec setpriv --reuid {self.account} --regid {self.account} --clear-groups "$@"']
        return ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh", *command]

    def set(self, **settings):
        self.settings |= settings
        self.file = self.folder / "bucket.json"
        self.file.write_text(json.dumps(self.settings))

    def borg(self, *words, cwd=None, check=True):
        command = ["borg", "--lock-wait", "20", *map(str, words)]
        done = subprocess.run(self._as_account(command), env=self.environment, cwd=cwd, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stderr}")
        return done

    def backup(self, name, megabytes=6):
        """Store some random files, which are also the content that a restore must have."""
        self.source.joinpath(name).write_bytes(os.urandom(int(megabytes * 1e6)))
        self.borg("create", f"{self.location}::{name}", ".", cwd=self.source)
        return {path.name: path.read_bytes() for path in self.source.iterdir()}

    def start(self, action="copy", *words, by=()):
        """Start a program; `by` is a script that runs it, with its words."""
        command = [sys.executable, *map(str, by), str(self.programs), "bucket", action, str(self.file), *words]
        return subprocess.Popen(
            self._as_account(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )

    def finish(self, process, action="copy"):
        output, errors = process.communicate(timeout=600)
        report = None
        with contextlib.suppress(OSError):
            report = json.loads((self.state / f"last-{action}.json").read_text())
        return Run(process.returncode, output, errors, report)

    def run(self, action="copy", *words):
        return self.finish(self.start(action, *words), action)

    def copies(self):
        """What `fetch list` says, the oldest first."""
        done = self.fetch("list")
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()][::-1]

    def fetch(self, action, directory=None, endpoint=None, **asked):
        key, secret = KEYS["reader"]
        place = {name: self.settings[name] for name in ("bucket", "prefix", "region", "pathStyle")}
        request = {**place, "endpoint": endpoint or f"http://127.0.0.1:{self.store.port}", **asked}
        request |= {"accessKeyId": key, "secretAccessKey": secret}
        command = [sys.executable, str(HOSTS / "chtbackup"), "fetch", action, *([directory] if directory else [])]
        text = json.dumps(request) + "\n"
        return subprocess.run(command, input=text, capture_output=True, text=True)

    def restore(self, archive, **asked):
        """Fetch a copy, and extract an archive from it with borg: the content of the files by name."""
        with tempfile.TemporaryDirectory(prefix="cht-backup-fetched-") as folder:
            fetched = self.fetch("fetch", f"{folder}/repository", **asked)
            if fetched.returncode != 0:
                raise AssertionError(f"{asked}: {fetched.stdout}{fetched.stderr}")
            os.mkdir(f"{folder}/files")
            self.environment["BORG_BASE_DIR"], kept = f"{folder}/borg", self.environment["BORG_BASE_DIR"]
            try:
                self.borg("check", f"{folder}/repository")
                self.borg("extract", f"{folder}/repository::{archive}", cwd=f"{folder}/files")
            finally:
                self.environment["BORG_BASE_DIR"] = kept
            return {path.name: path.read_bytes() for path in Path(folder, "files").iterdir()}

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def kill(process):
    """As the kernel does when memory is short: the program alone, without warning."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
