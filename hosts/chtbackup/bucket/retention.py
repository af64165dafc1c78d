"""Remove copies that the policy no longer keeps from a bucket, and the versions of files that no copy names any more.

Run on the operator's own computer by `npm run retention`: the key that may delete belongs to him, and neither the
machine with the writer's key nor any other gets it. Both keys come through standard input and are in no file, argument
or environment.

The first line that it reads is the request: the place and the key for reading as `fetch` takes them, and `policy`,
`keepDays`, `deployment`, `repositories`, `drill`, `seen`. It answers with a line of JSON, the plan. The second line, if
there is one, is the word to go on: `despite` (names of doubts) and `deleter` (`accessKeyId`, `secretAccessKey`; null:
what boto3 finds for the operator's own account at AWS). It then looks again, removes what both goes now and was in the
plan, and answers with another line. Where keeping.py has doubts, nothing is changed. A run that was killed needs no
repair: the next one goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from chtbackup.base.errors import REFUSED, RIGHT, WRONG, Refused, Stopped
from chtbackup.base.process import end_with_input, stop_on_signals
from chtbackup.base.text import complain, plain_values
from chtbackup.bucket import keeping
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.errors import BucketError
from chtbackup.bucket.fetch import connect
from chtbackup.bucket.inventory import Inventory
from chtbackup.bucket.keeping import Copy, Facts, Going
from chtbackup.bucket.removal import Removal, lost, read_back
from chtbackup.retention.keeping import Policy

STOPPED = 130


class Retention:
    """One run. `progress` gets lines for the operator."""

    def __init__(self, request: dict[str, Any], progress: Callable[[str], None]) -> None:
        self.request, self.progress = request, progress
        self.policy = Policy(**request["policy"])
        self.there = connect(request)
        self.inventory = Inventory(self.there, progress)
        self.shown: set[tuple[str, str]] = set()

    def facts(self) -> Facts:
        """Raises BucketError, Refused."""
        self.inventory.look()
        drill = self.request.get("drill") or {}
        return Facts(
            now=self.inventory.now,
            clock=time.time(),
            copies=self.inventory.copies,
            pieces=self.inventory.pieces,
            keep_days=self.request["keepDays"],
            deployment=self.request["deployment"],
            repositories=self.request["repositories"],
            seen=[Copy(**of) for of in self.request.get("seen", [])],
            drilled=drill.get("succeeded"),
            drill_failed=bool(drill.get("failed")),
            drill_days=drill.get("overdueAfterDays"),
        )

    def decide(self) -> tuple[Facts, dict[Copy, list[str]], Going, dict[str, str]]:
        facts = self.facts()
        why = keeping.reasons(facts.copies, self.policy, facts.keep_days, facts.now)
        return facts, why, keeping.going(facts, why), keeping.doubts(facts, self.policy)

    def plan(self) -> dict[str, Any]:
        """What stays with the reasons, and what goes; the newest copy first. Raises BucketError, Refused."""
        self.progress("reading which copies there are in the bucket")
        facts, why, going, doubts = self.decide()
        self.shown = {of.id for of in going.copies} | {(of.key, of.version) for of in going.pieces}
        return {**described(facts, why, going), "doubts": doubts, "requests": self.there.requests}

    def apply(self, despite: list[str], deleter: Bucket) -> dict[str, Any]:
        """Raises BucketError, Refused; then every copy that is listed is whole, and the next run goes on."""
        facts, why, going, doubts = self.decide()
        open_ = sorted(set(doubts) - set(despite))
        if open_:
            raise Refused(f"there are doubts ({', '.join(open_)}): nothing was removed. {doubts[open_[0]]}")
        going = Going(
            [of for of in going.copies if of.id in self.shown],
            [of for of in going.pieces if (of.key, of.version) in self.shown],
        )
        staying = [of for of in facts.copies if of not in set(going.copies)]
        removal = Removal(deleter, self.progress)
        removal.run(self.inventory, going, facts.keep_days)
        self.progress("looking whether the copies that stay are complete")
        problems = lost(self.inventory, staying)
        whole = keeping.whole_by_repository(self.inventory.copies)
        known = whole.get((facts.deployment, facts.repositories[0]), [])
        size = 0
        if known:
            size, wrong = read_back(self.there, known[-1], self.progress)
            problems += [f"{path} of {known[-1].key} isn't what was copied" for path in wrong]
        return {
            "done": {**removal.done, "locked": removal.locked, "readBack": size, "problems": problems},
            "whole": [remembered(of) for of in self.inventory.copies if of.whole],
            "requests": self.there.requests + deleter.requests,
        }


def remembered(of: Copy) -> dict[str, Any]:
    """A copy as this computer's ledger keeps it, and the request brings it back."""
    names = ("key", "version", "at", "deployment", "repository", "number")
    return {name: getattr(of, name) for name in names}


def described(facts: Facts, why: dict[Copy, list[str]], going: Going) -> dict[str, Any]:
    """A plan for people, with what the ledger takes of it."""
    order = sorted(facts.copies, key=lambda of: of.at, reverse=True)
    return {
        "copies": [
            {**remembered(of), "size": of.size, "why": why[of], "problem": of.problem, "lacks": of.lacks}
            for of in order
        ],
        "going": {"copies": len(going.copies), "versions": len(going.pieces), "bytes": going.size},
        "there": {"versions": len(facts.pieces), "bytes": sum(of.size for of in facts.pieces)},
        "whole": [remembered(of) for of in facts.copies if of.whole],
    }


def answer(of: dict[str, Any]) -> None:
    print(json.dumps(plain_values(of)), flush=True)


def read_line() -> dict[str, Any] | None:
    """A line of the operator's side; None: there comes none. Raises Refused."""
    line = sys.stdin.readline()
    if not line.strip():
        return None
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused("what was read from standard input is no JSON object")
    return found


def act() -> int:
    request = read_line()
    if request is None:
        raise Refused("the request is missing: a line of JSON on standard input")
    try:
        run = Retention(request, complain)
    except (KeyError, TypeError) as error:
        raise Refused(f"the request isn't in order: {error}") from None
    answer(run.plan())
    word = read_line()
    if word is None:
        return RIGHT
    threading.Thread(target=end_with_input, daemon=True).start()
    key = word.get("deleter")
    credentials = key and {"aws_access_key_id": key["accessKeyId"], "aws_secret_access_key": key["secretAccessKey"]}
    place = {name: request.get(name) for name in ("bucket", "prefix", "region", "endpoint", "pathStyle")}
    result = run.apply(word.get("despite", []), Bucket(place, credentials))
    answer(result)
    return WRONG if result["done"]["problems"] else RIGHT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Say which copies in a bucket a policy keeps, and remove the others with what no copy needs any"
        " more. Started by `npm run retention`, which writes what it needs to the standard input.",
        epilog="Exit codes: 0 done; 1 done, but something is wrong with what stays, which is named; 2 not possible, or"
        " there are doubts: the reason is named; 130 stopped: run it again, it goes on.",
    )
    parser.parse_args(arguments)
    stop_on_signals()
    try:
        return act()
    except (Refused, BucketError) as error:
        complain(error)
        return REFUSED
    except Stopped as error:
        complain(f"stopped by {error}; run it again to go on")
        return STOPPED
