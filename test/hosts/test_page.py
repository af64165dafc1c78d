"""The page that says how backups stand (watch/page.py): what it shows, and what nobody can make it do."""

import contextlib
import datetime
import html.parser
import io
import json
import subprocess
import sys
import unittest
from unittest import mock

import fixture  # first: it puts the package on the path

from chtbackup.watch import days, overview, page, words

STATES = json.loads((fixture.ROOT / "test" / "fixtures" / "status-states.json").read_text())
NOW = datetime.datetime(2026, 11, 28, 12, 10, tzinfo=datetime.timezone.utc).timestamp()
DAY, HOUR = 86400, 3600
EVIL = "\x1b]0;well\x07<script>alert(1)</script>\" onload='x' \u202egpj.exe & </style></title>"


def ran(ago, **more):
    return {"ok": True, "finishedAt": NOW - ago, "lastSuccessAt": NOW - ago, "problems": [], **more}


def report(role, **more):
    known = {"deployment": "moh", "role": role, "host": f"{role}.example.org", "at": NOW}
    return {**known, "facts": {"units": [], "history": []}, "conditions": [], **more}


def condition(name, **more):
    return {"id": name, "severity": "warning", "title": name, "text": "", "todo": "", "since": NOW - HOUR, **more}


class Tags(html.parser.HTMLParser):
    """Every element with its attributes, and the text, as a browser would have them."""

    VOID = ("meta", "polygon", "polyline", "br")

    def __init__(self, source):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(reports, unreached=(), now=NOW):
    return Tags(page.page(list(reports), list(unreached), now))


class States(unittest.TestCase):
    def test_are_judged_as_on_the_operators_computer(self):
        self.assertGreaterEqual(len(STATES), 10)
        for state in STATES:
            with self.subTest(state["name"]):
                found = overview.conditions(state["reports"])
                told = [[of.id, list(of.told_by), list(of.explains)] for of in found]
                self.assertEqual(told, state["told"])
                complete = bool(state["reports"]) and not state["unreached"]
                self.assertEqual(overview.verdict(found, complete), state["verdict"])

    def test_are_on_the_page_in_their_order_beside_the_verdict(self):
        for state in STATES:
            with self.subTest(state["name"]):
                shown = read(state["reports"], state["unreached"])
                self.assertIn(page.VERDICTS[state["verdict"]], shown.text)
                found = overview.conditions(state["reports"])
                places = [
                    shown.text.index(f"{of.title} {'Needs' if of.severity == 'critical' else 'Warning'}")
                    for of in found
                ]
                self.assertEqual(places, sorted(places))
                for machine in state["unreached"]:
                    self.assertIn(f"{machine['name']} couldn’t be asked", shown.text)

    def test_that_no_report_tells_are_not_well(self):
        for nothing in ([], [{}], [None], ["well"], [{"role": "cht", "conditions": "none"}], [report("cht"), 5]):
            self.assertIn(page.VERDICTS[overview.UNKNOWN], read(nothing).text, nothing)


class Shown(unittest.TestCase):
    def setUp(self):
        facts = {
            "backup": ran(9 * HOUR, originalSize=12_300_000_000, deduplicatedSize=34_000_000, files=1),
            "drill": ran(2 * DAY, counts={"medic": 800, "_users": 63}, seconds=700, **{"from": "bucket"}),
        }
        copy = {**ran(3 * HOUR, uploadedBytes=35e6, problems=["a", "b"]), "ok": False, "lastSuccessAt": NOW - 2 * DAY}
        disk = {"path": "/srv", "total": 500e9, "free": 380e9, "repository": 80e9, "data": None, "bucket": 82e9}
        server = {
            "copy": copy,
            "check": ran(3 * DAY),
            "retention": ran(5 * DAY, removed=3, freed=1.2e9),
            "audit": ran(HOUR, archives=1234),
            "disk": {**disk, "reserve": False, "growthPerWeek": 2e9, "fullAt": NOW + 100 * DAY},
        }
        server["units"] = [
            {"unit": "cht-b.timer", "state": "active", "next": NOW + 9 * HOUR, "masked": False},
            {"unit": "cht-a.timer", "state": "active", "next": NOW + HOUR, "masked": False},
            {"unit": "cht-m.timer", "state": "inactive", "next": None, "masked": True},
        ]
        self.reports = [report("cht", facts=facts), report("server", facts=server)]

    def test_are_the_last_runs_with_age_size_and_what_went_wrong(self):
        text = read(self.reports).text
        for expected in (
            "Backup 9 h ago well, 9 h ago 1 file, 12.3 GB, 34.0 MB new cht",
            "Copy in the bucket 2 days ago failed , 3 h ago 35.0 MB uploaded, 2 problems server",
            "Restore drill 2 days ago well, 2 days ago 863 documents, from the bucket, took 12 min cht",
            "Removal of old archives 5 days ago well, 5 days ago 3 archives removed, 1.2 GB freed server",
            "Look into the repository 60 min ago well, 60 min ago 1,234 archives server",
        ):
            self.assertIn(expected, text)

    def test_is_the_room_and_the_day_on_which_it_ends(self):
        expected = "380 GB of 500 GB repository 80.0 GB, bucket 82.0 GB, what was held back is gone 2.0 GB 2027-03-08"
        self.assertIn(f"{expected} (in 100 days)", read(self.reports).text)

    def test_is_what_runs_next_the_soonest_first_and_what_never_will_before(self):
        text = read(self.reports).text
        places = [text.index(f"cht-{name}.timer") for name in "mab"]
        self.assertEqual(places, sorted(places))
        self.assertIn("cht-m.timer masked: it never runs", text)

    def test_is_nothing_where_there_is_nothing(self):
        self.assertIn("Nothing has run yet.", read([report("cht")]).text)
        self.assertNotIn("Space", read([report("cht")]).text)

    def test_ages_go_by_the_clock_of_the_machine_that_reports(self):
        self.reports[0]["at"] = NOW + DAY
        self.assertIn("Backup 33 h ago", read(self.reports).text)


class Calendar(unittest.TestCase):
    def marked(self, *reports):
        return {str(day): ran for day, ran in days.marks(list(reports)).items()}

    def test_marks_what_the_history_and_the_last_runs_tell(self):
        history = [
            {"day": "2026-11-25", "archives": 5},
            {
                "day": "2026-11-26",
                "archives": 6,
                "runs": {"copy": True, "drill": False, "nonsense": True, "restore": 1},
            },
            {"day": "2026-11-27", "archives": 6},
        ]
        copy = {"ok": False, "finishedAt": NOW, "lastSuccessAt": NOW - DAY}
        marked = self.marked(report("server", facts={"copy": copy, "audit": ran(0), "history": history}))
        self.assertEqual(
            marked,
            {
                "2026-11-26": {"backup": True, "copy": True, "drill": False},
                "2026-11-27": {"copy": True},
                "2026-11-28": {"copy": False},
            },
        )

    def test_a_failure_stays_whatever_else_went_well_that_day(self):
        history = [{"day": "2026-11-28", "runs": {"backup": False}}]
        marked = self.marked(report("cht", facts={"backup": ran(0), "history": history}))
        self.assertEqual(marked, {"2026-11-28": {"backup": False}})

    def test_has_whole_weeks_that_end_with_todays(self):
        for day in range(24, 31):
            weeks = days.weeks(datetime.date(2026, 11, day), 6)
            self.assertEqual({len(week) for week in weeks}, {7})
            self.assertEqual((len(weeks), weeks[0][0].weekday()), (6, 0))
            self.assertIn(datetime.date(2026, 11, day), weeks[-1])

    def test_says_in_words_what_failed_and_not_by_colour_alone(self):
        tags = read([report("server", facts={"copy": {"ok": False, "finishedAt": NOW}})]).tags
        self.assertIn(("abbr", {"class": "mark bad", "title": "copy in the bucket failed"}), tags)


class Sizes(unittest.TestCase):
    HISTORY = [
        {"day": f"2026-11-{day:02d}", "repository": day * 1e9, "documents": {"medic": day}} for day in range(10, 28)
    ]

    def test_are_drawn_with_their_first_and_last_value_in_words(self):
        shown = read([report("server", facts={"history": self.HISTORY})])
        labels = [given["aria-label"] for tag, given in shown.tags if tag == "svg"]
        self.assertEqual(labels[0], "Repository on the server: 10.0 GB on 2026-11-10, 27.0 GB on 2026-11-27")
        self.assertEqual(labels[1], "Documents in the CHT: 10 on 2026-11-10, 27 on 2026-11-27")
        self.assertIn("10.0 GB on 2026-11-10, 27.0 GB on 2026-11-27", shown.text)

    def test_are_each_of_the_machine_whose_they_are(self):
        free = [{"day": "2026-11-27", "free": 1, "data": 2}, {"day": "2026-11-26", "free": 3}]
        other = [{"day": "2026-11-27", "free": 10, "data": 20}]
        for order in (1, -1):
            reports = [report("server", facts={"history": free}), report("cht", facts={"history": other})][::order]
            found = days.sizes(reports)
            self.assertEqual(list(found["free"].values()), [3, 1])
            self.assertEqual(list(found["data"].values()), [20])

    def test_of_a_single_day_are_no_line(self):
        self.assertIn("From the second day on.", read([report("server", facts={"history": self.HISTORY[:1]})]).text)


class Hostile(unittest.TestCase):
    """Whoever took a machine over writes its report."""

    def everywhere(self, words):
        facts = {name: ran(HOUR, problems=[words], archive=words, host=words) for name in ("backup", "copy", "drill")}
        facts["drill"]["counts"] = {words: 3}
        facts["drill"]["from"] = words
        facts["disk"] = {"path": words, "total": words, "free": words, "reserve": words}
        facts["units"] = [{"unit": words, "next": NOW, "state": words}]
        facts["history"] = [
            {"day": words},
            *({"day": f"2026-11-2{day}", "documents": {words: 5}, words: 1} for day in (1, 2)),
        ]
        told = condition(words, title=words, text=words, todo=words, link=words, severity=words, hiddenBy=words)
        return report(words, deployment=words, host=words, facts={**facts, words: ran(0)}, conditions=[told])

    def test_words_do_nothing_wherever_they_stand(self):
        shown = read([self.everywhere(EVIL)], [{"name": EVIL, "why": EVIL}])
        plain = {tag for tag, _ in read([self.everywhere("x")], [{"name": "x", "why": "x"}]).tags}
        self.assertEqual({tag for tag, _ in shown.tags}, plain)
        self.assertNotIn("script", plain)
        names = {name for _, given in shown.tags for name in given}
        self.assertFalse([name for name in names if name.startswith("on")], names)
        self.assertNotRegex(shown.text, "[\x00-\x08\x0e-\x1f\u202a-\u202e]")

    def test_only_an_ordinary_address_becomes_a_link(self):
        for link in (
            "javascript:alert(1)",
            "https://a.org/\" onclick='x'",
            "https://a@b.org/",
            "http://a.org/",
            "//a.org",
        ):
            tags = read([report("cht", conditions=[condition("a", link=link)])]).tags
            self.assertNotIn("a", [tag for tag, _ in tags], link)
        tags = read([report("cht", conditions=[condition("a", link="https://example.org/runbook#a-b")])]).tags
        self.assertIn(("a", {"href": "https://example.org/runbook#a-b"}), tags)

    def test_of_any_kind_never_keeps_the_page_from_being_made(self):
        kinds = [
            None,
            True,
            -1,
            10**30,
            1e308,
            float("nan"),
            float("inf"),
            "",
            EVIL,
            [],
            [[]],
            {},
            {"": {}},
            "2026-13-45",
        ]
        whole = self.everywhere("x")
        for value in kinds:
            for name in whole:
                read([{**whole, name: value}, value], [value])
            for name in whole["facts"]:
                read([{**whole, "facts": {**whole["facts"], name: value}}])
            for inner in (
                "finishedAt",
                "lastSuccessAt",
                "counts",
                "problems",
                "uploadedBytes",
                "removed",
                "freed",
                "seconds",
            ):
                for name in ("backup", "copy", "drill", "retention", "audit"):
                    read([report("cht", facts={name: ran(0, **{inner: value})})])
            for inner in ("total", "free", "growthPerWeek", "fullAt", "reserve", "bucket"):
                read([report("cht", facts={"disk": {"total": 1, inner: value}})])
            for name in ("day", "repository", "documents", "runs", "archives"):
                entries = [{"day": "2026-11-01", name: value}, {"day": "2026-11-02", name: value}, value]
                read([report("server", facts={"history": entries})])
            for name in ("id", "title", "since", "hiddenBy", "severity"):
                read([report("cht", conditions=[condition("a", **{name: value}), value])])
            for name in ("unit", "next", "masked"):
                read([report("cht", facts={"units": [{"next": 5, name: value}, value]})])

    def test_a_time_that_nobody_lives_to_see_is_no_reason_to_fail(self):
        for now in (0, -5, 1e17):
            read([report("cht", facts={"backup": ran(0)})], now=now)


class Secret(unittest.TestCase):
    def test_names_of_people_documents_and_databases_are_left_out(self):
        facts = {
            "backup": ran(HOUR, problems=["patient-4711 is missing"]),
            "drill": ran(HOUR, counts={"medic-user-jane-meta": 5}, problems=["jane"], log=["jane"], notes=["jane"]),
            "history": [{"day": f"2026-11-0{day}", "documents": {"medic-user-jane-meta": day}} for day in (1, 2)],
        }
        told = [condition("a", text="medic-user-jane.doe-meta.17.couch lacks org.couchdb.user:jane, and")]
        source = page.page([report("cht", facts=facts, conditions=told)], [], NOW)
        self.assertNotIn("jane", source)
        self.assertNotIn("4711", source)
        self.assertIn("medic-user-… lacks org.couchdb.user:…, and", source)

    def test_addresses_of_alarms_and_pings_are_left_out(self):
        told = [condition("a", text="mailtos://u:hunter2@mail.org and https://hc-ping.com/SECRET don’t answer")]
        source = page.page([report("cht", conditions=told)], [{"name": "x", "why": "tgram://SECRET/1"}], NOW)
        self.assertNotRegex(source, "hunter2|SECRET")
        self.assertIn("mailtos://…", source)


class Words(unittest.TestCase):
    def test_sizes_have_the_digits_that_matter(self):
        for value, expected in (
            (0, "0 bytes"), (999, "999 bytes"), (999.6, "1.0 kB"), (12_340_000, "12.3 MB"), (99_960_000, "100 MB"),
            (999_600_000, "1.0 GB"), (5e15, "5,000.0 TB"), (-12e6, "-12.0 MB"), (None, "unknown"), ("9", "unknown"),
        ):  # fmt: skip
            self.assertEqual(words.size(value), expected)

    def test_ages_have_one_unit(self):
        for seconds, expected in (
            (-5, "0 s"),
            (89, "89 s"),
            (90, "2 min"),
            (5400, "2 h"),
            (47 * HOUR, "47 h"),
            (9 * DAY, "9 days"),
        ):
            self.assertEqual(words.age(seconds), expected)


class Program(unittest.TestCase):
    def test_reads_reports_and_prints_the_page(self):
        told = json.dumps({"reports": [report("cht")], "unreached": [], "at": NOW})
        command = [sys.executable, "-I", "-B", str(fixture.ROOT / "hosts" / "chtbackup"), "page"]
        done = subprocess.run(command, input=told, capture_output=True, encoding="utf-8", timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, page.page([report("cht")], [], NOW))

    def test_says_in_one_line_what_isnt_json(self):
        said = io.StringIO()
        with mock.patch("sys.stdin", io.StringIO("no")), contextlib.redirect_stderr(said):
            self.assertEqual(page.main([]), 2)
        self.assertRegex(said.getvalue(), r"\Astandard input must be JSON: .*\n\Z")
