"""What one way of copying a borg repository into a bucket sends and asks, day after day.

Usage: python3 traffic.py JSON: {"days": folders, "create": borg's options, "sync": rclone's options, or null for the
project's own copy}. PYTHONPATH must name test/bucket. Prints JSON: for each step its requests, by kind, and the bytes
of their bodies in both directions. Every request passes a proxy before the storage, whoever makes it.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from parts import KEYS, LOCK_DAYS, Deployment, Proxy, Store

BUCKET, FOLDER = "copy-bench", "live/repository"
SEGMENT = 500 * 1024 * 1024  # borg's default, which the tests make smaller


def kind(method: str, path: str) -> str:
    """A request's kind as it is paid for: a list of names is dearer than another question."""
    return "LIST" if method == "GET" and "prefix=" in path else method


class Traffic:
    def __init__(self, store: Store) -> None:
        self.store, self.proxy, self.received = store, Proxy(store.port), 0
        self.proxy.change = self._count

    def _count(self, headers, content):
        self.received += len(content)
        return headers, content

    def measure(self, action) -> dict:
        self.proxy.requests.clear()
        self.proxy.sent = self.received = 0
        words = action() or {}
        kinds = Counter(kind(*of) for of in self.proxy.requests)
        return {"sent": self.proxy.sent, "received": self.received, "kinds": dict(kinds), **words}


def copied(made: Deployment, outcome: str, code: int = 0) -> dict:
    """A run of the project's own copy, which must come out like this."""
    run = made.run()
    if run.code != code or run.report["outcome"] != outcome:
        sys.exit(f"the copy was not {outcome}: {run}")
    return {name: run.report[name] for name in ("requests", "uploadedFiles", "uploadedBytes", "extended")}


def synced(made: Deployment, endpoint: str, options: list[str]) -> None:
    key, secret = KEYS["admin"]  # it must be able to delete
    remote = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint, "REGION": "us-east-1"}
    remote |= {"ACCESS_KEY_ID": key, "SECRET_ACCESS_KEY": secret}
    # Nothing of the user's own: rclone ends with an error where, for one, AWS_CA_BUNDLE is set.
    environment = {"PATH": os.environ["PATH"], "HOME": str(made.folder), "RCLONE_CONFIG": "/dev/null"}
    environment |= {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in remote.items()}
    command = ["rclone", "sync", str(made.repository), f"bench:{BUCKET}/{FOLDER}", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: exit code {done.returncode}: {done.stderr}")


def check(made: Deployment, ours: bool, days: int) -> None:
    """End where the bucket doesn't hold what it should."""
    if ours:
        whole = [of["whole"] for of in made.copies()]
        if whole != [True] * days:
            sys.exit(f"not all of the {days} copies are whole: {whole}")
        return
    there = made.store.admin.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{FOLDER}/")
    found = {of["Key"].removeprefix(f"{FOLDER}/"): of["Size"] for page in there for of in page["Contents"]}
    files = (path for path in made.repository.rglob("*") if path.is_file())
    wanted = {str(path.relative_to(made.repository)): path.stat().st_size for path in files}
    if found != wanted:
        sys.exit(f"the bucket differs from the repository: {sorted(found.items() ^ wanted.items())}")


def main(days: list[str], create: list[str], sync: list[str] | None) -> None:
    store, made = Store(), None
    try:
        store.make_bucket(BUCKET)
        traffic = Traffic(store)
        made = Deployment(store, BUCKET, traffic.proxy.endpoint)
        made.borg("config", made.repository, "max_segment_size", str(SEGMENT))

        def step(outcome: str) -> dict:
            if sync is None:
                return traffic.measure(lambda: copied(made, outcome))
            return traffic.measure(lambda: synced(made, traffic.proxy.endpoint, sync))

        result = {"copies": []}
        for number, day in enumerate(days):
            # From inside, so that a day's files have the names of the day before.
            made.borg("create", *create, f"{made.location}::day{number}", ".", cwd=day)
            result["copies"].append(step("copied"))
        result["nothing"] = step("unchanged")
        files = [path for path in Path(made.repository).rglob("*") if path.is_file()]
        result |= {"files": len(files), "size": sum(path.stat().st_size for path in files)}
        if sync is None:
            # All of them are due, as they are once in lockDays - keepDays. The bucket's own default is too short now.
            made.set(keepDays=LOCK_DAYS, lockDays=LOCK_DAYS + 1)
            result["locks"] = traffic.measure(lambda: copied(made, "unchanged", 1))
        check(made, sync is None, len(days))
        print(json.dumps(result))
    finally:
        if made is not None:
            made.remove()
        store.stop()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
