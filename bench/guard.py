"""A backup with the guard and the seals beside one with bare `borg serve`, through the same sshd, to the same disk.

Usage: python3 guard.py JSON: {"megabytes": N, "rounds": N, "create": borg's options}. PYTHONPATH must name test/guard,
GUARD_ENVIRONMENTS as its tests have it. Prints JSON: seconds of each round, by what was measured and by contestant."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from parts import ENVIRONMENTS, PASSPHRASE, Deployment, contents

GUARDED, BARE = "guard and seals", "bare borg serve"


class Side:
    """One of the two, with a repository of its own on the deployment's only path: it is moved there for its turn."""

    def __init__(self, made: Deployment, guarded: bool) -> None:
        self.made, self.guarded = made, guarded
        self.folder = made.folder / ("guarded" if guarded else "bare")
        self.archives = 0

    def begin(self) -> None:
        """An empty repository."""
        made = self.made
        self.archives = 0
        shutil.rmtree(self.folder, ignore_errors=True)
        with made.sealing:
            for folder in (made.repository, made.state, made.base):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
        subprocess.run(["chown", f"{made.settings['user']}:", str(made.repository)], check=True)
        self.take()
        self.borg("init", "--encryption", "repokey-blake2", made.location)

    def take(self) -> None:
        """Have the deployment be this side's."""
        self.made.guarded = self.made.sealed = self.guarded
        self.made.set()
        self.made.ssh_config()

    def put_away(self) -> None:
        self.made.settle()
        self.folder.mkdir(exist_ok=True)
        with self.made.sealing:
            for folder in (self.made.repository, self.made.state, self.made.base):
                os.rename(folder, self.folder / folder.name)

    def bring(self) -> None:
        with self.made.sealing:
            for folder in (self.made.repository, self.made.state, self.made.base):
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(self.folder / folder.name, folder)
        self.take()

    def borg(self, *words: str) -> float:
        """The client's borg as a program of its own; seconds."""
        environment = {**os.environ, **self.made.environment(over_sshd=True), "BORG_PASSPHRASE": PASSPHRASE}
        command = [str(self.made.python), "-I", "-m", "borg", "--lock-wait", "60", *words]
        began = time.monotonic()
        done = subprocess.run(command, env=environment, cwd=self.made.source, capture_output=True, text=True)
        took = time.monotonic() - began
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr}")
        return took

    def backup(self, create: list[str]) -> float:
        self.archives += 1
        self.made.settle()
        return self.borg("create", *create, f"{self.made.location}::archive-{self.archives}", ".")

    def check(self) -> None:
        """End where an archive is missing, or the newest doesn't hold the files."""
        listed = self.made.list()
        if len(listed) != self.archives:
            sys.exit(f"{len(listed)} archives are in the repository instead of {self.archives}")
        found, done = self.made.extract(listed[-1])
        if found != contents(self.made.source):
            sys.exit(f"{listed[-1]} doesn't hold what was backed up: {done.errors}")


def touch(folder: Path) -> None:
    """Have borg read all files again. It doesn't remember those of the newest time, so one small file gets that."""
    last = folder / "last"
    for path in folder.iterdir():
        os.utime(path)
    newest = max(path.stat().st_ctime_ns for path in folder.iterdir())
    while not last.exists() or last.stat().st_ctime_ns <= newest:
        last.write_bytes(b"")


def main(megabytes: int, rounds: int, create: list[str]) -> None:
    made = Deployment(list(ENVIRONMENTS)[-1])
    for path in made.source.iterdir():
        path.unlink()
    for number in range(10):
        with open(made.source / f"file-{number}", "wb") as file:
            for _ in range(max(1, megabytes // 10)):
                file.write(os.urandom(1_000_000))
    sides = {GUARDED: Side(made, True), BARE: Side(made, False)}
    measured: dict[str, dict[str, list[float]]] = {}

    def note(what: str, name: str, seconds: float) -> None:
        measured.setdefault(what, {}).setdefault(name, []).append(seconds)
        print(f"{what}, {name}: {seconds:.2f} s", file=sys.stderr)

    for _ in range(rounds):
        for name, side in sides.items():
            side.begin()
            os.sync()  # what is still to be written isn't the next one's burden
            note("the first backup", name, side.backup(create))
            side.put_away()
    for what in ("all files read, nothing new", "nothing changed"):
        for number in range(rounds + 1):
            for name, side in sides.items():
                side.bring()
                if what != "nothing changed":
                    touch(made.source)
                took = side.backup(create)
                if number > 0:  # the first time either side's client learns the files' times
                    note(what, name, took)
                side.put_away()
    for side in sides.values():
        side.bring()
        side.check()
        side.put_away()
    print(json.dumps(measured))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
