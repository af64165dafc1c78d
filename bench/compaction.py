"""Retention's whole run beside bare `borg delete` and `borg compact` of the same archives, on copies of one repository.

Usage: python3 compaction.py JSON: {"megabytes": N, "rounds": N}. PYTHONPATH names test/guard, GUARD_ENVIRONMENTS as
its tests have it. Prints JSON: seconds of each round, by contestant. Of eight archives every second one goes; half of
what each holds is in the next one, too, so that no segment is wholly free."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from parts import ENVIRONMENTS, PASSPHRASE, Deployment, machine

ARCHIVES, FILES = 8, 20
OURS, BARE, STEP = "retention", "bare delete and compact", "bare compact alone"


class Bench:
    def __init__(self, megabytes: int) -> None:
        made = self.made = Deployment(list(ENVIRONMENTS)[-1])
        made.empty()
        self.borg("init", "--encryption", "repokey-blake2", made.repository)
        config = made.repository / "config"
        config.write_text(re.sub("append_only = 0", "append_only = 1", config.read_text()))
        size = megabytes * 1_000_000 // ARCHIVES // FILES
        for archive in range(ARCHIVES):
            for path in made.source.iterdir():
                old, number = map(int, path.name.split("-"))
                if old < archive - 1 or number % 2:
                    path.unlink()
            for number in range(FILES):
                (made.source / f"{archive}-{number}").write_bytes(os.urandom(size))
            create = ["--chunker-params", "fixed,262144", "--compression", "none"]
            self.borg("create", *create, f"{made.repository}::archive-{archive}", ".")
        for path in made.source.iterdir():
            path.unlink()
        if made.program("audit", "audit").code != 0:
            sys.exit("the audit finds something")
        for folder in (made.repository, made.state):
            subprocess.run(["cp", "-a", str(folder), f"{folder}.kept"], check=True)

    def again(self) -> None:
        for folder in (self.made.repository, self.made.state):
            shutil.rmtree(folder)
            subprocess.run(["cp", "-a", f"{folder}.kept", str(folder)], check=True)
        os.sync()

    def borg(self, *words) -> str:
        made = self.made
        base = {"BORG_BASE_DIR": str(made.operator), "BORG_PASSPHRASE": PASSPHRASE}
        done = made.as_account.run(
            "borg", *words, environment={**made.environment(), **base}, directory=str(made.source)
        )
        if done.code != 0:
            sys.exit(f"borg {words[0]}: exit code {done.code}: {done.errors}")
        return done.output

    def going(self) -> list[str]:
        return [f"archive-{number}" for number in range(0, ARCHIVES, 2)]

    def bare(self) -> tuple[float, float]:
        began = time.monotonic()
        first, *others = self.going()
        self.borg("delete", f"{self.made.repository}::{first}", *others)
        deleted = time.monotonic()
        self.borg("config", self.made.repository, "append_only", "0")
        self.borg("compact", "--threshold", "25", self.made.repository)
        return time.monotonic() - began, time.monotonic() - deleted

    def ours(self) -> float:
        """By a policy of which nothing but the newest stays, with those shown that go."""
        made = self.made
        config = (made.repository / "config").read_text()
        ids = {of["name"]: of["id"] for of in json.loads(self.borg("list", "--json", made.repository))["archives"]}
        request = {
            "policy": {"within": 1, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0},
            "passphrase": PASSPHRASE,
            "repository": config.partition("\nid = ")[2].split("\n")[0],
            "drill": {"succeeded": time.time() + 2 * 86400, "overdueAfterDays": 9},
            "shown": [ids[name] for name in self.going()],
        }
        altered = [Path(__file__).parents[1] / "test/guard/altered.py", json.dumps({"ahead": 2 * 86400})]
        command = [made.python, "-B", *altered, machine().programs / "chtbackup", "retention", "apply"]
        began = time.monotonic()
        with subprocess.Popen(
            [*command, made.settings_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            output = process.stdout.read()
        took = time.monotonic() - began
        if process.returncode != 0 or json.loads(output.splitlines()[-1])["done"]["removed"] != self.going():
            sys.exit(f"retention: exit code {process.returncode}: {output[-1000:]}")
        return took


def main(megabytes: int, rounds: int) -> None:
    bench = Bench(megabytes)
    measured: dict[str, list[float]] = {OURS: [], BARE: [], STEP: []}
    for _ in range(rounds):
        bench.again()
        measured[OURS].append(bench.ours())
        bench.again()
        whole, compact = bench.bare()
        measured[BARE].append(whole)
        measured[STEP].append(compact)
        print(measured, file=sys.stderr)
    print(json.dumps(measured))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
