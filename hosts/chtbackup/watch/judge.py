"""Which of the conditions hold, by the facts of one machine. Pure.

Where nothing is known, nothing is said of it: an alarm must be worth the sleep that it costs. What must never be missed
is judged by time alone (`…-overdue`, `cht-silent`), so that neither a missing report nor a wrong one hides it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from chtbackup.base.text import moment
from chtbackup.watch import forecast
from chtbackup.watch.conditions import BY_ID

HOUR, DAY = 3600, 86400
CLOCK = 600  # seconds that a time may lie in the future
UNSET = 2 * DAY  # seconds for which the clock may not have been set by the network
AUDIT_HOURS = 50  # the audit runs each day
FULL = 0.05  # of the disk that must be free
NEAR = 0.8  # of a quota
UNDELIVERED = HOUR
REPORTS = ("backup", "drill", "copy", "check", "audit", "retention")
NAMED, LONGEST = 3, 300  # problems in a text, characters of each
UNREADABLE = 2  # the audit's exit code


@dataclass(frozen=True)
class Found:
    """A condition that holds."""

    id: str
    text: str
    since: float | None = None
    """Since when, where the facts say so; else since it was seen first."""
    reason: str = ""
    """What a run said first of its failure."""
    quiet: bool = False
    """Whether it is only shown, as there is nobody who could be told."""


def bytes_of(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def span(hours: float) -> str:
    return f"{hours / 24:g} days" if hours >= 72 and hours % 24 == 0 else f"{hours:g} hours"


def reasons(problems: list[str]) -> str:
    """A report's problems in a sentence's end."""
    shown = [text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in problems[:NAMED]]
    more = [f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
    return "; ".join([*shown, *more]).rstrip(".") or "its journal says why"


class Judge:
    """One look. `began` is when the watch was set up, in seconds since 1970: nothing can be overdue since before."""

    def __init__(self, facts: dict[str, Any], settings: dict[str, Any], began: float, now: float) -> None:
        self.facts, self.settings, self.began, self.now = facts, settings, began, now
        self.found: list[Found] = []
        self.units = {of["unit"]: of for of in facts["units"]}

    def add(self, id: str, since: float | None = None, first: str = "", quiet: bool = False, **words: Any) -> None:
        self.found.append(Found(id, BY_ID[id].text.format(**words), since, first, quiet))

    def overdue(self, id: str, last: float | None, hours: float | None, what: str, **words: Any) -> None:
        """Whether something happened last too long ago. `hours` None: it isn't expected at all."""
        if hours is None:
            return
        if last is not None and last > self.now + DAY:  # of a wrong clock: it would be young for ever
            last = None
        due = (last or self.began) + hours * HOUR
        if self.now > due:
            past = f"The last {what} is of {moment(last)}" if last else f"There was no {what} so far"
            self.add(id, due, past=past, allowed=span(hours), **words)

    def service(self, name: str) -> dict[str, Any]:
        return self.units.get(f"{name}-{self.settings['deployment']}.service", {})

    def failed(self, id: str, service: str, report: dict[str, Any] | None) -> str:
        """Judge a run by its report or, where it left none, by its unit: a program that can't start writes nothing.
        Returns why it failed; empty where it didn't."""
        unit = self.service(service)
        if report is not None and not report["ok"]:
            problems = report["problems"]
            why, first, since = reasons(problems), "".join(problems[:1])[:LONGEST], report["finishedAt"]
        elif unit.get("state") == "failed":
            first, since = f"the unit ended with {unit['result']}", None
            why = f"{first}, and its journal says more"
        else:
            return ""
        self.add(id, since, first, reason=why)
        return why

    # ---- what the CHT machine does ------------------------------------------------------------------------

    def backup(self) -> None:
        report = self.facts["backup"]
        if self.settings["role"] != "cht":
            return
        last = (report or {}).get("lastSuccessAt")
        made = report is not None and report["archive"] is not None and not report["ok"]
        why = self.failed("backup-incomplete" if made else "backup-failed", "cht-backup", report)
        why = f" The latest run: {why}." if why else ""
        self.overdue("backup-overdue", last, self.settings["backupOverdueHours"], "complete backup", reason=why)
        # The first upload takes as long as it takes; systemd ends it after a week.
        since, hours = self.service("cht-backup").get("runsSince"), self.settings["hangingHours"]
        if since is not None and last is not None and self.now - since > hours * HOUR:
            self.add("backup-hanging", since + hours * HOUR, began=moment(since), allowed=span(hours))
        self.documents((report or {}).get("documents") or {})

    def documents(self, documents: dict[str, int]) -> None:
        lost = forecast.collapsed(self.facts["history"], documents)
        if lost:
            texts = [f"{name} had {had:,} documents and has {now:,}" for name, (had, now) in lost.items()]
            self.add("documents-collapsed", databases="; ".join(texts[:NAMED]))

    def certificate(self) -> None:
        ends, days = self.facts["certificateEnds"], self.settings["certificateDays"]
        if ends is not None and self.now > ends - days * DAY:
            self.add("certificate-ends", ends - days * DAY, ends=f"on {moment(ends)[:10]}")

    def server(self) -> None:
        of = self.facts["server"]
        if of is None:
            return
        if not of["answers"]:
            self.add("server-unreachable", address=of["address"], reason=of["reason"])
        elif of["known"] is False:
            self.add("host-key-changed", address=of["address"])
        elif of.get("accepts") is False:  # the memory of an earlier version has none
            self.add("key-refused", address=of["address"])

    def drill(self) -> None:
        report = self.facts["drill"]
        if not self.settings["drills"]:
            return
        self.failed("drill-failed", "cht-drill", report)
        days = self.settings["drillOverdueDays"]
        self.overdue("drill-overdue", (report or {}).get("lastSuccessAt"), days and days * 24, "drill that succeeded")

    # ---- what the server does -----------------------------------------------------------------------------

    def copies(self) -> None:
        if self.settings["bucketState"] is None:
            return
        copy, check = self.facts["copy"], self.facts["check"]
        open_to_all: list[str] = []
        for what, report in (("copy", copy), ("check", check)):
            # Reports of before this was told apart have no such list.
            protection = (report or {}).get("protection", [])
            open_to_all += [text for text in protection if text not in open_to_all]
            others = [text for text in (report or {}).get("problems", []) if text not in protection]
            if others or not protection:
                of = report and {**report, "problems": others}
                self.failed(f"{what}-failed", f"cht-bucket-{what}", of)
        if open_to_all:
            self.add("bucket-unprotected", reason=reasons(open_to_all))
        hours = self.settings
        self.overdue("copy-overdue", (copy or {}).get("lastSuccessAt"), hours["copyOverdueHours"], "copy")
        # A check that found something was a check.
        self.overdue("check-overdue", (check or {}).get("finishedAt"), hours["checkOverdueHours"], "check")

    def repository(self) -> None:
        audit, retention = self.facts["audit"], self.facts["retention"]
        if self.settings["role"] != "server":
            return
        found = audit is not None and not audit["ok"] and audit["exitCode"] != UNREADABLE
        self.failed("audit-found" if found else "audit-failed", "cht-repository-audit", audit)
        self.overdue("audit-overdue", (audit or {}).get("finishedAt"), AUDIT_HOURS, "audit")
        silent = self.settings["silentHours"]
        self.overdue("cht-silent", self.facts["lastTransactionAt"], silent, "archive that came in")
        login, seen = self.settings["drillLogin"], self.facts["drillSeenAt"]
        # Where sshd never noted one, nothing is known.
        if login is not None and seen is not None:
            self.overdue("drill-silent", seen, login["silentHours"], "login of the machine that drills")
        expected = self.settings["retentionOverdueHours"]
        if expected is not None:
            self.failed("retention-failed", "cht-retention", retention)
        self.overdue("retention-overdue", (retention or {}).get("lastSuccessAt"), expected, "retention")
        size, quota = (self.facts["disk"] or {}).get("repository"), self.settings["quotaBytes"]
        if quota and size is not None and size > NEAR * quota:
            self.add("quota-near", size=bytes_of(size), quota=bytes_of(quota))

    def growth(self) -> None:
        lines = self.facts["history"]
        for name, what in (("repository", "The repository"), ("data", "What a backup holds")):
            grew = forecast.grew(lines, name)
            if grew is not None:
                week, most = (bytes_of(size) for size in grew)
                self.add(
                    "growth-unusual", reason=f"{what} grew by {week} in a week, and never by more than {most} before"
                )
                return
        shrank = forecast.shrank(lines, "repository")
        removed = max(self.facts["removedAt"] or 0, (self.facts["retention"] or {}).get("finishedAt") or 0)
        if shrank is not None and removed < self.now - 10 * DAY:
            before, now = (bytes_of(size) for size in shrank)
            self.add("growth-unusual", reason=f"The repository shrank from {before} to {now}, and retention didn't run")

    # ---- the machine --------------------------------------------------------------------------------------

    def timers(self) -> None:
        off = []
        for name in self.settings["timers"]:
            of = self.units.get(name)
            if of is not None and (of["masked"] or not of["there"] or of["state"] != "active"):
                why = "masked" if of["masked"] else of["state"] if of["there"] else "gone"
                off.append(f"{name} ({why})")
        if off:
            self.add("timer-off", units=", ".join(off))

    def disk(self) -> None:
        of = self.facts["disk"]
        if of is None:
            return
        if of["free"] < FULL * of["total"]:
            self.add("disk-full", free=bytes_of(of["free"]), total=bytes_of(of["total"]), path=of["path"])
        full, days = of["fullAt"], self.settings["diskFullDays"]
        if full is not None and full < self.now + days * DAY:
            day = time.strftime("%Y-%m-%d", time.gmtime(full))
            self.add("disk-full-soon", pace=bytes_of(of["growthPerWeek"]), path=of["path"], day=day)
        if not of["reserve"]:
            self.add("reserve-gone", path=self.settings["reserve"])

    def clock(self) -> None:
        ahead = [
            f"the last {name} is of {moment(at)}"
            for name, at in (
                *(
                    (of, (self.facts[of] or {}).get("finishedAt"))
                    for of in ("backup", "drill", "copy", "check", "audit")
                ),
                ("archive", self.facts["lastTransactionAt"]),
            )
            if at is not None and at > self.now + CLOCK
        ]
        if ahead:
            self.add("clock-wrong", reason=f"It says {moment(self.now)}, and {ahead[0]}")
            return
        set_at = self.facts["clockSetAt"]
        if set_at is not None and self.now - max(set_at, self.facts["booted"]) > UNSET:
            self.add("clock-wrong", reason=f"The network hasn't set it since {moment(set_at)}")

    def alarms(self) -> None:
        of = self.facts["alarms"]
        if of["since"] is not None and self.now - of["since"] > UNDELIVERED:
            whom = "not every address" if of["partly"] else "no address"
            self.add("alarm-undelivered", of["since"], quiet=not of["partly"], waits=moment(of["since"]), whom=whom)

    def programs(self) -> None:
        if self.facts["outdated"]:
            self.add("programs-outdated", reason=" ".join(self.facts["outdated"]))


def judge(facts: dict[str, Any], settings: dict[str, Any], began: float, now: float) -> list[Found]:
    """The conditions that hold, in the order of the list."""
    of = Judge(facts, settings, began, now)
    for look in (
        of.backup, of.certificate, of.server, of.drill, of.copies, of.repository, of.growth, of.timers, of.disk,
        of.clock, of.alarms, of.programs,
    ):  # fmt: skip
        look()
    order = list(BY_ID)
    return sorted(of.found, key=lambda found: order.index(found.id))
