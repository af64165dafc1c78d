/** docs/monitoring: alert rules for Prometheus, and the same as Grafana provisions them, a rule for each condition. */
import { join } from "node:path";
import { stringify } from "yaml";
import type { Condition } from "../conditions";
import { project } from "../paths";

const folder = join(project, "docs", "monitoring");
export const rulesFile = join(folder, "cht-backup.rules.yml");
export const grafanaAlertsFile = join(folder, "grafana-alerts.yml");

const written = "# Written by `npm run docs` from hosts/chtbackup/watch/conditions.py.\n";
/** What each series is told apart by. */
const by = "on (deployment, role)";

/** Duties whose age is judged from the time of their last success, so that it goes on ageing when nobody writes it. */
const duties: Record<string, string> = {
  "backup-overdue": "backup",
  "cht-silent": "arrival",
  "drill-overdue": "drill",
  "copy-overdue": "copy",
  "check-overdue": "check",
  "retention-overdue": "retention",
};

/** The expression that has a series for each deployment and role where the condition holds. Pure. */
export function expression({ id, hidden_by }: Pick<Condition, "id" | "hidden_by">): string {
  if (id === "watch-silent") {
    const run = "cht_backup_watch_run_timestamp_seconds";
    // The second part: a deployment whose metrics have gone altogether.
    return `time() - ${run} > ${by} cht_backup_watch_max_age_seconds or (max_over_time(${run}[7d]) unless ${run})`;
  }
  const flag = `cht_backup_condition{id="${id}"} == 1`;
  const duty = duties[id];
  const age =
    duty === undefined
      ? ""
      : ` or ${by} (time() - cht_backup_duty_last_success_timestamp_seconds{duty="${duty}"}` +
        ` > ${by} cht_backup_duty_max_age_seconds{duty="${duty}"})`;
  const hidden =
    hidden_by.length === 0 ? "" : ` unless ${by} (cht_backup_condition{id=~"${hidden_by.join("|")}"} == 1)`;
  return `(${flag}${age})${hidden}`;
}

/** `ChtBackupDiskFull` of `disk-full`. */
export const alertName = (id: string) =>
  `ChtBackup${id.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())}`;

const annotations = (of: Condition) => ({
  summary: `CHT backup {{ $labels.deployment }} (${of.seen.length === 1 ? of.seen[0] : "{{ $labels.role }}"}): ${of.title}`,
  description: `${of.meaning} What to do: ${of.todo}`,
  runbook: of.link,
});

/** Rules as Prometheus reads them (`rule_files`). Pure. */
export function prometheusRules(conditions: Condition[]): string {
  const rules = conditions.map((of) => ({
    alert: alertName(of.id),
    expr: expression(of),
    // Scrapes may be late; what holds has held for an hour when it is written.
    for: of.id === "watch-silent" ? "1h" : "10m",
    labels: { severity: of.severity, condition: of.id },
    annotations: annotations(of),
  }));
  const more = [
    {
      alert: "ChtBackupMetricsUnreadable",
      expr: "node_textfile_scrape_error == 1",
      for: "30m",
      labels: { severity: "warning" },
      annotations: { summary: "node_exporter on {{ $labels.instance }} can't read a file of its textfile collector" },
    },
    {
      alert: "ChtBackupNoMetrics",
      expr: "absent_over_time(cht_backup_watch_run_timestamp_seconds[3h])",
      for: "10m",
      labels: { severity: "critical" },
      annotations: { summary: "No machine of any deployment reports: an empty Prometheus, or a wrong scrape job" },
    },
    {
      // To be sent to a service that notices when it no longer comes: else nobody sees that Prometheus is dead.
      alert: "ChtBackupAlertsWork",
      expr: "vector(1)",
      labels: { severity: "none" },
      annotations: { summary: "Always on: whoever gets it must notice when it stops" },
    },
  ];
  return written + stringify({ groups: [{ name: "cht-backup", rules: [...rules, ...more] }] }, { lineWidth: 0 });
}

/** Where Grafana of CHT Watchdog has its Prometheus: made by Grafana from the name. */
export const datasource = "PBFA97CFB590B2093";

/** Query, last value, threshold: the form of a rule that Grafana provisions. */
function grafanaRule(of: Condition) {
  const expr = `count by (deployment, role) (${expression(of)})`;
  const relativeTimeRange = { from: 900, to: 0 };
  return {
    uid: `cht-backup-${of.id}`,
    title: alertName(of.id),
    condition: "C",
    data: [
      {
        refId: "A",
        relativeTimeRange,
        datasourceUid: datasource,
        model: { refId: "A", expr, instant: true, datasource: { type: "prometheus", uid: datasource } },
      },
      {
        refId: "B",
        relativeTimeRange,
        datasourceUid: "__expr__",
        model: { refId: "B", type: "reduce", reducer: "last", expression: "A" },
      },
      {
        refId: "C",
        relativeTimeRange,
        datasourceUid: "__expr__",
        model: {
          refId: "C",
          type: "threshold",
          expression: "B",
          conditions: [{ evaluator: { type: "gt", params: [0] } }],
        },
      },
    ],
    // No series: the condition holds nowhere.
    noDataState: "OK",
    execErrState: "Error",
    for: of.id === "watch-silent" ? "1h" : "10m",
    annotations: annotations(of),
    labels: { severity: of.severity, condition: of.id },
    isPaused: false,
  };
}

/** Rules as Grafana provisions them (`provisioning/alerting`). Pure. */
export function grafanaAlerts(conditions: Condition[]): string {
  const group = { orgId: 1, name: "cht-backup", folder: "CHT backup", interval: "5m" };
  const groups = [{ ...group, rules: conditions.map(grafanaRule) }];
  return written + stringify({ apiVersion: 1, groups }, { lineWidth: 0, aliasDuplicateObjects: false });
}
