"""How backups stand, as one page of HTML: without a script, a secret, or a name of a document or a person.

The server writes it each hour from its own report; the operator's computer makes it from those of all machines
(`npm run status -- --html`).
"""

from __future__ import annotations

import datetime
import json
import re
import sys
import time
from importlib import resources
from typing import Any

from chtbackup.base.text import complain
from chtbackup.watch import overview
from chtbackup.watch.chart import chart
from chtbackup.watch.days import MARKED, day_of, marks, sizes, weeks
from chtbackup.watch.overview import Condition, facts_of, listed, mapping, name_of, number, text
from chtbackup.watch.runs import DUTIES, Run, machine_named, outcome, runs
from chtbackup.watch.words import age, ago, clock, shown, size

WEEKS = 6
"""How far back the calendar goes."""

LETTERS = {"backup": "B", "copy": "C", "drill": "D", "restore": "R", "retention": "P"}
LEGEND = {
    "backup": "backup",
    "copy": "copy in the bucket",
    "drill": "restore drill",
    "restore": "restore",
    "retention": "old archives removed",
}
CHARTS = {
    "repository": "Repository on the server",
    "free": "Free space on the server",
    "data": "Data of the CHT",
    "documents": "Documents in the CHT",
}
VERDICTS = {
    overview.WELL: "All is well",
    overview.WARNINGS: "There are warnings",
    overview.SOMEBODY: "Somebody has to look",
    overview.UNKNOWN: "Not everything is known",
}


_LINK = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/#-]*)?")
UNREADABLE = "It answered, but not with a report. Is another version of the programs on it?"


def page(reports: list[Any], unreached: list[Any], now: float) -> str:
    """The page.

    `reports` are what machines said (`watch report`), `unreached` a `name` and a `why` for each that couldn't be asked,
    `now` when that was, in seconds since 1970. Never raises for what a report holds.
    """
    known = [report for report in reports if overview.usable(report)]
    missing = [mapping(each) for each in unreached]
    missing += [{"name": name_of(mapping(of)), "why": UNREADABLE} for of in reports if not overview.usable(of)]
    found = overview.conditions(known)
    verdict = overview.verdict(found, bool(known) and not missing)
    deployment = next((shown(text(of.get("deployment"))) for of in known if of.get("deployment")), "a deployment")
    parts = [
        f'<header class="{verdict}"><h1>Backups of {deployment}</h1><p class="verdict">{VERDICTS[verdict]}</p>',
        f"<p>As of {clock(now)} UTC, by {_named(known)}. Where that is hours ago, whatever makes this page has stopped:"
        " that needs somebody, too.</p></header><main>",
        _section("What is wrong", _wrong(found, missing, now)),
        _section("The last of each", _runs(runs(known))),
        _section(f"The last {WEEKS} weeks", _calendar(marks(known), now)),
        _section("Space", _space(known)),
        _section("Sizes over time", _charts(sizes(known))),
        _section("Next", _next(known)),
        "</main>",
    ]
    return render(f"Backups of {deployment}: {VERDICTS[verdict].lower()}", "".join(parts))


def render(title: str, body: str) -> str:
    style = resources.files("chtbackup").joinpath("watch", "page.css").read_text("utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        # Whatever got past the escaping could load nothing and run nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>\n{style}</style></head>\n<body>{body}</body></html>\n"
    )


def _named(reports: list[dict[str, Any]]) -> str:
    return ", ".join(shown(machine_named(of)) for of in reports) or "no machine"


def _section(heading: str, content: str) -> str:
    return f"\n<section><h2>{heading}</h2>{content}</section>" if content else ""


def _wrong(told: list[Condition], missing: list[dict[str, Any]], now: float) -> str:
    silent = [
        f"<li><h3>{shown(text(of.get('name')))} couldn’t be asked</h3><p>{shown(text(of.get('why')))}</p></li>"
        for of in missing
    ]
    if not told and not silent:
        return "<p>Nothing that the machines know of.</p>"
    worst = [_condition(of, now) for of in told if of.severity == overview.CRITICAL]
    others = [_condition(of, now) for of in told if of.severity != overview.CRITICAL]
    return f'<ul class="conditions">{"".join(worst + silent + others)}</ul>'


def _condition(condition: Condition, now: float) -> str:
    critical = condition.severity == overview.CRITICAL
    since = "" if condition.since is None else f", since {clock(condition.since)} UTC ({ago(condition.since, now)})"
    lines = [
        f"<h3>{shown(condition.title)}</h3>",
        f'<p class="meta"><strong>{"Needs somebody" if critical else "Warning"}</strong>{since};'
        f" told by {shown(', '.join(condition.told_by))}</p>",
    ]
    lines += [f"<p>{shown(condition.text)}</p>"] if condition.text else []
    lines += [f"<p><strong>What to do:</strong> {shown(condition.todo)}</p>"] if condition.todo else []
    lines += [_link(condition)]
    if condition.explains:
        items = "".join(f"<li>{shown(each)}</li>" for each in condition.explains)
        lines += [
            f"<details><summary>What follows from it ({len(condition.explains)})</summary><ul>{items}</ul></details>"
        ]
    return f'<li class="{condition.severity}">{"".join(lines)}</li>'


def _link(condition: Condition) -> str:
    """The way to the runbook. Only a plain address is one that a browser may follow."""
    if not condition.link:
        return ""
    if not _LINK.fullmatch(condition.link):
        return f"<p>More: {shown(condition.link)}</p>"
    return f'<p><a href="{condition.link}">More on: {shown(condition.title)}</a></p>'


def _table(heads: list[str], rows: list[list[str]]) -> str:
    """A table whose first column names its rows. On a phone each row is a block with the heads beside its cells; the
    roles say what the elements are, as some browsers forget it then."""
    head = "".join(f'<th scope="col" role="columnheader">{each}</th>' for each in heads)
    body = "".join(
        f'<tr role="row"><th scope="row" role="rowheader">{first}</th>'
        + "".join(
            f'<td role="cell" data-head="{name}"><span>{each}</span></td>' for name, each in zip(heads[1:], others)
        )
        + "</tr>"
        for first, *others in rows
    )
    return (
        f'<table role="table" class="blocks"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )


def _runs(found: list[Run]) -> str:
    if not found:
        return "<p>Nothing has run yet.</p>"
    rows = []
    for run in found:
        now = run.now or 0
        ended = {"failed": '<strong class="bad">failed</strong>', "well": "well", "waited": "waited"}[outcome(run)]
        last = f"{ended}, {ago(run.finished, now)}"
        rows.append([DUTIES[run.duty], ago(run.succeeded, now), last, shown(run.figures) or "–", shown(run.machine)])
    return _table(["What", "Last success", "Last run", "Came to", "Machine"], rows)


def _calendar(found: dict[datetime.date, dict[str, bool]], now: float) -> str:
    today = day_of(now)
    if today is None:
        return ""
    rows = []
    for week in weeks(today, WEEKS):
        cells = "".join(_day(day, found.get(day, {}), today) for day in week)
        rows.append(f'<tr><th scope="row">{week[0].strftime("%d %b")}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{day}</th>' for day in ("Week", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))
    legend = "".join(f'<li><span class="mark {name}">{LETTERS[name]}</span> {LEGEND[name]}</li>' for name in MARKED)
    return (
        f'<table class="calendar"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<ul class="legend">{legend}<li><span class="mark bad">B!</span> failed</li></ul>'
    )


def _day(day: datetime.date, ran: dict[str, bool], today: datetime.date) -> str:
    signs = []
    for name in MARKED:
        if name in ran:
            words = f"{LEGEND[name]}{'' if ran[name] else ' failed'}"
            kind, sign = (name, "") if ran[name] else ("bad", "!")
            signs.append(f'<abbr class="mark {kind}" title="{words}">{LETTERS[name]}{sign}</abbr>')
    kind = ' class="later"' if day > today else ' class="today"' if day == today else ""
    return f'<td{kind}><span class="day">{day.day}</span> {" ".join(signs)}</td>'


def _space(reports: list[dict[str, Any]]) -> str:
    rows = []
    for report in reports:
        disk = mapping(facts_of(report).get("disk"))
        if not disk:
            continue
        growth, full, now = number(disk.get("growthPerWeek")), number(disk.get("fullAt")), number(report.get("at")) or 0
        held = [
            f"{name} {size(disk[name])}"
            for name in ("repository", "data", "bucket")
            if number(disk.get(name)) is not None
        ]
        held += ['<strong class="bad">what was held back is gone</strong>'] if disk.get("reserve") is False else []
        rows.append(
            [
                shown(machine_named(report)),
                f"{size(disk.get('free'))} of {size(disk.get('total'))}",
                ", ".join(held) or "–",
                "not known yet" if growth is None else size(growth),
                "not in sight" if full is None else f"{clock(full)[:10]} (in {age(full - now)})",
            ]
        )
    heads = ["Machine", "Free", "Held", "Growth a week", "Full on"]
    return _table(heads, rows) if rows else ""


def _charts(found: dict[str, dict[datetime.date, float]]) -> str:
    figures = []
    for name, title in CHARTS.items():
        by_day = found.get(name, {})
        if len(by_day) < 2:
            continue
        days = list(by_day)
        said = (lambda value: f"{value:,.0f}") if name == "documents" else size
        words = f"{said(by_day[days[0]])} on {days[0]}, {said(by_day[days[-1]])} on {days[-1]}"
        drawing = chart(name, by_day, f"{title}: {words}")
        figures.append(f"<figure><figcaption><strong>{title}</strong><br>{words}</figcaption>{drawing}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else "<p>From the second day on.</p>"


def _next(reports: list[dict[str, Any]]) -> str:
    rows: list[tuple[float, list[str]]] = []
    for report in reports:
        for unit in map(mapping, listed(facts_of(report).get("units"))):
            at, masked = number(unit.get("next")), unit.get("masked") is True
            if at is None and not masked:
                continue
            when = '<strong class="bad">masked: it never runs</strong>' if masked else f"{clock(at)} UTC"
            rows.append((0 if masked else at or 0, [shown(text(unit.get("unit"))), when, shown(machine_named(report))]))
    rows.sort(key=lambda each: each[0])
    return _table(["Unit", "When", "Machine"], [row for _, row in rows]) if rows else ""


def main(arguments: list[str] | None = None) -> int:
    """The program `page`: from `{"reports": […], "unreached": […], "at": SECONDS}` on standard input to the page."""
    given = sys.argv[1:] if arguments is None else arguments
    if given:
        complain("usage: chtbackup page < REPORTS; reads what machines reported, as JSON, and prints a page of HTML")
        return 2
    try:
        told = mapping(json.load(sys.stdin))
    except ValueError as error:
        complain(f"standard input must be JSON: {error}")
        return 2
    at = number(told.get("at"))
    sys.stdout.write(
        page(listed(told.get("reports")), listed(told.get("unreached")), time.time() if at is None else at)
    )
    return 0
