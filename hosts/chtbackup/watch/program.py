"""See how a deployment's backups stand, as this machine sees it, and tell somebody when that isn't well.

`run` looks, writes `watch.json`, the metrics and on the server a page (`status.html`), and tells; hourly, by its unit.
`report` prints the same JSON
at once and changes nothing. `catalogue` prints the list of conditions. The form of `watch.json`, on which status and
page rely (times are seconds since 1970, sizes bytes, what isn't known is null; never names of patients or documents):

    {"deployment", "role": "cht"|"server"|"drill", "host", "at",
     "facts": {"backup", "drill", "copy", "check", "audit", "retention": the reports as they are written, or null,
               "disk": {"path", "total", "free", "repository", "data", "bucket", "reserve": true|false,
                        "growthPerWeek", "fullAt"}|null,
               "lastTransactionAt", "certificateEnds",
               "units": [{"unit", "state", "next", "masked", "there", "result", "runsSince"}],
               "history": [{"day": "YYYY-MM-DD", "repository", "free", "data", "archives", "documents": {DATABASE: n},
                            "runs": {NAME: whether all went well}}],
               "server": {"at", "address", "answers", "reason", "known", "accepts"}|null,
               "drillSeenAt", "alarms": {"since", "partly"},
               "outdated", "removedAt", "clockSetAt", "booted"},
     "conditions": [{"id", "severity", "title", "text", "todo", "since", "link": "docs/runbook.md#ID",
                     "hiddenBy": ID|null}]}
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from typing import Any

from chtbackup.alert.queue import Queue
from chtbackup.alert.tell import DELIVERED, priority, raise_alarm, read_addresses, unreadable
from chtbackup.base import contract
from chtbackup.base.files import write_atomically
from chtbackup.base.text import complain, plain_values, say
from chtbackup.watch import facts as known
from chtbackup.watch import history, metrics, probes, state
from chtbackup.watch.condition import described
from chtbackup.watch.conditions import CONDITIONS
from chtbackup.watch.judge import Found, judge
from chtbackup.watch.page import page

DONE, UNDELIVERED, WRONG = 0, 1, 2


def report_of(settings: dict[str, Any], facts: dict[str, Any], memory: state.Memory, now: float) -> dict[str, Any]:
    """What `watch.json` holds."""
    return plain_values(
        {
            "deployment": settings["deployment"],
            "role": settings["role"],
            "host": platform.node(),
            "at": round(now),
            "facts": facts,
            "conditions": state.listed(state.holding(memory, settings, now)),
        }
    )


def look(settings: dict[str, Any], memory: state.Memory, now: float) -> tuple[dict[str, Any], list[Found]]:
    facts = known.gather(settings, memory.probed, now)
    return facts, judge(facts, settings, memory.began, now)


def tell(settings: dict[str, Any], memory: state.Memory, found: list[Found], beside: str, now: float) -> int:
    """Tell what is due, and note it in the memory. `beside` is the directory with the addresses."""
    deployment, host = settings["deployment"], platform.node()
    there = state.holding(memory, settings, now)
    quiet = {of.id for of in found if of.quiet}
    messages: list[tuple[str, str, bool]] = []
    if news := state.due(memory, there, quiet, settings["remindHours"] * state.HOUR, now):
        messages.append((*state.words(deployment, host, news, there, now), False))
        for id in news:
            memory.entries[id].told = now
    if ended := {id: memory.entries.pop(id) for id in state.over(memory, settings, now)}:
        messages.append((*state.all_clear(deployment, host, ended), True))
    try:
        addresses = read_addresses(f"{beside}/alerts")
    except OSError as error:
        complain(unreadable(error))
        return UNDELIVERED
    queue, code = Queue(f"{settings['state']}/alerts"), DONE
    for title, text, good in messages:
        say(f"{'' if good else priority()}{title}: {text}")
        if raise_alarm(queue, addresses, title, text, good) != DELIVERED:
            code = UNDELIVERED
    return code


@contextlib.contextmanager
def alone(directory: str) -> Iterator[None]:
    """Wait until no other watch runs here. Raises OSError."""
    descriptor = os.open(f"{directory}/watch.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def run(settings: dict[str, Any], beside: str) -> int:
    """Look, write and tell. Raises OSError where nothing can be kept."""
    directory, now = settings["state"], time.time()
    path = f"{directory}/watch-state.json"
    with alone(directory):
        memory = state.read(path, now)
        memory.probed = probes.look(settings, memory.probed, now)
        facts, found = look(settings, memory, now)
        memory = state.noted(memory, found, settings, now)
        # Before anything is told: what tells may take minutes, or be stopped.
        seen = report_of(settings, facts, memory, now)
        write_atomically(f"{directory}/watch.json", json.dumps(seen) + "\n", 0o640)
        history.write(f"{directory}/watch-history.jsonl", facts["history"])
        metrics.write(settings, facts, state.listed(state.holding(memory, settings, now)), now)
        code = tell(settings, memory, found, beside, now)
        state.write(path, memory)
        if settings["role"] == "server":  # last, as nothing else needs it
            write_atomically(f"{directory}/status.html", page([seen], [], now), 0o644)
    say(f"{len(found)} condition(s): {', '.join(of.id for of in found)}" if found else "all is well")
    return code


def report(settings: dict[str, Any]) -> int:
    now = time.time()
    memory = state.read(f"{settings['state']}/watch-state.json", now)
    facts, found = look(settings, memory, now)
    print(json.dumps(report_of(settings, facts, state.noted(memory, found, settings, now), now)))
    return DONE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="See how a deployment's backups stand, as this machine sees it. `run` writes watch.json and the"
        " metrics, and tells the addresses in the file `alerts` what is new; `report` prints the same JSON and changes"
        " nothing; `catalogue` prints the list of all conditions as JSON.",
        epilog="Exit codes: 0 looked, and told what was to be told; 1 an address didn't take it, which is tried again;"
        " 2 wrong settings, or nothing can be written; 70 the program itself is at fault.",
    )
    parser.add_argument("action", choices=("run", "report", "catalogue"), metavar="ACTION",
                        help="run, report or catalogue")  # fmt: skip
    parser.add_argument("settings", metavar="SETTINGS", nargs="?", help="/etc/cht-backup/DEPLOYMENT/watch.json, or"
                        " that in /etc/cht-backup-server/DEPLOYMENT")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.action == "catalogue":
        print(json.dumps(described(CONDITIONS), indent=2))
        return DONE
    if options.settings is None:
        parser.error(f"{options.action} needs SETTINGS")
    os.umask(0o077)
    try:
        settings = contract.read("watch", options.settings)
        if options.action == "report":
            return report(settings)
        return run(settings, os.path.dirname(os.path.abspath(options.settings)))
    except contract.Wrong as error:
        complain(error)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror} (run as root)" if error.filename else error)
    return WRONG
