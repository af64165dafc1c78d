"""Alarms that haven't reached everybody yet, kept on disk until they have.

A file each in a directory that root alone reads. Addresses hold passwords, so a file names those that have
been told by a digest. Used by program.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

MOST = 20  # alarms; of more, the oldest go
MOST_FILES = 200  # before they are looked through and put together
LONGEST = 4000  # characters of one
TOO_OLD = 7 * 24 * 3600  # seconds after which an alarm is given up
LATE = 10 * 60  # seconds after which it says when it happened
FIRST_PAUSE, LONGEST_PAUSE = 60, 15 * 60  # seconds


@dataclass
class Alarm:
    title: str
    text: str
    first: float
    """When it happened first, and last, in seconds since 1970."""
    last: float
    times: int = 1
    told: list[str] = field(default_factory=list)
    """Digests of the addresses that have taken it."""
    left_out: int = 0
    """How many older ones had to go."""
    good: bool = False
    """Whether it says that something is over; those before said what is wrong."""
    name: str = ""
    """Of its file."""

    def words(self, now: float) -> str:
        """The text as it is sent now."""
        text = self.text
        if now - self.last >= LATE:
            text += f" (This happened at {moment(self.last)}, and couldn't be sent until now.)"
        if self.times > 1:
            text += f" (It happened {self.times} times since {moment(self.first)}.)"
        if self.left_out:
            text += f" ({self.left_out} older alarms couldn't be kept: see the journal.)"
        return text


def moment(time_: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_))


def digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:32]


def put_together(alarms: list[Alarm]) -> list[Alarm]:
    """The alarms, the oldest first, each kind once in its newest words: those that differ in nothing but
    numbers, such as times, are one. No more than `MOST`."""
    found: dict[str, Alarm] = {}
    for of in sorted(alarms, key=lambda of: of.last):
        kind = re.sub(r"\d+", "0", f"{of.title}\n{of.text}")
        before = found.pop(kind, None)
        if before is not None:
            of.first = min(before.first, of.first)
            of.times += before.times
            of.left_out += before.left_out
        found[kind] = of
    together = list(found.values())
    for of in together[:-MOST]:
        together[-1].left_out += of.times + of.left_out
    return together[-MOST:]


class Queue:
    """The alarms in a directory. Every method but `empty` raises OSError where it can't be used."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def keep(self, title: str, text: str, now: float, good: bool = False) -> None:
        """Put an alarm there. It waits for nobody, so one that is cut off while it is sent is kept."""
        os.makedirs(self.directory, 0o700, exist_ok=True)
        for name in self.names()[:-MOST_FILES]:
            os.remove(os.path.join(self.directory, name))
        self.write(Alarm(title[:LONGEST], text[:LONGEST], now, now, good=good))

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory) if not name.startswith("."))

    def empty(self) -> bool:
        try:
            return not self.names()
        except OSError:
            return True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else sends what is here."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def waiting(self) -> list[Alarm]:
        """All of them, put together. What is no alarm is removed."""
        names, found = self.names(), {}
        for name in names:
            with contextlib.suppress(ValueError, TypeError):
                with open(os.path.join(self.directory, name), encoding="utf-8") as file:
                    found[name] = Alarm(**json.load(file), name=name)
        before = {name: replace(of) for name, of in found.items()}
        together = put_together(list(found.values()))
        for of in together:
            if of != before[of.name]:
                self.write(of)
        for name in set(names) - {of.name for of in together}:
            self.remove(name)
        return together

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.directory, name))

    def write(self, alarm: Alarm) -> None:
        # By their names they are in the order in which they happened.
        name = f"{int(alarm.last * 1e6):020d}-{os.getpid()}-{time.monotonic_ns()}.json"
        new = os.path.join(self.directory, f".{name}")
        content = {key: value for key, value in asdict(alarm).items() if key != "name"}
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(descriptor)
            os.rename(new, os.path.join(self.directory, name))
        except BaseException:  # on a full disk each alarm would leave one, for ever
            with contextlib.suppress(OSError):
                os.remove(new)
            raise
        alarm.name = name

    def send(
        self, addresses: list[str], deliver: Callable[[str, str, str, bool], str], now: float
    ) -> tuple[dict[str, str], int]:
        """Send what is here, the oldest first, to each of the addresses that hasn't been told. `deliver`
        takes an address, title, text, and whether they are good news, and returns why that wasn't delivered, or
        nothing. An alarm goes when all have been told, or when it is too old.

        Returns why addresses took nothing, by address, and how many alarms were given up.
        """
        refused: dict[str, str] = {}
        given_up = 0
        for of in self.waiting():
            told = list(of.told)
            for address in addresses:
                # Another try for each alarm would take minutes where the network is down.
                if digest(address) in told or address in refused:
                    continue
                why = deliver(address, of.title, of.words(now), of.good)
                if why:
                    refused[address] = why
                else:
                    of.told.append(digest(address))
            left = any(digest(address) not in of.told for address in addresses)
            before = of.name
            if left and now - of.last <= TOO_OLD:
                if of.told == told:
                    continue
                self.write(of)
            else:
                given_up += left
            self.remove(before)
        return refused, given_up


def send_until_empty(
    queue: Queue,
    try_all: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Try again and again, more and more rarely, until nothing is left."""
    pause = FIRST_PAUSE
    while True:
        try_all()
        if queue.empty():
            return
        sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
