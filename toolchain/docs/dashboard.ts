/** docs/monitoring/grafana-dashboard.json: what holds, ages against what is allowed, sizes, documents. */
import { join } from "node:path";
import type { Condition } from "../conditions";
import { project } from "../paths";
import { datasource } from "./alert-rules";

export const dashboardFile = join(project, "docs", "monitoring", "grafana-dashboard.json");

const source = { type: "prometheus", uid: datasource };
const chosen = 'deployment=~"$deployment"';

interface Panel {
  title: string;
  type: "table" | "timeseries" | "bargauge";
  /** Expression and legend of each query. */
  queries: [expr: string, legend: string][];
  unit?: string;
  /** In Grafana's grid of 24 columns. */
  place: { x: number; y: number; w: number; h: number };
  more?: Record<string, unknown>;
}

function panel({ title, type, queries, unit, place, more }: Panel, index: number) {
  return {
    id: index + 1,
    title,
    type,
    datasource: source,
    gridPos: place,
    fieldConfig: { defaults: unit === undefined ? {} : { unit }, overrides: [] },
    targets: queries.map(([expr, legendFormat], number) => ({
      refId: String.fromCharCode(65 + number),
      datasource: source,
      expr,
      legendFormat,
      instant: type !== "timeseries",
      range: type === "timeseries",
      format: type === "table" ? "table" : "time_series",
    })),
    ...more,
  };
}

/** The dashboard. Pure. */
export function dashboard(conditions: Condition[]): string {
  const titles = Object.fromEntries(conditions.map(({ id, title }) => [id, { text: title }]));
  const panels: Panel[] = [
    {
      title: "What isn't well",
      type: "table",
      queries: [[`cht_backup_condition{${chosen}} == 1`, ""]],
      place: { x: 0, y: 0, w: 24, h: 8 },
      more: {
        transformations: [
          {
            id: "organize",
            options: {
              excludeByName: { Time: true, Value: true, __name__: true, job: true, instance: true },
              indexByName: { severity: 0, id: 1, deployment: 2, role: 3 },
            },
          },
        ],
        fieldConfig: {
          defaults: {},
          overrides: [
            {
              matcher: { id: "byName", options: "id" },
              properties: [{ id: "mappings", value: [{ type: "value", options: titles }] }],
            },
          ],
        },
      },
    },
    {
      title: "Age of the last success, as a part of what is allowed",
      type: "bargauge",
      queries: [
        [
          `(time() - cht_backup_duty_last_success_timestamp_seconds{${chosen}}) / cht_backup_duty_max_age_seconds{${chosen}}`,
          "{{deployment}} {{duty}}",
        ],
      ],
      unit: "percentunit",
      place: { x: 0, y: 8, w: 12, h: 9 },
    },
    {
      title: "Free space",
      type: "timeseries",
      queries: [[`cht_backup_disk_free_bytes{${chosen}}`, "{{deployment}} {{role}}"]],
      unit: "bytes",
      place: { x: 12, y: 8, w: 12, h: 9 },
    },
    {
      title: "Sizes",
      type: "timeseries",
      queries: [
        [`cht_backup_repository_size_bytes{${chosen}}`, "{{deployment}} repository"],
        [`cht_backup_data_size_bytes{${chosen}}`, "{{deployment}} data"],
        [`cht_backup_bucket_size_bytes{${chosen}}`, "{{deployment}} bucket"],
      ],
      unit: "bytes",
      place: { x: 0, y: 17, w: 12, h: 9 },
    },
    {
      title: "Documents by database",
      type: "timeseries",
      queries: [[`cht_backup_documents{${chosen}}`, "{{deployment}} {{database}}"]],
      place: { x: 12, y: 17, w: 12, h: 9 },
    },
  ];
  const variable = {
    name: "deployment",
    label: "Deployment",
    type: "query",
    datasource: source,
    query: "label_values(cht_backup_watch_run_timestamp_seconds, deployment)",
    refresh: 2,
    includeAll: true,
    multi: true,
    current: { text: "All", value: "$__all" },
  };
  const whole = {
    uid: "cht-backup",
    title: "CHT backup",
    tags: ["cht"],
    schemaVersion: 39,
    refresh: "5m",
    time: { from: "now-30d", to: "now" },
    templating: { list: [variable] },
    panels: panels.map(panel),
  };
  return `${JSON.stringify(whole, null, 2)}\n`;
}
