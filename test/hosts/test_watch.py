"""The watch: each condition comes up and clears, is told as said and never twice; ordinary life is no alarm."""

import contextlib
import datetime
import io
import json
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import fixture  # noqa: F401 (puts the package on the path)
from watch_states import (
    DAY,
    FAILED,
    GB,
    HOUR,
    NOW,
    OLD,
    SETTINGS,
    TABLE,
    after,
    changed,
    later,
    lines,
    result,
    settings_of,
    unit,
    well,
)

from chtbackup.alert import lately
from chtbackup.alert import tell as alert_tell
from chtbackup.watch import forecast, history, program, state, units
from chtbackup.watch.condition import BY_UNIT, BY_UNIT_DAILY, CRITICAL
from chtbackup.watch.conditions import BY_ID, CONDITIONS
from chtbackup.watch.judge import judge


def found_in(facts, role="cht", began=OLD, now=NOW):
    return {of.id: of for of in judge(facts, settings_of(role), began, now)}


class Conditions(unittest.TestCase):
    def test_nothing_is_said_where_all_is_well(self):
        for role in ("cht", "server"):
            self.assertEqual(found_in(well(role), role), {})

    def test_each_comes_up_with_its_figures(self):
        for row in TABLE:
            id, role, changes, words = row
            with self.subTest(id=id, changes=list(changes)):
                found = found_in(after(row), role)
                self.assertIn(id, found)
                self.assertIn(words, found[id].text)
                self.assertNotRegex(found[id].text, r"[{}]|\.\.$")

    def test_every_condition_that_a_machine_can_see_is_in_the_table(self):
        self.assertEqual(
            {of.id for of in CONDITIONS if {*of.seen} & {"cht", "server", "drill"}} - {row[0] for row in TABLE}, set()
        )

    def test_each_is_seen_from_the_machines_that_the_list_names(self):
        for row in TABLE:
            self.assertIn(row[1], BY_ID[row[0]].seen, row[0])

    def test_one_trouble_brings_up_no_other_but_what_follows_from_it(self):
        for row in TABLE:
            found = set(found_in(after(row), row[1])) - {row[0]}
            follows = {id for id in found if row[0] in BY_ID[id].hidden_by}
            causes = found & set(BY_ID[row[0]].hidden_by)
            with self.subTest(id=row[0]):
                self.assertEqual(found - follows - causes, set())

    def test_where_nothing_is_known_only_time_speaks(self):
        for role in ("cht", "server"):
            nothing = {name: None for name in well(role)}
            facts = {**nothing, "units": [], "history": [], "alarms": {"since": None, "partly": False}, "outdated": []}
            self.assertEqual(found_in(facts, role, began=NOW - HOUR), {})
            late = set(found_in(facts, role))
            self.assertEqual({id for id in late if not id.endswith(("overdue", "silent"))}, set())
            self.assertIn("backup-overdue" if role == "cht" else "cht-silent", late)

    def test_a_first_upload_may_take_days(self):
        facts = changed(changed(well(), "backup", None), "units.1.runsSince", NOW - 3 * DAY)
        self.assertEqual(found_in(facts, began=NOW - 3 * DAY).keys(), {"backup-overdue"})

    def test_ids_and_severities_and_texts_are_such_as_others_can_use(self):
        self.assertEqual(len(BY_ID), len(CONDITIONS))
        for of in CONDITIONS:
            self.assertRegex(of.id, r"^[a-z]+(-[a-z]+)*$")
            self.assertIn(of.severity, ("warning", "critical"))
            self.assertTrue(of.todo.endswith(".") and of.meaning.endswith(".") and not of.title.endswith("."), of.id)
            self.assertLess(len(of.todo), 200, f"{of.id}: too long for a phone")
            self.assertEqual(set(of.hidden_by) - set(BY_ID), set(), of.id)


class Told(unittest.TestCase):
    """Hours of looks, with the messages that they would send."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.sent = []
        (self.folder / "alerts").write_text("json://127.0.0.1:1\n")

        def send(_queue, _addresses, title, text, good):
            self.assertEqual(good, "over since" in text)
            self.sent.append((self.now, title, text))
            return 0

        for patch in (mock.patch.object(program, "raise_alarm", send), mock.patch.object(program, "say")):
            patch.start()
            self.addCleanup(patch.stop)
        self.memory = state.Memory(OLD)
        self.now = NOW

    def look(self, facts, role="cht"):
        settings = {**settings_of(role), "state": str(self.folder)}
        found = judge(facts, settings, self.memory.began, self.now)
        self.memory = state.noted(self.memory, found, settings, self.now)
        program.tell(settings, self.memory, found, str(self.folder), self.now)
        path = str(self.folder / "watch-state.json")
        state.write(path, self.memory)  # what is kept must be what is gone on with
        self.memory = state.read(path, self.now)

    def looks(self, facts, hours, role="cht"):
        for _ in range(hours):
            self.look(later(facts, self.now - NOW), role)
            self.now += HOUR

    def titles(self):
        return [title.removeprefix("CHT backup moh on ").split(": ", 1)[1] for _, title, _ in self.sent]

    def test_at_once_then_daily_then_all_clear(self):
        # What a unit tells, it tells at once by itself.
        news = [row for row in TABLE if BY_ID[row[0]].told_by == "watch" and not BY_ID[row[0]].patient]
        self.assertGreater(len(news), 15)
        for row in news:
            with self.subTest(id=row[0]):
                self.memory, self.sent, self.now = state.Memory(OLD), [], NOW
                facts, title = after(row), BY_ID[row[0]].title
                self.look(facts, row[1])
                self.assertIn(title, self.titles()[0])
                text = self.sent[0][2]
                self.assertIn(f"What to do: {BY_ID[row[0]].todo}", text)
                self.assertIn(f"docs/runbook.md#{row[0]}", text)
                self.memory.entries = {row[0]: self.memory.entries[row[0]]}
                for hour in range(1, 47):
                    self.now = NOW + hour * HOUR
                    entry = self.memory.entries[row[0]]
                    if state.due(self.memory, {row[0]: entry}, set(), 24 * HOUR, self.now):
                        self.assertEqual(hour, 24)
                        entry.told = self.now
                self.sent.clear()
                for _ in range(3):
                    self.memory = state.noted(self.memory, [], SETTINGS, self.now)
                    program.tell({**SETTINGS, "state": "/"}, self.memory, [], str(self.folder), self.now)
                    self.now += HOUR
                self.assertEqual(self.titles(), [f"all clear: {title}"])
                self.assertRegex(self.sent[0][2], r"it lasted \d+ (days|hours)")

    def test_what_its_unit_has_told_is_only_reminded_of(self):
        facts = changed(well(), "backup", result(**{**FAILED, "lastSuccessAt": NOW - HOUR}))
        self.looks(facts, 24)
        self.assertEqual(self.sent, [])
        self.looks(facts, 2)
        self.assertEqual(self.titles(), ["The last backup failed"])
        self.sent.clear()
        self.looks(well(), 3)
        self.assertEqual(self.titles(), ["all clear: The last backup failed"])

    def test_what_a_unit_tells_daily_is_only_cleared(self):
        facts = changed(well("server"), "audit", result(ok=False, exitCode=1, problems=["objects were marked"]))
        self.looks(facts, 45, "server")
        self.assertEqual(self.titles(), [])
        self.looks(well("server"), 3, "server")
        self.assertEqual(self.titles(), ["all clear: Somebody must look at the repository"])

    def test_what_follows_from_another_is_told_only_when_that_is_over(self):
        facts = changed(well(), "server", {"address": "backup:22", "answers": False, "reason": "off", "known": None})
        facts["backup"] = result(NOW - 29 * HOUR, archive="moh-1")
        self.looks(facts, 5)
        # The first look only sees the server; a reboot isn't told.
        self.assertEqual(self.titles(), ["The backup server doesn't answer"])
        listed = state.listed(state.holding(self.memory, SETTINGS, self.now))
        hidden = {of["id"]: of["hiddenBy"] for of in listed}
        self.assertEqual(hidden, {"server-unreachable": None, "backup-overdue": "server-unreachable"})
        facts["server"] = well()["server"]
        self.looks(facts, 3)
        self.assertEqual(self.titles()[1:], ["There is no new backup", "all clear: The backup server doesn't answer"])

    def test_a_reboot_of_the_server_tells_nobody(self):
        off = changed(well(), "server.answers", False)
        for _ in range(5):
            self.looks(off, 1)
            self.looks(well(), 1)
        self.assertEqual(self.sent, [])

    def test_what_comes_and_goes_is_told_once(self):
        full = changed(well(), "disk.free", 20 * GB)
        for minutes in range(0, 240, 10):
            self.now = NOW + minutes * 60
            self.look(full if minutes % 20 == 0 else well())
        self.assertEqual(self.titles(), ["The disk is nearly full"])

    def test_several_at_once_are_one_message_the_worst_first(self):
        facts = changed(changed(well(), "certificateEnds", NOW + DAY), "disk.free", 20 * GB)
        self.looks(facts, 1)
        self.assertEqual(self.titles(), ["The disk is nearly full (and 1 more)"])
        self.assertIn("The CHT's certificate ends soon: The certificate that", self.sent[0][2])

    def test_an_alarm_that_nobody_takes_is_shown_but_adds_no_other(self):
        facts = changed(well(), "alarms", {"since": NOW - 5 * HOUR, "partly": False})
        self.looks(facts, 2)
        self.assertEqual(self.sent, [])
        self.assertEqual([of["id"] for of in state.listed(self.memory.entries)], ["alarm-undelivered"])

    def test_a_state_that_is_no_state_begins_anew(self):
        path = self.folder / "watch-state.json"
        for text in (
            "",
            "[]",
            '{"began": "x", "entries": {}, "probed": {}}',
            '{"began": 1, "entries": {"disk-full": 1}}',
        ):
            path.write_text(text)
            self.assertEqual(state.read(str(path), NOW).began, NOW)


class Month(unittest.TestCase):
    """Hour by hour, with a backup every four hours, a drill a week, copies after backups, retention once a week."""

    def test_of_ordinary_life_has_no_alarm(self):
        begin = datetime.datetime(2027, 3, 10, tzinfo=datetime.timezone.utc).timestamp()  # Europe's summer time begins
        known, memories, told = {"cht": [], "server": []}, {}, []
        last, drill, copied, kept = begin, begin, begin, begin
        for hour in range(45 * 24):
            now = begin + hour * HOUR
            day, of_day = divmod(hour, 24)
            reboot = of_day == 12 and day % 9 == 4  # a look right then sees nothing work
            if of_day % 4 == 0 and day not in (20,):  # a night and a day without a network
                last = now + 600
            if day % 7 == 0 and of_day == 10:
                drill = now
            if of_day == 8:
                copied = now
            if day % 7 == 6 and of_day == 5:
                kept = now
            documents = {"medic": 50_000 + 40 * day, "medic-sentinel": 60_000 + 40 * day, "medic-logs": 300 + day % 30}
            data = (
                20 if day < 30 else 12
            ) * GB + day * GB // 50  # CouchDB is compacted: the next archive is a full copy
            repository = 15 * GB + day * GB // 20 + (12 * GB if day >= 30 else 0) - (kept > begin) * GB
            for role in ("cht", "server"):
                facts = well(role)
                facts["disk"].update(free=500 * GB - repository, repository=repository, data=data)
                if role == "cht":
                    facts["backup"] = result(last, archive="moh", documents=documents, originalSize=data)
                    facts["drill"] = result(drill)
                    facts["certificateEnds"] = begin + 80 * DAY
                    facts["server"]["answers"] = not reboot
                else:
                    facts["lastTransactionAt"], facts["drillSeenAt"] = last, now - HOUR
                    facts["copy"] = facts["check"] = result(copied, protection=[])
                    facts["audit"], facts["retention"], facts["removedAt"] = result(last), result(kept), kept
                facts["clockSetAt"], facts["booted"] = now - HOUR, now - HOUR
                facts["history"] = history.with_today(known[role], history.line_of(facts, now))
                facts["disk"]["fullAt"] = forecast.full_at(facts["history"], facts["disk"]["free"], now)
                if reboot:
                    facts["units"] = [unit("cht-backup-moh.timer", "inactive")]
                known[role] = facts["history"]
                settings = settings_of(role)
                memory = memories.get(role) or state.Memory(begin)
                memories[role] = memory = state.noted(memory, judge(facts, settings, begin, now), settings, now)
                told += [(hour, id) for id in state.due(memory, state.holding(memory, settings, now), set(), DAY, now)]
        self.assertEqual(told, [])


class Forecast(unittest.TestCase):
    def test_a_disk_that_fills_steadily_is_full_on_its_day(self):
        known = lines(days=28, free=lambda day: 100 * GB - day * GB)
        self.assertAlmostEqual(forecast.pace(known) / GB, 7, places=3)
        days = (forecast.full_at(known, 73 * GB, NOW) - NOW) / DAY
        self.assertAlmostEqual(days, 73, delta=1)

    def test_what_retention_frees_every_week_is_no_growth(self):
        known = lines(days=42, free=lambda day: 100 * GB - day % 7 * GB)
        self.assertIsNone(forecast.full_at(known, 96 * GB, NOW))

    def test_the_first_days_say_nothing(self):
        self.assertIsNone(forecast.pace(lines(days=10, free=lambda day: (100 - 9 * day) * GB)))
        self.assertIsNone(forecast.pace([]))

    def test_what_the_cht_empties_itself_is_no_loss(self):
        known = lines(documents=lambda day: {"medic-logs": 5_000, "medic-purged-role-1": 900, "small": 50})
        self.assertEqual(forecast.collapsed(known, {"medic-logs": 1}), {})

    def test_a_slow_loss_is_one_too(self):
        known = lines(days=60, documents=lambda day: {"medic": 50_000 - 250 * day})
        self.assertEqual(set(forecast.collapsed(known, {"medic": 35_000})), {"medic"})


class Kept(unittest.TestCase):
    def test_a_history_of_years_is_no_longer_than_400_lines(self):
        known = []
        for day in range(500):
            for _ in range(2):
                known = history.with_today(known, {**lines(days=1)[0], "day": history.day_of(NOW + day * DAY)})
        self.assertEqual(len(known), 400)
        with tempfile.TemporaryDirectory() as folder:
            history.write(f"{folder}/history", known)
            with open(f"{folder}/history", "a", encoding="utf-8") as file:
                file.write('{"day": "2')  # cut off
            self.assertEqual(history.read(f"{folder}/history"), known)

    def test_a_run_that_failed_takes_nothing_away_from_the_day(self):
        good = {**lines(days=1)[0], "runs": {"backup": True, "drill": True}}
        failed = {**good, "data": None, "documents": {}, "runs": {"backup": False}}
        after = {**good, "runs": {"backup": False, "drill": True}}
        self.assertEqual(history.with_today([good], failed), [after])
        # Nor does one that succeeds later make it unseen.
        self.assertEqual(history.with_today([after], good), [after])

    def test_a_day_has_what_ran_on_it(self):
        facts = {"backup": {"ok": True, "finishedAt": NOW, "lastSuccessAt": NOW},
                 "drill": {"ok": False, "finishedAt": NOW, "lastSuccessAt": NOW - 3 * DAY},
                 "copy": {"ok": True, "finishedAt": NOW - 2 * DAY, "lastSuccessAt": NOW - 2 * DAY}}  # fmt: skip
        self.assertEqual(history.runs_on(history.day_of(NOW), facts), {"backup": True, "drill": False})


class Units(unittest.TestCase):
    SHOWN = """Result=success
NextElapseUSecRealtime=Fri 2027-01-15 10:30:00 UTC
Id=cht-drill-moh.timer
LoadState=loaded
ActiveState=active
UnitFileState=enabled
InactiveExitTimestampMonotonic=12000000

Result=success
Id=cht-backup-moh.service
LoadState=loaded
ActiveState=activating
UnitFileState=static
InactiveExitTimestampMonotonic=3600000000

Id=cht-backup-moh.timer
LoadState=masked
ActiveState=inactive
UnitFileState=masked
InactiveExitTimestampMonotonic=0
"""

    def test_are_read_as_systemd_shows_them(self):
        timer, service, masked = units.read(self.SHOWN, NOW - DAY)
        self.assertEqual((timer["next"], timer["state"], timer["runsSince"]), (NOW + 9000, "active", None))
        self.assertEqual(service["runsSince"], NOW - DAY + HOUR)
        self.assertTrue(masked["masked"] and masked["next"] is None)


class Lately(unittest.TestCase):
    """The alarm of the unit itself, which the watch makes quiet while it is the same trouble."""

    def told(self, text, gone=None, told=NOW - HOUR, reason="Connection refused by 10.0.0.2", about="backup", since=1):
        entry = {"since": since, "seen": 1, "last": 1, "text": "", "reason": reason, "told": told, "gone": gone}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state").write_text(json.dumps({"entries": {"backup-failed": entry}}))
            return lately.was_told(f"{folder}/state", about, text, NOW, began=NOW - 30)

    def test_the_same_reason_isnt_told_again_within_a_day_and_anything_else_is(self):
        text = "no backup was made (2027-01-15T07:00:00Z): Connection refused by 10.0.0.2; and 2 more"
        self.assertTrue(self.told(text))
        self.assertTrue(self.told(text.replace("0.2", "0.3")))
        self.assertFalse(self.told("no backup was made (2027-01-15T07:00:00Z): No space left on device"))
        self.assertFalse(self.told(text, gone=NOW - 60))
        self.assertFalse(self.told(text, told=None))
        self.assertFalse(self.told(text, told=NOW - 21 * HOUR))
        self.assertFalse(self.told(text, told=NOW + HOUR))
        self.assertFalse(self.told(text, reason=""))
        self.assertFalse(self.told(text, about="drill"))

    def test_a_first_failure_is_told_although_the_watch_has_seen_it_already(self):
        text = "no backup was made: Connection refused by 10.0.0.2"
        self.assertFalse(self.told(text, told=NOW - 1, since=NOW - 2))
        self.assertFalse(self.told(text, told=NOW - 1, since=NOW - 31))
        self.assertTrue(self.told(text, told=NOW - 4 * HOUR, since=NOW - 4 * HOUR))

    def test_without_the_watch_each_failure_is_told(self):
        self.assertFalse(lately.was_told("/nowhere", "backup", "text", NOW, NOW))

    def test_it_knows_the_conditions_by_their_names(self):
        once = {of.id for of in CONDITIONS if of.told_by == BY_UNIT}
        quiet = {id for ids in lately.FAILURES.values() for id in ids}
        self.assertEqual(quiet - once, set())
        # Told by the alarm of another one.
        # Of retention the unit is on another machine, or the operator saw it himself.
        self.assertEqual(once - quiet, {"bucket-unprotected", "retention-failed"})
        self.assertEqual({of.severity for of in CONDITIONS if of.told_by == BY_UNIT_DAILY}, {CRITICAL})


class Program(unittest.TestCase):
    """`chtbackup watch` as its unit and `status` start it, on a machine without systemd."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.state, self.textfiles = self.folder / "state", self.folder / "textfiles"
        for each in (self.state, self.textfiles, self.folder / "repository"):
            each.mkdir()
        settings = {
            **settings_of("server"),
            "state": str(self.state),
            "disk": str(self.folder),
            "repository": str(self.folder / "repository"),
            "reserve": str(self.folder / "reserve"),
            "reserveBytes": 4096,
            "bucketState": None,
            "copyOverdueHours": None,
            "checkOverdueHours": None,
            "metricsDirectory": str(self.textfiles),
        }
        self.settings = self.folder / "watch.json"
        self.settings.write_text(json.dumps(settings))
        (self.folder / "alerts").write_text("json://127.0.0.1:1/hunter2\n")
        self.sent = []

    def start(self, *words, takes=True):
        def deliver(_address, title, _text, _good):
            if takes:
                self.sent.append(title)
            return "" if takes else "was not delivered"

        out, error = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(alert_tell, "deliver", deliver),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(error),
        ):
            code = program.main([*words, str(self.settings)])
        self.assertNotIn("hunter2", out.getvalue() + error.getvalue())
        return code, out.getvalue(), error.getvalue()

    def test_a_run_writes_and_tells_and_a_report_prints_the_same_and_changes_nothing(self):
        code, _, _ = self.start("run")
        self.assertEqual((code, len(self.sent)), (0, 1))
        written = json.loads((self.state / "watch.json").read_text())
        self.assertEqual([of["id"] for of in written["conditions"]], ["reserve-gone"])
        collected = (self.textfiles / "cht-backup-moh-server.prom").read_text()
        self.assertIn('id="reserve-gone",severity="critical"} 1', collected)
        before = {path.name: path.read_bytes() for path in self.state.iterdir() if path.is_file()}
        code, printed, _ = self.start("report")
        self.assertEqual({path.name: path.read_bytes() for path in self.state.iterdir() if path.is_file()}, before)
        shown = json.loads(printed)
        self.assertEqual((code, shown["conditions"]), (0, written["conditions"]))
        self.assertEqual(shown.keys(), {"deployment", "role", "host", "at", "facts", "conditions"})
        for name in ("backup", "drill", "copy", "check", "audit", "retention", "disk", "lastTransactionAt",
                     "certificateEnds", "units", "history"):  # fmt: skip
            self.assertIn(name, shown["facts"])

    def test_when_it_is_over_somebody_hears_of_it(self):
        self.start("run")
        (self.folder / "reserve").write_bytes(b"x" * 4096)
        now = time.time()
        for hours in (1, 2):
            with mock.patch("time.time", lambda at=now + hours * HOUR: at):
                self.start("run")
        self.assertEqual([of.split(": ", 1)[1] for of in self.sent], [
            "The disk space held back on the server is gone",
            "all clear: The disk space held back on the server is gone",
        ])  # fmt: skip

    def test_what_nobody_takes_is_kept(self):
        self.assertEqual(self.start("run", takes=False)[0], program.UNDELIVERED)
        [kept] = (self.state / "alerts").iterdir()
        self.assertIn("held back", kept.read_text())

    def test_wrong_settings_are_one_line(self):
        for text in ("{", '{"deployment": "moh"}'):
            self.settings.write_text(text)
            code, out, error = self.start("run")
            self.assertEqual((code, out, len(error.splitlines())), (program.WRONG, "", 1))
            self.assertIn(str(self.settings), error)


if __name__ == "__main__":
    unittest.main()
