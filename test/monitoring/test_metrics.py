"""Metrics and alert rules, by Prometheus' own tools: what the watch lists is what Prometheus alarms of."""

import json
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import parts
import yaml
from watch_states import HOUR, NOW, OLD, TABLE, after, later, settings_of, well

from chtbackup.watch import metrics, state
from chtbackup.watch.condition import OPERATOR
from chtbackup.watch.conditions import BY_ID, CONDITIONS
from chtbackup.watch.judge import judge

MEASURED = [of for of in CONDITIONS if OPERATOR not in of.seen]
DUTIES = {
    "backup-overdue": ("backup", "cht"),
    "cht-silent": ("arrival", "server"),
    "drill-overdue": ("drill", "cht"),
    "copy-overdue": ("copy", "server"),
    "check-overdue": ("check", "server"),
    "retention-overdue": ("retention", "server"),
}


def rules():
    [group] = yaml.safe_load(parts.RULES.read_text())["groups"]
    return {of["labels"].get("condition", of["alert"]): of for of in group["rules"]}


def look(facts, settings, now):
    """What the watch lists of these facts when they have lasted, and the metrics that it writes."""
    memory = state.Memory(OLD)
    for at in (now - HOUR, now):
        memory = state.noted(memory, judge(facts, settings, OLD, now), settings, at)
    listed = state.listed(state.holding(memory, settings, now))
    return listed, metrics.text_of(settings, facts, listed, now)


def states():
    """A deployment in each state that the tests of the watch know: its name, its settings, its facts."""
    yield "well-cht", settings_of("cht"), well("cht")
    yield "well-server", settings_of("server"), well("server")
    for number, row in enumerate(TABLE):
        yield f"state{number}", settings_of(row[1]), after(row)


class Metrics(unittest.TestCase):
    def test_are_as_promtool_wants_them(self):
        for name, settings, facts in states():
            _, text = look(facts, {**settings, "deployment": name}, NOW)
            done = subprocess.run(
                ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
            )
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), name)
            self.assertTrue(text.endswith("\n"))

    def test_have_ages_nowhere(self):
        self.assertEqual([name for name in metrics.HELP if "age" in name and "max_age" not in name], [])

    def test_are_written_where_somebody_collects_them_and_nowhere_else(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = {**settings_of("cht"), "metricsDirectory": folder}
            metrics.write(settings, well(), [], NOW)
            [file] = Path(folder).iterdir()
            self.assertEqual(file.name, "cht-backup-moh-cht.prom")
            self.assertEqual(file.stat().st_mode & 0o777, 0o644)
            metrics.write({**settings, "metricsDirectory": f"{folder}/nowhere"}, well(), [], NOW)
            metrics.write({**settings, "metricsDirectory": None}, well(), [], NOW)
            self.assertEqual(len(list(Path(folder).iterdir())), 1)


class Rules(unittest.TestCase):
    """By `promtool test rules`, each on series made up for it: a deployment of its own for each case, all in one test,
    as promtool takes a second for one."""

    def setUp(self):
        self.series, self.deployments = {}, []

    def case(self, id, role, series, comes):
        """Series by their names and further labels, and whether the alarm of a condition has come, by minutes."""
        name = f"d{len(self.deployments)}"
        for of, values in series.items():
            self.series[of.replace("{", f'{{deployment="{name}",role="{role}",', 1)] = values
        self.deployments.append((name, id, role, comes))

    def alert(self, name, id, role, flagged):
        """The alert as it comes; of a flag, all its labels are the alert's."""
        of = rules()[id]
        texts = {
            key: text.replace("{{ $labels.deployment }}", name).replace("{{ $labels.role }}", role)
            for key, text in of["annotations"].items()
        }
        labels = {"deployment": name, "role": role, **of["labels"], **({"id": id} if flagged else {})}
        return {"exp_labels": labels, "exp_annotations": texts}

    def check(self, flagged):
        expected = {}
        for name, id, role, comes in self.deployments:
            for minutes, there in comes.items():
                alerts = expected.setdefault((id, minutes), [])
                if there:
                    alerts.append(self.alert(name, id, role, flagged))
        test = {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in self.series.items()],
            "alert_rule_test": [
                {"eval_time": f"{minutes}m", "alertname": rules()[id]["alert"], "exp_alerts": alerts}
                for (id, minutes), alerts in expected.items()
            ],
        }
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"rule_files": [str(parts.RULES)], "evaluation_interval": "1m", "tests": [test]}, file)
            file.flush()
            done = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    @staticmethod
    def flag(id):
        return f'cht_backup_condition{{id="{id}",severity="{BY_ID[id].severity}"}}'

    def test_each_condition_alarms_while_it_holds_and_not_before_nor_after(self):
        for of in MEASURED:
            for role in of.seen:
                # All cases of a condition are asked at the same times.
                self.case(of.id, role, {self.flag(of.id): "0x30 1x60 0x60"}, {30: False, 60: True, 120: False})
                for by in of.hidden_by:
                    if role in BY_ID[by].seen:
                        hidden = {self.flag(of.id): "1x60 0x60", self.flag(by): "1x120"}
                        self.case(of.id, role, hidden, {30: False, 60: False, 120: False})
                        name = self.deployments[-1][0]
                        self.deployments.append((name, by, role, {30: True, 60: True, 120: True}))
        self.check(flagged=True)

    def test_an_age_goes_on_growing_when_nobody_writes_it(self):
        for id, (duty, role) in DUTIES.items():
            given = {
                f'cht_backup_duty_last_success_timestamp_seconds{{duty="{duty}"}}': "0x200",
                f'cht_backup_duty_max_age_seconds{{duty="{duty}"}}': "7200x200",
                self.flag(id): "0x200",
            }
            self.case(id, role, given, {120: False, 140: True})
        self.check(flagged=False)

    def test_a_machine_that_doesnt_report_is_told_whether_its_metrics_stay_or_go(self):
        run, allowed = "cht_backup_watch_run_timestamp_seconds{}", "cht_backup_watch_max_age_seconds{}"
        comes = {60: False, 170: False}
        self.case("watch-silent", "server", {run: "0+60x600", allowed: "10800x600"}, {**comes, 300: False})
        self.case("watch-silent", "server", {run: "0x600", allowed: "10800x600"}, {**comes, 300: True})
        self.case("watch-silent", "cht", {run: "0+60x120", allowed: "10800x120"}, {**comes, 300: True})
        self.check(flagged=False)

    def test_there_is_one_for_each_condition_that_is_measured(self):
        self.assertEqual({of.id for of in MEASURED} - set(rules()), set())
        self.assertFalse(set(rules()) & {of.id for of in CONDITIONS if of not in MEASURED})


class Chain(unittest.TestCase):
    """A real node_exporter reads the files, a real Prometheus scrapes it and evaluates the rules."""

    def test_prometheus_alarms_of_what_the_watch_lists_in_every_state(self):
        now = time.time()
        expected = {}
        with tempfile.TemporaryDirectory() as folder:
            textfiles = Path(folder, "textfiles")
            textfiles.mkdir()
            for name, settings, facts in states():
                settings = {**settings, "deployment": name, "metricsDirectory": str(textfiles)}
                listed, _ = look(later(facts, now - NOW), settings, now)
                expected[name] = {of["id"] for of in listed if of["hiddenBy"] is None}
                metrics.write(settings, later(facts, now - NOW), listed, now)
            got = self.alerts(Path(folder), textfiles, sum(map(len, expected.values())))
        self.assertEqual(got, {name: ids for name, ids in expected.items() if ids})

    def alerts(self, folder, textfiles, many):
        """The conditions by their deployments that Prometheus alarms of."""
        exporter, prometheus = parts.free_port(), parts.free_port()
        quick = yaml.safe_load(parts.RULES.read_text())
        for of in quick["groups"][0]["rules"]:
            of["for"] = "0s"  # the only change: nobody waits for ten minutes here
        (folder / "rules.yml").write_text(json.dumps(quick))
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yml")],
            "scrape_configs": [
                {"job_name": "cht-backup", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}
            ],
        }))  # fmt: skip
        listen = f"127.0.0.1:{exporter}"
        with (
            parts.running(
                [
                    "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
                    f"--collector.textfile.directory={textfiles}", f"--web.listen-address={listen}",
                ],
                folder / "exporter.log",
            ),
            parts.running(
                [
                    "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                ],
                folder / "prometheus.log",
            ),
        ):  # fmt: skip

            def found():
                alerts = parts.ask(f"http://127.0.0.1:{prometheus}/api/v1/alerts")["data"]["alerts"]
                labels = [of["labels"] for of in alerts if "condition" in of["labels"]]
                return labels if len(labels) >= many else None

            labels = parts.wait_for(found, 60, folder / "prometheus.log")
            query = f"http://127.0.0.1:{prometheus}/api/v1/query?query=node_textfile_scrape_error"
            [error] = parts.ask(query)["data"]["result"]
            self.assertEqual(error["value"][1], "0")
        grouped = {}
        for of in labels:
            grouped.setdefault(of["deployment"], set()).add(of["condition"])
        return grouped


if __name__ == "__main__":
    unittest.main()
