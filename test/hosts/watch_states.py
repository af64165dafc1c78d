"""Facts of machines where all is well, and each way in which it isn't: for the tests of the watch and its metrics."""

import copy

import fixture  # noqa: F401 (puts the package on the path)

from chtbackup.watch import history

HOUR, DAY = 3600, 86400
NOW = 1_800_000_000  # 2027-01-15, 08:00 UTC
GB = 10**9

SETTINGS = {
    "deployment": "moh",
    "role": "cht",
    "state": "/nowhere",
    "environments": [],
    "timers": ["cht-backup-moh.timer"],
    "services": ["cht-backup-moh.service"],
    "disk": "/nowhere",
    "repository": None,
    "reserve": None,
    "reserveBytes": 0,
    "bucketState": None,
    "drills": True,
    "certificate": True,
    "server": {"address": "backup.example.org", "port": 22, "knownHosts": "/nowhere/known_hosts"},
    "backupOverdueHours": 28,
    "silentHours": None,
    "drillLogin": None,
    "copyOverdueHours": None,
    "checkOverdueHours": None,
    "retentionOverdueHours": None,
    "quotaBytes": 0,
    "drillOverdueDays": 9,
    "hangingHours": 36,
    "diskFullDays": 30,
    "certificateDays": 14,
    "remindHours": 24,
    "graceMinutes": 30,
    "metricsDirectory": None,
}
ON_SERVER = {
    **SETTINGS,
    "role": "server",
    "drills": False,
    "certificate": False,
    "server": None,
    "repository": "/srv/moh/repository",
    "reserve": "/srv/moh/reserve",
    "bucketState": "/var/lib/bucket",
    "backupOverdueHours": None,
    "drillOverdueDays": None,
    "silentHours": 32,
    "drillLogin": {"fingerprints": ["SHA256:" + 43 * "a"], "silentHours": 26},
    "copyOverdueHours": 48,
    "checkOverdueHours": 216,
    "retentionOverdueHours": 216,
    "quotaBytes": 100 * GB,
}


def result(at=NOW - 6 * HOUR, **more):
    """A report of a run that succeeded."""
    return {"ok": True, "exitCode": 0, "finishedAt": at, "lastSuccessAt": at, "problems": [], **more}


def unit(name, state_="active", **more):
    of = {"unit": name, "state": state_, "next": None, "masked": False, "there": True, "result": "success"}
    return {**of, "runsSince": None, **more}


def lines(days=40, repository=lambda day: 40 * GB + day * GB // 10, free=lambda day: 500 * GB, data=lambda day: 20 * GB,
          documents=lambda day: {"medic": 50_000 + 20 * day, "medic-logs": 900}, now=NOW):  # fmt: skip
    """A history that ends today."""
    return [
        {
            "day": history.day_of(now - (days - 1 - day) * DAY),
            "repository": repository(day),
            "free": free(day),
            "data": data(day),
            "archives": 30,
            "documents": documents(day),
        }
        for day in range(days)
    ]


def well(role="cht"):
    """The facts of a machine where all is well."""
    on_server = role == "server"
    return {
        "backup": None if on_server else result(archive="moh-1", documents={"medic": 50_780, "medic-logs": 12}),
        "drill": None if on_server else result(NOW - 3 * DAY),
        "copy": result(protection=[]) if on_server else None,
        "check": result(NOW - 2 * DAY, protection=[]) if on_server else None,
        "audit": result() if on_server else None,
        "retention": result(NOW - 2 * DAY) if on_server else None,
        "disk": {
            "path": "/srv", "total": 900 * GB, "free": 500 * GB, "repository": 44 * GB, "data": 20 * GB, "bucket": None,
            "reserve": True, "growthPerWeek": GB, "fullAt": None,
        },
        "lastTransactionAt": NOW - 6 * HOUR if on_server else None,
        "certificateEnds": None if on_server else NOW + 60 * DAY,
        "units": [unit("cht-backup-moh.timer"), unit("cht-backup-moh.service", "inactive")],
        "history": lines(),
        "server": None if on_server else
            {"at": NOW, "address": "backup.example.org:22", "answers": True, "reason": "", "known": True},
        "drillSeenAt": NOW - HOUR if on_server else None,
        "alarms": {"since": None, "partly": False},
        "outdated": [],
        "removedAt": NOW - 2 * DAY if on_server else None,
        "clockSetAt": NOW - HOUR,
        "booted": NOW - 30 * DAY,
    }  # fmt: skip


def later(facts, seconds):
    """The same facts after some time, in which all went on as before."""
    if isinstance(facts, dict):
        times = ("finishedAt", "lastSuccessAt", "lastTransactionAt", "clockSetAt", "removedAt", "drillSeenAt")
        return {
            name: of + seconds if name in times and of is not None else later(of, seconds) for name, of in facts.items()
        }
    return facts


def changed(facts, path, value):
    """The facts with one of them changed, by its path such as `backup.ok`."""
    of = facts = copy.deepcopy(facts)
    *parts, last = path.split(".")
    for part in parts:
        of = of[int(part) if isinstance(of, list) else part]
    of[int(last) if isinstance(of, list) else last] = value
    return facts


FAILED = {"ok": False, "exitCode": 2, "archive": None, "problems": ["Connection refused"]}
OLD = NOW - 40 * DAY

TABLE = [
    # condition, role, what is changed, words that the text must have
    ("backup-failed", "cht", {"backup": result(**FAILED)}, "Connection refused"),
    ("backup-failed", "cht", {"units.1": unit("cht-backup-moh.service", "failed", result="timeout")}, "timeout"),
    ("backup-incomplete", "cht", {"backup": result(**{**FAILED, "archive": "moh-2"})}, "missing in it: Connection"),
    ("backup-overdue", "cht", {"backup": result(NOW - 29 * HOUR, archive="moh-1")}, "28 hours are allowed"),
    ("backup-overdue", "cht", {"backup": None}, "There was no complete backup so far"),
    ("backup-overdue", "cht", {"backup.lastSuccessAt": NOW + 3 * DAY}, "no complete backup so far"),
    ("backup-hanging", "cht", {"units.1.runsSince": NOW - 40 * HOUR}, "2027-01-13T16:00:00Z still runs"),
    ("documents-collapsed", "cht", {"backup.documents": {"medic": 20_000}}, "medic had 50,7"),
    ("documents-collapsed", "cht", {"backup.documents": {"medic-logs": 5}}, "and has 0"),
    ("certificate-ends", "cht", {"certificateEnds": NOW + 5 * DAY}, "on 2027-01-20"),
    ("server-unreachable", "cht", {"server.answers": False, "server.reason": "no route"}, "org:22 doesn't answer: no"),
    ("host-key-changed", "cht", {"server.known": False}, "backup.example.org:22"),
    ("key-refused", "cht", {"server.accepts": False}, "backup.example.org:22 answers, and doesn't let this machine in"),
    ("cht-silent", "server", {"lastTransactionAt": NOW - 33 * HOUR}, "32 hours are allowed"),
    ("cht-silent", "server", {"lastTransactionAt": None}, "no archive that came in so far"),
    ("drill-silent", "server", {"drillSeenAt": NOW - 27 * HOUR}, "The last login of the machine that drills is of 20"),
    ("drill-failed", "cht", {"drill": result(lastSuccessAt=NOW - 5 * DAY, ok=False, problems=["3 docs"])}, "3 docs"),
    ("drill-overdue", "cht", {"drill.lastSuccessAt": NOW - 10 * DAY}, "9 days are allowed"),
    ("copy-failed", "server", {"copy": result(ok=False, problems=["no network"], protection=[])}, "no network"),
    ("copy-overdue", "server", {"copy.lastSuccessAt": NOW - 50 * HOUR}, "48 hours"),
    ("check-failed", "server", {"check": result(ok=False, problems=["2 files aren't"], protection=[])}, "2 files"),
    ("check-overdue", "server", {"check.finishedAt": NOW - 10 * DAY}, "9 days are allowed"),
    ("bucket-unprotected", "server", {"check": result(ok=False, problems=["no lock"], protection=["no lock"])}, "lock"),
    ("audit-found", "server", {"audit": result(ok=False, exitCode=1, problems=["objects were marked"])}, "marked"),
    ("audit-failed", "server", {"audit": result(ok=False, exitCode=2, problems=["log can't be read"])}, "log can't"),
    ("audit-overdue", "server", {"audit.finishedAt": NOW - 51 * HOUR}, "50 hours"),
    ("retention-failed", "server", {"retention": result(ok=False, problems=["in use"])}, "in use"),
    ("retention-overdue", "server", {"retention.lastSuccessAt": OLD}, "9 days are allowed"),
    ("quota-near", "server", {"disk.repository": 81 * GB}, "81.0 GB of 100.0 GB"),
    ("growth-unusual", "server", {"history": lines(repository=lambda day: (40 if day < 38 else 240) * GB)}, "200.0 GB"),
    ("growth-unusual", "server", {"removedAt": OLD, "retention.finishedAt": OLD, "retention.lastSuccessAt": NOW,
                                  "history": lines(repository=lambda day: (40 if day < 38 else 4) * GB)}, "shrank"),
    ("timer-off", "cht", {"units.0.state": "inactive"}, "cht-backup-moh.timer (inactive)"),
    ("timer-off", "cht", {"units.0.masked": True}, "masked"),
    ("timer-off", "cht", {"units.0.there": False}, "gone"),
    ("programs-outdated", "server", {"outdated": ["The packages in /opt are for python3.11."]}, "python3.11"),
    ("disk-full", "server", {"disk.free": 20 * GB}, "20.0 GB are free of 900.0 GB"),
    ("disk-full-soon", "server", {"disk.fullAt": NOW + 20 * DAY}, "1.0 GB a week"),
    ("reserve-gone", "server", {"disk.reserve": False}, "/srv/moh/reserve"),
    ("clock-wrong", "cht", {"backup.finishedAt": NOW + HOUR}, "the last backup is of 2027-01-15T09:00:00Z"),
    ("clock-wrong", "cht", {"clockSetAt": NOW - 5 * DAY}, "hasn't set it since"),
    ("alarm-undelivered", "cht", {"alarms": {"since": NOW - 2 * HOUR, "partly": True}}, "not every address took"),
]  # fmt: skip


def settings_of(role):
    return ON_SERVER if role == "server" else SETTINGS


def after(table):
    role, changes = table[1], table[2]
    facts = well(role)
    for path, value in changes.items():
        facts = changed(facts, path, value)
    return facts
