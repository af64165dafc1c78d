"""What an alarm says, from the reports on a machine and from what systemd knows of the units."""

from __future__ import annotations

from typing import Any

from chtbackup.alert.queue import moment
from chtbackup.base.text import BUG


def describe(
    deployment: str, host: str, last: dict[str, Any] | None, unit: dict[str, str], booted: float = 0
) -> tuple[str, str]:
    """Title and text of the message, from last-backup.json and from what systemd knows about the unit.
    `booted` is when the machine was started, in seconds since 1970.

    The JSON is only believed when it is about a run that failed, and was written since the unit began: a
    unit that was killed, or whose script could not start, leaves the one of the run before.
    """
    began = begun(unit, booted)
    title = f"CHT backup {deployment} failed on {host}"
    problems = (last or {}).get("problems") or []
    # Result is "exit-code" when the script itself said so, else what ended it ("timeout", "signal", …).
    if (
        last is not None
        and not last.get("ok")
        and unit.get("Result", "exit-code") == "exit-code"
        and problems
        # The clock may have been set a little meanwhile.
        and last.get("finishedAt", 0) >= began - 5
    ):
        kept = f"archive {last['archive']} was made, but is incomplete" if last.get("archive") else "no backup was made"
        text = f"{kept} ({last.get('finished')}): {some(problems)}"
    else:
        text = ended(unit, f"cht-backup-{deployment}")
    if last is not None and last.get("lastSuccessAt") is None:
        text += ". No backup has succeeded so far."
    return title, text


def begun(unit: dict[str, str], booted: float) -> float:
    """When a unit's last run began, in seconds since 1970; 0 where systemd has failed to say."""
    started = int(unit.get("ExecMainStartTimestampMonotonic") or 0)
    return booted + started / 1e6 if started else 0


def some(problems: list[str]) -> str:
    return "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")


def ended(unit: dict[str, str], name: str) -> str:
    status = unit.get("ExecMainStatus") or "unknown"
    meaning = ", a fault of the program itself" if status == str(BUG) else ""
    return (
        f"the unit ended with {unit.get('Result') or 'an unknown result'}"
        f" (exit status {status}{meaning}); see: journalctl -u {name}"
    )


def describe_drill(
    deployment: str,
    host: str,
    latest: dict[str, Any] | None,
    units: dict[str, dict[str, str]],
    booted: float,
    seen: dict[str, Any] | None = None,
) -> tuple[str, str]:
    """Title and text of the message about a drill, from its latest report and from what systemd knows about
    the drill's units, by name. `booted` is when the machine was started, in seconds since 1970; `seen` is
    what the latest look for what is overdue came to.

    It is about the unit that failed last. A report is only believed when it was written since that unit
    began: a script that could not start leaves the one of the drill before.
    """
    name = f"cht-drill-{deployment}"
    unit, began = failed_last(units, booted, f"{name}.service")
    last = (latest or {}).get("lastSuccessAt")
    past = f"The last good one ended at {moment(last)}." if last else "No drill has succeeded so far."
    problems = (latest or {}).get("problems") or []
    if unit == f"{name}-overdue.service":
        if seen is None or seen["finishedAt"] < began - 5:
            title = f"CHT restore drill {deployment}: whether it is overdue isn't known on {host}"
            return title, ended_by(units, unit)
        doubts = seen["doubts"]
        if doubts and not seen["late"]:
            return f"CHT backup {deployment}: the copy in the bucket, as {host} sees it", some(doubts)
        title = f"CHT restore drill {deployment} is overdue on {host}"
        text = f"it is too long ago that a restore was proven. {past}"
        if latest is not None and problems:
            text += f" The latest drill failed ({latest['finished']}): {some(problems)}"
        return title, " ".join([text, *(f"The bucket: {of}." for of in doubts)])
    title = f"CHT restore drill {deployment} failed on {host}"
    # The clock may have been set a little meanwhile.
    if latest is not None and not latest["ok"] and problems and latest["finishedAt"] >= began - 5:
        about = f"archive {latest['archive']}" if latest.get("archive") else "no archive was restored"
        text = f"{about} ({latest['finished']}): {some(problems)}"
    else:
        text = ended_by(units, unit)
    return title, f"{text.removesuffix('.')}. {past}"


def failed_last(units: dict[str, dict[str, str]], booted: float, default: str) -> tuple[str, float]:
    """Which of the units failed last, and when it began, in seconds since 1970."""

    def began(unit: str) -> float:
        return begun(units.get(unit, {}), booted)

    failed = [unit for unit, of in units.items() if of.get("ActiveState") == "failed"]
    unit = max(failed, key=began, default=default)
    return unit, began(unit)


def said_of(report: dict[str, Any] | None, began: float) -> str:
    """What a report says is wrong; nothing where it isn't of the run that began then."""
    problems = (report or {}).get("problems") or []
    # The clock may have been set a little meanwhile.
    return some(problems) if report is not None and problems and report["finishedAt"] >= began - 5 else ""


def ended_by(units: dict[str, dict[str, str]], unit: str) -> str:
    return ended(units.get(unit, {}), unit.removesuffix(".service"))


def describe_bucket(
    deployment: str,
    host: str,
    reports: dict[str, dict[str, Any] | None],
    units: dict[str, dict[str, str]],
    booted: float,
) -> tuple[str, str]:
    """Title and text of the message about the copy to the bucket, or the check of it, from their latest
    `reports` (`copy`, `check`) and from what systemd knows about the units, as for a drill."""
    names = {f"cht-bucket-{what}-{deployment}.service": what for what in ("copy", "check")}
    unit, began = failed_last(units, booted, f"cht-bucket-copy-{deployment}.service")
    what, report = names[unit], reports.get(names[unit])
    said = said_of(report, began)
    text = f"({report['finished']}) {said}" if report and said else ended_by(units, unit)
    last = (report or {}).get("lastSuccessAt")
    past = f"The last good one ended at {moment(last)}." if last else "None has succeeded so far."
    failed = "Copy of the backups to the bucket failed" if what == "copy" else "Check of the bucket found problems"
    return f"{failed}: {deployment} on {host}", f"{text.removesuffix('.')}. {past}"


def describe_repository(
    deployment: str,
    host: str,
    report: dict[str, Any] | None,
    units: dict[str, dict[str, str]],
    booted: float,
) -> tuple[str, str]:
    """Title and text of the message about the repository on the server, from the audit's latest report and
    from what systemd knows about the units that seal and audit, as for a drill."""
    audit = f"cht-repository-audit-{deployment}.service"
    unit, began = failed_last(units, booted, audit)
    said = said_of(report, began)
    if unit == audit and said:
        return f"CHT backup {deployment}: somebody must look at the repository on {host}", said
    what = "audited" if unit == audit else "sealed"
    title = f"CHT backup {deployment}: the repository on {host} can't be {what}"
    return title, ended_by(units, unit)


def describe_retention(
    deployment: str,
    host: str,
    report: dict[str, Any] | None,
    units: dict[str, dict[str, str]],
    booted: float,
) -> tuple[str, str]:
    """Title and text of the message about old backups that weren't removed from the server, from the report of the
    machine that asks for it, and from what systemd knows about its unit, as for a drill."""
    unit, began = failed_last(units, booted, f"cht-retention-{deployment}.service")
    text = said_of(report, began) or ended_by(units, unit)
    last = (report or {}).get("lastSuccessAt")
    past = f"The last good run ended at {moment(last)}." if last else "No run has succeeded so far."
    title = f"CHT backup {deployment}: old backups weren't removed from the server, {host} says"
    return title, f"{text.removesuffix('.')}. {past} Nothing that is needed is lost; the server's disk fills up"


def describe_watch(deployment: str, host: str, result: str, status: str, unit: str) -> tuple[str, str]:
    """Title and text of the message about the watch itself, from what systemd says to whatever runs after it."""
    title = f"CHT backup {deployment}: nobody watches the backups on {host}"
    return title, f"{ended({'Result': result, 'ExecMainStatus': status}, unit)}. What else is wrong there isn't told."
