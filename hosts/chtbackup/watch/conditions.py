"""The one list of what can be wrong. Alarms, `watch.json`, metrics, alert rules, dashboard, status, page and runbook
are all made from it, so they can't disagree. `judge.py` says which hold, and puts the figures into the texts.

An id is a promise: it is in metrics, rules and links. The order is that of the runbook.
"""

from __future__ import annotations

from chtbackup.watch.condition import (
    BY_UNIT,
    BY_UNIT_DAILY,
    CHT,
    CRITICAL,
    DRILL,
    OPERATOR,
    SERVER,
    WARNING,
    Condition,
)

EVERYWHERE = (CHT, SERVER, DRILL)
UNREACHABLE = ("server-unreachable", "host-key-changed", "key-refused")

OF_BACKUPS = (
    Condition(
        "backup-failed", WARNING, "The last backup failed",
        "No backup was made: {reason}.",
        "The next run tries again. When it fails too, look at the reason and at the journal.",
        "The last run of the backup ended without an archive. The one before is still there.",
        commands=("systemctl status cht-backup-DEPLOYMENT", "journalctl -u cht-backup-DEPLOYMENT -n 100"),
        hidden_by=("backup-overdue", "programs-outdated", *UNREACHABLE), told_by=BY_UNIT,
    ),
    Condition(
        "backup-incomplete", WARNING, "The last backup is incomplete",
        "An archive was made, but something is missing in it: {reason}.",
        "Look at what is missing, and mend it on the CHT machine. The next run makes a whole one.",
        "The archive is kept and a restore takes an earlier, whole one unless it is told otherwise.",
        commands=("journalctl -u cht-backup-DEPLOYMENT -n 100",),
        hidden_by=("backup-overdue",), told_by=BY_UNIT,
    ),
    Condition(
        "backup-overdue", CRITICAL, "There is no new backup",
        "{past}; {allowed} are allowed.{reason}",
        "Find out why on the CHT machine, then start a backup by hand.",
        "Too much time has passed since the last complete backup, whatever the reason. What was entered into the CHT"
        " since then would be lost with that machine.",
        commands=("systemctl list-timers 'cht-*'", "systemctl start cht-backup-DEPLOYMENT"),
        hidden_by=("timer-off", "backup-hanging", "programs-outdated", *UNREACHABLE),
    ),
    Condition(
        "backup-hanging", CRITICAL, "A backup doesn't end",
        "The backup that began {began} still runs; {allowed} are usual at most.",
        "Look whether it still sends something. If not, stop it: the next one goes on from its last checkpoint.",
        "A first upload may take days, a later one doesn't. While it runs no other begins.",
        commands=("journalctl -u cht-backup-DEPLOYMENT -n 20", "systemctl stop cht-backup-DEPLOYMENT"),
    ),
    Condition(
        "documents-collapsed", CRITICAL, "Many documents are gone from the CHT",
        "{databases}.",
        "Ask who deleted them. If nobody meant to, keep all archives: run no retention, and restore from before.",
        "The last backup counted far fewer documents in a database than the weeks before: a mass deletion, by mistake"
        " or by an attacker. The older archives still have them.",
        commands=("npm run archives -- --stack STACK", "npm run restore -- --help"),
    ),
    Condition(
        "certificate-ends", WARNING, "The CHT's certificate ends soon",
        "The certificate that the CHT shows ends {ends}.",
        "Renew it as you did the last time. Without it no phone can reach the CHT.",
        "It is the certificate that the web server on the CHT machine shows on port 443. It is in each backup, too.",
        commands=("openssl s_client -connect localhost:443 </dev/null | openssl x509 -noout -enddate",),
    ),
)  # fmt: skip

OF_THE_WAY = (
    Condition(
        "server-unreachable", CRITICAL, "The backup server doesn't answer",
        "{address} doesn't answer: {reason}.",
        "See whether the server is on and its network works. Until it answers no backup can be made.",
        "This machine tries to reach the server's SSH every hour.",
        seen=(CHT, DRILL), commands=("ssh-keyscan -p PORT SERVER",), patient=True,
    ),
    Condition(
        "host-key-changed", CRITICAL, "The backup server shows another host key",
        "What answers at {address} isn't the server that the backups know.",
        "Don't trust it before you know why: it may be another machine. If it was set up anew, `up` takes its key.",
        "The key that the server shows isn't the pinned one, so every backup refuses to go there.",
        seen=(CHT, DRILL), commands=("npm run pulumi -- preview --stack STACK",),
    ),
    Condition(
        "key-refused", CRITICAL, "The backup server refuses this machine's key",
        "{address} answers, and doesn't let this machine in.",
        "See with a preview whether the key is still the one that the server lets in; `up` puts it back.",
        "This machine logs in every hour with its own key, as a backup does, and does nothing there.",
        seen=(CHT, DRILL), commands=("npm run pulumi -- preview --stack STACK",),
    ),
    Condition(
        "cht-silent", CRITICAL, "Nothing comes from the CHT machine any more",
        "{past}; {allowed} are allowed.",
        "See whether the CHT machine is on, whether it reaches the server, and what it says of its backups.",
        "The server has stored no new archive for too long. It sees this without any help of the CHT machine.",
        seen=(SERVER,), commands=("npm run pulumi -- preview --stack STACK",), hidden_by=("audit-failed",),
    ),
    Condition(
        "drill-silent", WARNING, "Nothing comes from the machine that drills any more",
        "{past}; {allowed} are allowed.",
        "See whether that machine is on, and whether it reaches the server. Until it does nothing proves the backups.",
        "A machine of its own that drills logs in on the server every hour to see whether it may. The server's sshd"
        " notes that in the journal; where it never did, nothing is said.",
        seen=(SERVER,), commands=("npm run pulumi -- preview --stack STACK",),
    ),
)  # fmt: skip

OF_DRILLS = (
    Condition(
        "drill-failed", CRITICAL, "The last restore drill failed",
        "{reason}.",
        "Read its report. Until a drill succeeds nobody knows whether the backups can be restored.",
        "The newest archive was restored for a try, and that didn't succeed.",
        seen=(CHT, DRILL),
        commands=("cat /var/lib/cht-backup/DEPLOYMENT/drills/latest.txt", "npm run drill -- --stack STACK"),
        hidden_by=("drill-overdue", "programs-outdated", *UNREACHABLE), told_by=BY_UNIT,
    ),
    Condition(
        "drill-overdue", CRITICAL, "No restore was proven for too long",
        "{past}; {allowed} are allowed.",
        "Start a drill, and read its report.",
        "A backup is proven when it was restored. That is too long ago.",
        seen=(CHT, DRILL), commands=("npm run drill -- --stack STACK",),
        hidden_by=("timer-off", "programs-outdated", *UNREACHABLE), told_by=BY_UNIT_DAILY,
    ),
)  # fmt: skip

OF_COPIES = (
    Condition(
        "copy-failed", WARNING, "The last copy to the bucket failed",
        "{reason}.",
        "The next run tries again. When it fails too, look at the journal of the server.",
        "The third copy of the backups couldn't be brought up to date. The one before is still there.",
        seen=(SERVER,), commands=("journalctl -u cht-bucket-copy-DEPLOYMENT -n 100",),
        hidden_by=("copy-overdue", "bucket-unprotected", "programs-outdated"), told_by=BY_UNIT,
    ),
    Condition(
        "copy-overdue", CRITICAL, "The copy in the bucket is old",
        "{past}; {allowed} are allowed.",
        "Find out why on the server, then start a copy by hand.",
        "If server and CHT machine were lost now, what came in since that copy would be lost, too.",
        seen=(SERVER,), commands=("systemctl start cht-bucket-copy-DEPLOYMENT",),
        hidden_by=("timer-off", "programs-outdated"),
    ),
    Condition(
        "check-failed", CRITICAL, "The check of the bucket found something",
        "{reason}.",
        "Read the whole report on the server. Don't remove anything before it is understood.",
        "The bucket was compared with the newest copy, and some of it read back.",
        seen=(SERVER,), commands=("journalctl -u cht-bucket-check-DEPLOYMENT -n 100",),
        hidden_by=("programs-outdated",), told_by=BY_UNIT,
    ),
    Condition(
        "check-overdue", WARNING, "The bucket wasn't checked for too long",
        "{past}; {allowed} are allowed.",
        "Start a check by hand, and see what it says.",
        "Only a check notices when something in the bucket was deleted or damaged.",
        seen=(SERVER,), commands=("systemctl start cht-bucket-check-DEPLOYMENT",),
        hidden_by=("timer-off", "check-failed", "bucket-unprotected", "programs-outdated"),
    ),
    Condition(
        "bucket-unprotected", CRITICAL, "The bucket protects the copies less than it should",
        "{reason}.",
        "Somebody may have changed the bucket. Set lock, versioning and public access right again.",
        "Without its lock, whoever has a key can delete the last copy.",
        seen=(SERVER,), commands=("npm run pulumi -- preview --stack STACK",), told_by=BY_UNIT,
    ),
)  # fmt: skip

OF_THE_REPOSITORY = (
    Condition(
        "audit-found", CRITICAL, "Somebody must look at the repository",
        "{reason}.",
        "Compact nothing and run no retention. Read docs/restore.md, 9, and find out who did it.",
        "The server has found in the repository's log what no backup writes, such as marks of deletion.",
        seen=(SERVER,), commands=("journalctl -u cht-repository-audit-DEPLOYMENT -n 50",), told_by=BY_UNIT_DAILY,
    ),
    Condition(
        "audit-failed", CRITICAL, "The repository can't be read",
        "{reason}.",
        "Look at the server's disk and journal. The backups in it may be damaged.",
        "The audit, which reads the repository's log after each backup, can't do so.",
        seen=(SERVER,), commands=("journalctl -u cht-repository-audit-DEPLOYMENT -n 50",), told_by=BY_UNIT_DAILY,
    ),
    Condition(
        "audit-overdue", WARNING, "The repository isn't audited any more",
        "{past}; {allowed} are allowed.",
        "Start the audit by hand, and see what it says.",
        "Without the audit nobody notices when somebody deletes archives.",
        seen=(SERVER,), commands=("systemctl start cht-repository-audit-DEPLOYMENT",),
        hidden_by=("timer-off", "audit-failed", "audit-found"),
    ),
    Condition(
        "retention-failed", WARNING, "Old archives couldn't be removed",
        "{reason}.",
        "Run it by hand from your computer: it says what it needs.",
        "The last run of retention ended without having done what it should. Nothing is lost; the disk fills.",
        seen=(SERVER,), commands=("npm run retention -- --stack STACK",), hidden_by=("retention-overdue",),
        told_by=BY_UNIT,
    ),
    Condition(
        "retention-overdue", WARNING, "Old archives weren't removed for too long",
        "{past}; {allowed} are allowed.",
        "Run it by hand from your computer: it says what it needs.",
        "Nothing else makes room on the server.",
        seen=(SERVER,), commands=("npm run retention -- --stack STACK",), hidden_by=("timer-off",),
    ),
    Condition(
        "quota-near", WARNING, "The repository has nearly its fill",
        "It takes {size} of {quota}.",
        "Remove old archives (`npm run retention`), or raise cht-backup:server.limits.quotaGibibytes.",
        "The deployment has a quota on the server, so that it can't fill the disk for others. A backup that would go"
        " beyond it fails.",
        seen=(SERVER,), commands=("npm run retention -- --stack STACK",),
    ),
    Condition(
        "growth-unusual", WARNING, "The backups grow or shrink unusually",
        "{reason}.",
        "Ask what changed: an import, photos, an upgrade? If nobody knows, look into the newest archives.",
        "The repository or the CHT's data grew in the last week far more than in any week before, or shrank although"
        " nobody removed archives.",
        seen=(CHT, SERVER), commands=("npm run archives -- --stack STACK",),
    ),
)  # fmt: skip

OF_MACHINES = (
    Condition(
        "timer-off", CRITICAL, "Something that should start by itself is switched off",
        "Switched off: {units}.",
        "Switch it on again with `npm run pulumi -- up`, which also shows what else was changed.",
        "A timer or a path unit of systemd, which starts backups, drills, copies or audits, isn't active, is masked, or"
        " is gone. What it starts doesn't happen any more.",
        seen=EVERYWHERE,
        commands=("systemctl list-timers 'cht-*'", "npm run pulumi -- up --stack STACK"), patient=True,
    ),
    Condition(
        "programs-outdated", CRITICAL, "The programs don't run after an upgrade of the system",
        "{reason}",
        "Run `npm run pulumi -- up` once: it installs them anew.",
        "The system has another Python now than the one for which the programs' packages were installed.",
        seen=EVERYWHERE, commands=("npm run pulumi -- up --stack STACK",),
    ),
    Condition(
        "disk-full", CRITICAL, "The disk is nearly full",
        "{free} are free of {total} at {path}.",
        "Make room now, or make the disk larger. On the server: `npm run retention`.",
        "A full disk ends the backups. On the server borg needs some room even to list what is there.",
        seen=EVERYWHERE, commands=("df -h", "npm run retention -- --stack STACK"),
    ),
    Condition(
        "disk-full-soon", WARNING, "The disk will be full soon",
        "At the pace of the last weeks ({pace} a week) the disk at {path} is full on {day}.",
        "Plan for a larger disk, or keep fewer archives (cht-backup:retention).",
        "Reckoned from the free space of the last four weeks.",
        seen=EVERYWHERE, commands=("npm run retention -- --stack STACK",), hidden_by=("disk-full",),
    ),
    Condition(
        "reserve-gone", CRITICAL, "The disk space held back on the server is gone",
        "The file {path} isn't there any more, or is too small.",
        "Make room, then run `npm run pulumi -- up`, which makes it again.",
        "The reserve is deleted when the disk is full, so that borg can work. It helps once.",
        seen=(SERVER,), commands=("npm run pulumi -- up --stack STACK",),
    ),
    Condition(
        "clock-wrong", WARNING, "The clock of this machine is wrong",
        "{reason}.",
        "Set the clock, and see that it is set by the network (`timedatectl`).",
        "Ages, locks in the bucket and retention go by the clock.",
        seen=EVERYWHERE, commands=("timedatectl",), patient=True,
    ),
    Condition(
        "alarm-undelivered", WARNING, "An alarm couldn't be delivered",
        "Since {waits} an alarm waits that {whom} took.",
        "See whether the addresses in cht-backup:alerts are right and the machine reaches the internet.",
        "What isn't delivered is kept and tried again for a week.",
        seen=EVERYWHERE, commands=("npm run alert-test -- --stack STACK",),
    ),
    Condition(
        "watch-silent", CRITICAL, "A machine doesn't report any more",
        "Its metrics are {age} old.",
        "See whether the machine is on. Then look at the unit that watches there.",
        "The watch itself, which writes the metrics every hour, has stopped; nothing else on that machine may be"
        " believed. Who collects the metrics notices it: no machine can say so of itself.",
        seen=(), commands=("journalctl -u 'cht-*watch-DEPLOYMENT' -n 50",),
    ),
)  # fmt: skip

OF_THE_OPERATOR = (
    Condition(
        "kit-outdated", WARNING, "The recovery kit has to be made anew",
        "{reason}.",
        "Make a new kit, give it to those who keep it, and destroy the old one.",
        "`npm run status` compares what was noted when the last kit was made with what a kit must fit today.",
        seen=(OPERATOR,), commands=("npm run recovery-kit -- --stack STACK",),
    ),
    Condition(
        "drift-unseen", WARNING, "Nobody has looked for a while whether the machines are as they were set up",
        "The last preview or `up` from this computer was {days} days ago; {allowed} are allowed.",
        "Run a preview. It changes nothing, and shows what differs.",
        "Somebody may have changed a key, a timer or a right on a machine; a preview shows it. This computer notes when"
        " it made one that ended well; where it never did, another one may.",
        seen=(OPERATOR,), commands=("npm run pulumi -- preview --stack STACK",),
    ),
)  # fmt: skip

CONDITIONS: tuple[Condition, ...] = (
    *OF_BACKUPS,
    *OF_THE_WAY,
    *OF_DRILLS,
    *OF_COPIES,
    *OF_THE_REPOSITORY,
    *OF_MACHINES,
    *OF_THE_OPERATOR,
)
BY_ID = {of.id: of for of in CONDITIONS}
