"""A deployment's year in some minutes: backups every four hours, a compaction a month, retention every week.

borg, the audit and retention are the real ones. Their time is made: borg's archives get it by `--timestamp`, the
server's ledger where the server itself keeps it, and retention sees a clock that is set ahead (`altered.py`). It begins
after today, as the counter for encryption, which follows the clock, may not be ahead of it.

The data are files as CouchDB writes them: each backup finds them grown by a tail, and each compaction writes them anew.
How fast, and how well it all compresses, is a `Churn`."""

import calendar
import contextlib
import datetime
import hashlib
import json
import math
import random
import re
import shutil
import sqlite3
import subprocess
import time
from dataclasses import dataclass, field

from parts import HERE, PASSPHRASE, contents, machine

HOUR, DAY = 3600, 86400
NEVER = 1 << 40
DEFAULT = {"within": 7, "daily": 14, "weekly": 6, "monthly": 4, "yearly": 2}
"""config/retention.ts; a unit test there looks whether it is."""
FILES = 4
CHUNK = 16384


@dataclass(frozen=True)
class Churn:
    """How the data change. Shares are of what they are after a compaction."""

    tails: float
    """What a day appends."""
    tails_stored: float
    """How much of that is left by compression."""
    stored: float = 0.56
    """How much of the data is left by compression: 15.1 of 26.9 MB, as measured."""
    anew: float = 0.91
    """What a compaction writes anew, as measured."""


MEASURED = Churn(tails=0.20, tails_stored=0.25)
"""The ten days of docs/measurements.md: 3 % of all documents new or edited a day. Their tails were 5.4 to 5.9 of 27 to
31 MB a day, and 1.3 to 1.6 MB by zstd. Compacted only once a month their files grow to seven times their size."""
BUSY = Churn(tails=0.01, tails_stored=0.56)
"""docs/costs.md."""


@dataclass
class Segment:
    """A file of the repository's log, which nothing ever changes."""

    size: int
    since: float
    until: float = NEVER

    def stays_in_bucket_until(self, keep: float = 30 * DAY, lock: float = 60 * DAY) -> float:
        """A model of the copy's: a version is locked when it comes, and again whenever a lock would end within `keep`;
        it may go when no copy of the last `keep` names it and its lock has ended."""
        if self.until == NEVER:
            return NEVER
        lengthened = math.floor((self.until - self.since) / (lock - keep)) * (lock - keep)
        return max(self.until + keep, self.since + lengthened + lock)


@dataclass
class Week:
    """How much there is after a week's retention."""

    data: int
    """Bytes of the data on their disk."""
    before: int
    """Bytes of the repository before retention."""
    after: int
    without: int
    """What it would have without any retention."""
    bucket: int
    """What a bucket would hold, by the model."""
    bucket_without: int
    archives: int


@dataclass
class Year:
    made: object
    churn: Churn
    size: int = 4_000_000
    """Bytes of the data after a compaction."""
    policy: dict = field(default_factory=lambda: dict(DEFAULT))
    every: int = 4 * HOUR
    seed: int = 1

    def __post_init__(self):
        self.random = random.Random(self.seed)
        today = datetime.datetime.now(datetime.timezone.utc)
        begin = datetime.datetime(today.year + (today.month >= 11), 11, 1)
        self.now = self.begin = calendar.timegm(begin.timetuple())
        self.taken, self.ids, self.held, self.removed = {}, {}, {}, set()
        self.weeks, self.segments, self.without = [], {}, 0
        self.digests = {}
        self._begin()

    def _begin(self):
        """An empty repository, of borg's own server: what the guard and the seals do is others' tests' matter."""
        made = self.made
        made.empty()
        # A key that is derived from the passphrase in one step in place of 100,000, as it is opened 3,000 times.
        weak = "import borg.archiver, borg.crypto.key as k; k.PBKDF2_ITERATIONS = 1; borg.archiver.main()"
        command = [made.python, "-c", weak, "init", "--encryption", "repokey-blake2", made.repository]
        account = {"user": machine().uid, "group": machine().gid, "extra_groups": []}
        subprocess.run(command, check=True, env=self.environment(), cwd="/", capture_output=True, **account)
        config = made.repository / "config"
        text = re.sub(r"append_only = 0", "append_only = 1", config.read_text())
        # As large beside the data as borg's 500 MB beside 20 GB.
        config.write_text(re.sub(r"max_segment_size = \d+", f"max_segment_size = {self.size // 40}", text))
        self.compact()

    def environment(self):
        base = {"BORG_BASE_DIR": str(self.made.operator), "BORG_PASSPHRASE": PASSPHRASE, "BORG_SELFTEST": "disabled"}
        return {**base, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "TZ": "UTC"}

    def borg(self, *words, directory=None):
        made = self.made
        done = made.as_account.run("borg", *words, environment=self.environment(), directory=directory or made.source)
        if done.code != 0:
            raise AssertionError(f"borg {words[0]}: exit code {done.code}\n{done.errors}")
        return done.output

    # ---- the data -----------------------------------------------------------------------------------------

    def bytes_of(self, size, stored):
        """Bytes of which compression leaves this share, block by block as CouchDB writes them."""
        made = bytearray()
        while len(made) < size:
            block = min(4096, size - len(made))
            kept = round(block * stored)
            made += self.random.randbytes(kept) + bytes(block - kept)
        return bytes(made)

    def append(self, share):
        size = round(self.size / FILES * share)
        for number in range(FILES):
            self._write(number, "ab", self.bytes_of(size, self.churn.tails_stored))

    def compact(self):
        """Each file keeps its beginning, and all else is new."""
        size = self.size // FILES
        for number in range(FILES):
            path = self.made.source / f"shard-{number}.couch"
            kept = round(size * (1 - self.churn.anew)) if path.exists() else 0
            begin = path.read_bytes()[:kept] if kept else b""
            self._write(number, "wb", begin + self.bytes_of(size - kept, self.churn.stored))

    def _write(self, number, mode, data):
        path = self.made.source / f"shard-{number}.couch"
        with open(path, mode) as file:
            file.write(data)
        digest = hashlib.sha256() if mode == "wb" else self.digests[path.name]
        digest.update(data)
        self.digests[path.name] = digest

    # ---- time goes on -------------------------------------------------------------------------------------

    def go_on(self, days):
        """Backups for some days; on the 15th of a month everything is compacted in the night."""
        for _ in range(round(days * DAY / self.every)):
            at = time.gmtime(self.now)
            if at.tm_mday == 15 and at.tm_hour < self.every // HOUR:
                self.compact()
            else:
                self.append(self.churn.tails * self.every / DAY)
            self.backup()
            self.now += self.every

    def backup(self):
        name = time.strftime("moh-%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.now))
        create = ["--chunker-params", f"fixed,{CHUNK}", "--compression", "zstd,3", "--timestamp", stamp]
        create += ["--files-cache", "disabled", "--json", f"{self.made.repository}::{name}"]
        made = json.loads(self.borg("create", *create, "."))
        self.taken[name], self.ids[name] = self.now, made["archive"]["id"]
        self.held[name] = {of: digest.hexdigest() for of, digest in self.digests.items()}

    def audit(self):
        """Let the server take in what has come, and set its ledger's times to ours."""
        made = self.made
        done = made.program("audit", "audit")
        if done.code != 0:
            raise AssertionError(done.output + done.errors)
        with contextlib.closing(sqlite3.connect(made.state / "audit.sqlite")) as database, database:
            rows = [(at, bytes.fromhex(self.ids[name])) for name, at in self.taken.items()]
            database.executemany("UPDATE archives SET at = ? WHERE id = ?", rows)

    def retain(self):
        """Run retention as an operator does, at our time; note what there is before and after."""
        made = self.made
        self.audit()
        before = self.look()
        config = (made.repository / "config").read_text()
        request = {
            "policy": self.policy,
            "passphrase": PASSPHRASE,
            "repository": config.partition("\nid = ")[2].split("\n")[0],
            "seen": {self.ids[name]: name for name in self.taken},
            "despite": [],
            "drill": {"succeeded": self.now - HOUR, "failed": False, "overdueAfterDays": 9},
            "shown": list(self.ids.values()),
        }
        package = machine().programs / "chtbackup"
        command = [made.python, "-B", HERE / "altered.py", json.dumps({"ahead": self.now - time.time()})]
        process = subprocess.Popen([*command, package, "retention", "apply", made.settings_file], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        with process:
            output = process.stdout.read()
            errors = process.stderr.read()
        if process.returncode != 0:
            raise AssertionError(f"retention: exit code {process.returncode}\n{output[-2000:]}\n{errors}")
        done = json.loads(output.splitlines()[-1])["done"]
        gone = set(done["removed"]) if done else set()
        self.removed |= gone
        for name in gone:
            del self.held[name]
        after = self.look()
        self.weeks.append(
            Week(
                data=sum(path.stat().st_size for path in made.source.iterdir()),
                before=before,
                after=after,
                without=self.without,
                bucket=sum(of.size for of in self.segments.values() if of.stays_in_bucket_until() > self.now),
                bucket_without=sum(of.size for of in self.segments.values()),
                archives=len(self.held),
            )
        )
        return done

    def look(self):
        """Take in which segments there are now; returns their bytes. borg's index and hints, some 40 bytes a chunk,
        aren't counted: at their least they are large beside data as small as these."""
        data = self.made.repository / "data"
        there = {str(path): path.stat().st_size for path in data.rglob("*") if path.is_file()}
        known = sum(of.size for of in self.segments.values() if of.until == NEVER)
        for path, size in there.items():
            if path not in self.segments:
                self.segments[path] = Segment(size, self.now)
        for path, of in self.segments.items():
            if of.until == NEVER and path not in there:
                of.until = self.now
        total = sum(there.values())
        self.without += max(0, total - known)
        return total

    # ---- what must be -------------------------------------------------------------------------------------

    def expected(self):
        """Names of those that stay by the policy, worked out in another way than retention's: from the whole year's
        archives, what is the last one of each calendar day, week, month and year."""
        stay = {name for name, at in self.taken.items() if at > self.now - self.policy["within"] * DAY}
        for rule, form in (("daily", "%Y-%m-%d"), ("weekly", None), ("monthly", "%Y-%m"), ("yearly", "%Y")):
            last = {}
            for name, at in self.taken.items():
                date = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
                last[date.strftime(form) if form else tuple(date.isocalendar())[:2]] = name
            newest_first = sorted(last, reverse=True)
            stay |= {last[period] for period in newest_first[: self.policy[rule]]}
        return stay

    def listed(self):
        return {of["name"] for of in json.loads(self.borg("list", "--json", self.made.repository))["archives"]}

    def wrong(self, names):
        """Which of these don't hold what was stored."""
        found = []
        for name in names:
            folder = self.made.operator / "extracted"
            folder.mkdir()
            machine().own(folder)
            self.borg("extract", f"{self.made.repository}::{name}", directory=folder)
            if contents(folder) != self.held[name]:
                found.append(name)
            shutil.rmtree(folder)
        return found
