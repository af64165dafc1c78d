"""What the tests of the policies share: the documents as components/aws-policies.ts makes them, SeaweedFS, moto's
server, and an instance's metadata service. Everything runs in a network of its own, where the metadata service has the
address that programs ask: 169.254.169.254."""

import ctypes
import datetime
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METADATA = "169.254.169.254"


def own_network():
    """Leave the computer's network for an empty one. Needs no rights: without them, in a namespace of its own."""
    new_user, new_net = 0x10000000, 0x40000000
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(new_net) != 0:
        if libc.unshare(new_user | new_net) != 0:
            raise OSError(ctypes.get_errno(), "no network namespace can be made; run the tests as root")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    for words in ("link set lo up", f"address add {METADATA}/32 dev lo"):
        subprocess.run(["ip", *words.split()], check=True)


own_network()
sys.path.insert(0, str(ROOT / "test" / "bucket"))

import boto3  # noqa: E402
import botocore.config  # noqa: E402

import parts  # noqa: E402


def documents(**asked):
    """The results of functions of components/aws-policies.ts, by name; given their arguments."""
    command = ["node", "--require", "tsx/cjs", "test/policies/render.ts"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


class StoreWithTls(parts.Store):
    """SeaweedFS, which is reached with TLS, too, at `secure`."""

    def __init__(self, policies):
        self.certificate = tempfile.mkdtemp(prefix="cht-backup-certificate-")
        certificate, key = (f"{self.certificate}/{name}.pem" for name in ("certificate", "key"))
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        os.environ["AWS_CA_BUNDLE"] = certificate
        (port,) = parts.free_ports(1)
        self.secure = f"https://127.0.0.1:{port}"
        super().__init__(policies, [f"-s3.port.https={port}", f"-s3.cert.file={certificate}", f"-s3.key.file={key}"])

    def stop(self):
        super().stop()
        shutil.rmtree(self.certificate)


class Moto:
    """moto's server. Users, roles and buckets are made before `enforce`."""

    def __init__(self):
        (port,) = parts.free_ports(1)
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        parts.wait_for(lambda: self.process.poll() is not None or self._answers(), 60, "the start of moto")

    def _answers(self):
        with parts.contextlib.suppress(OSError):
            self.forget()
            return True

    def _post(self, path, body=""):
        connection = parts.http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, body, {"Content-Type": "text/plain"})
        return connection.getresponse().status

    def client(self, service, key=None):
        """A client with a key as IAM and STS return it. One without may do anything until `enforce`."""
        key = key or {"AccessKeyId": "nobody", "SecretAccessKey": "nobody"}
        return boto3.client(
            service, endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"],
            aws_session_token=key.get("SessionToken"),
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )  # fmt: skip

    def make_user(self, name, *policies):
        """A user with these rights, and its access key."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        for number, policy in enumerate(policies):
            text = json.dumps(policy)
            iam.put_user_policy(UserName=name, PolicyName=f"{name}-{number}", PolicyDocument=text)
        return iam.create_access_key(UserName=name)["AccessKey"]

    def make_role(self, name, trust, policy):
        """A role with these rights, and a key for some hours, such as an instance gets."""
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        return self.client("sts").assume_role(RoleArn=arn, RoleSessionName="i-0123456789")["Credentials"]

    def make_bucket(self, name, lock_days=None):
        """A bucket; `lock_days`: for how long it locks what is put into it."""
        s3 = self.client("s3")
        s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        block = dict.fromkeys(switches, True)
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
        if lock_days is not None:
            default = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": lock_days}}
            configuration = {"ObjectLockEnabled": "Enabled", "Rule": default}
            s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=configuration)

    def forget(self):
        """Begin anew, with nothing in it and no rights needed."""
        assert (self._post("/moto-api/reset-auth", "inf"), self._post("/moto-api/reset")) == (200, 200)

    def enforce(self):
        """From now on every request is answered as the policies say."""
        assert self._post("/moto-api/reset-auth", "0") == 200

    def stop(self):
        self.process.kill()
        self.process.wait()


class Metadata:
    """An instance's metadata service as it is with `http_tokens = required` (IMDSv2): who has no token gets nothing.
    `served` holds who was given the role's key (their User-Agent), `refused` counts requests without a token."""

    def __init__(self, key):
        self.served, self.refused = [], 0
        service = self
        expiration = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=6)
        answer = {
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key["AccessKeyId"],
            "SecretAccessKey": key["SecretAccessKey"], "Token": key["SessionToken"],
            "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"), "LastUpdated": "2026-11-22T03:00:00Z",
        }  # fmt: skip
        folder = "/latest/meta-data/iam/security-credentials/"

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                right = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                self.reply(*((200, "token", ttl) if right else (400, "")))

            def do_GET(self):
                if self.headers.get("X-aws-ec2-metadata-token") != "token":
                    service.refused += 1
                    self.reply(401, "")
                elif self.path == folder:
                    self.reply(200, "writer")
                elif self.path == f"{folder}writer":
                    service.served.append(self.headers.get("User-Agent", ""))
                    self.reply(200, json.dumps(answer))
                else:
                    self.reply(404, "")

            def reply(self, status, text, headers=None):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_arguments):
                pass

        self.server = http.server.ThreadingHTTPServer((METADATA, 80), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
