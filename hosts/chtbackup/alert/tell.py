"""Tell somebody: the addresses, and a message to each of them, kept until it is delivered."""

from __future__ import annotations

import os
import time

from chtbackup.alert.deliver import deliver, kind
from chtbackup.alert.queue import Queue
from chtbackup.base.text import complain, say

DELIVERED, UNDELIVERED, WRONG = 0, 1, 2
CRITICAL = "<2>"  # systemd takes such a prefix for the line's priority, see sd-daemon(3)


def read_addresses(path: str) -> list[str]:
    """Apprise URLs, one a line; empty lines and lines that begin with # don't count. No file: none."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError:
        return []
    return [line for line in lines if line and not line.startswith("#")]


def unreadable(error: OSError) -> str:
    return f"the file of alert addresses can't be read: {error.strerror}"


def priority() -> str:
    return CRITICAL if os.environ.get("JOURNAL_STREAM") else ""


def say_what_came_of_it(addresses: list[str], refused: dict[str, str]) -> None:
    for number, address in enumerate(addresses, 1):
        if address in refused:
            complain(f"alert {number} of {len(addresses)} ({kind(address)}) {refused[address]}")
    if not refused:
        say(f"{len(addresses)} alert(s) delivered")


def send_kept(queue: Queue, addresses: list[str]) -> bool:
    """Try to send all that is kept, and say what came of it. Returns whether nothing is left."""
    with queue.alone():
        if queue.empty():
            return True
        refused, given_up = queue.send(addresses, deliver, time.time())
    say_what_came_of_it(addresses, refused)
    if given_up:
        complain(f"{priority()}{given_up} alert(s) couldn't be delivered for days, and are given up")
    return queue.empty()


def raise_alarm(queue: Queue | None, addresses: list[str], title: str, text: str, good: bool = False) -> int:
    """Keep the message, and try to send it: what is wrong or, where it is `good`, that it is over. One that can't be
    kept, on a full disk, is sent all the same."""
    if not addresses:
        return DELIVERED
    if queue is not None:
        try:
            queue.keep(title, text, time.time(), good)
            return DELIVERED if send_kept(queue, addresses) else UNDELIVERED
        except OSError as error:
            complain(f"the alert can't be kept in {queue.directory}: {error.strerror}")
    refused = {address: why for address in addresses if (why := deliver(address, title, text, good))}
    say_what_came_of_it(addresses, refused)
    return UNDELIVERED if refused else DELIVERED
