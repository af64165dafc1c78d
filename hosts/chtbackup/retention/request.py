"""What retention is asked, one line of JSON: by an operator's computer, which sends all of it; or by the machine that
drills, on a schedule, which sends only what it alone knows."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import Any

from chtbackup.base import contract
from chtbackup.retention.borg import Refused
from chtbackup.retention.keeping import Policy


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 36500


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _drill(value: Any) -> bool:
    numbers = [value.get(name) for name in ("succeeded", "overdueAfterDays")] if isinstance(value, dict) else [True]
    return all(number is None or _is_number(number) for number in numbers)


RULES = {
    "policy": lambda value: (
        isinstance(value, dict)
        and set(value) == {rule.name for rule in dataclasses.fields(Policy)}
        and all(_is_count(count) for count in value.values())
        and value["within"] > 0
    ),
    "passphrase": lambda value: isinstance(value, str) and value != "",
    "repository": lambda value: isinstance(value, str),
    "shown": _texts,
    "seen": lambda value: isinstance(value, dict) and all(isinstance(name, str) for name in value.values()),
    "despite": _texts,
    "drill": _drill,
    "now": _is_number,
}
"""Whether a value is what it should be, by its name in the request."""
DEFAULTS = {"shown": [], "seen": {}, "despite": [], "drill": {}, "now": None}


def asked_by_operator(line: str) -> dict[str, Any]:
    """The request in a line. Raises Refused, without a word of what is in it, where it isn't in order: nothing is
    guessed about which archives shall go."""
    return _in_order(_mapping(line))


def asked_on_schedule(line: str, settings: str) -> dict[str, Any]:
    """The request of the machine that drills, with this server's own policy. No doubt is passed over, and nobody has
    looked at a plan, so all that goes by the policy may go: `shown` is None. `settings` is the path of
    `repository.json`; the policy lies beside it. Raises Refused."""
    sent = _mapping(line)
    try:
        own = contract.read("retention", os.path.join(os.path.dirname(settings), "retention.json"))
    except contract.Wrong as error:
        raise Refused(str(error)) from None
    known = {name: sent[name] for name in ("passphrase", "seen", "drill", "now") if name in sent}
    request = _in_order({**known, "policy": own["policy"], "repository": own["repository"]})
    drill = {**request["drill"], "overdueAfterDays": own["overdueAfterDays"]}
    return {**request, "drill": drill, "shown": None}


def _mapping(line: str) -> dict[str, Any]:
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise Refused("what came in isn't a request: npm run retention makes it")
    return asked


def _in_order(asked: dict[str, Any]) -> dict[str, Any]:
    wanted = {*RULES} - {*DEFAULTS} | {*asked}
    wrong = [name for name, right in RULES.items() if name in wanted and not right(asked.get(name))]
    if wrong:
        raise Refused(f"the request's {', '.join(wrong)} isn't in order: npm run retention makes it")
    return {**DEFAULTS, **asked}
