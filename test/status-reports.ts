/** Reports of a deployment's machines as `chtbackup watch report` prints them, for tests of status and page. */

const DAY = 86_400;
const HOUR = 3600;

/** A day of history, `ago` days before. */
const dayOf = (now: number, ago: number) => new Date((now - ago * DAY) * 1000).toISOString().slice(0, 10);
const every = <T>(days: number, make: (ago: number) => T) =>
  Array.from({ length: days }, (_, index) => make(days - index));

const ran = (now: number, ago: number, more: object = {}) => ({
  ok: true,
  finishedAt: now - ago,
  lastSuccessAt: now - ago,
  problems: [],
  ...more,
});

const condition = (id: string, severity: "warning" | "critical", more: object) => ({
  id,
  severity,
  title: id,
  text: "",
  todo: "",
  since: null,
  link: `docs/runbook.md#${id}`,
  hiddenBy: null,
  ...more,
});

/** What three machines say of a deployment that is well, with two months behind it. */
export function wellReports(now: number) {
  const known = { deployment: "moh", at: now, conditions: [] as object[] };
  const unit = (name: string, next: number) => ({ unit: name, state: "active", next: now + next, masked: false });
  const disk = { path: "/srv", total: 500e9, free: 380e9, repository: null, data: null, bucket: null, reserve: null };
  const cht = {
    ...known,
    role: "cht",
    host: "cht-moh",
    facts: {
      backup: ran(now, 9 * HOUR, { files: 1204, originalSize: 12.3e9, compressedSize: 4e9, deduplicatedSize: 34e6 }),
      disk: { ...disk, path: "/var/lib/cht", data: 12.3e9, growthPerWeek: 0.2e9, fullAt: null },
      certificateEnds: now + 60 * DAY,
      units: [unit("cht-backup-moh.timer", 15 * HOUR)],
      history: every(60, (ago) => ({
        day: dayOf(now, ago),
        data: (12.4 - ago / 30) * 1e9,
        free: 90e9,
        documents: { medic: 900_000 - ago * 2000, "medic-user-jane-meta": 12 },
      })),
    },
  };
  const server = {
    ...known,
    role: "server",
    host: "backup-moh",
    facts: {
      copy: ran(now, 8 * HOUR, { uploadedBytes: 35e6 }),
      check: ran(now, 2 * DAY),
      audit: ran(now, 9 * HOUR, { archives: 41 }),
      retention: ran(now, 12 * DAY, { removed: 3, freed: 1.2e9 }),
      disk: { ...disk, repository: 80e9, bucket: 82e9, reserve: true, growthPerWeek: 2e9, fullAt: now + 1300 * DAY },
      lastTransactionAt: now - 9 * HOUR,
      units: [unit("cht-bucket-copy-moh.timer", 2 * HOUR), unit("cht-bucket-check-moh.timer", 5 * DAY)],
      history: every(60, (ago) => ({
        day: dayOf(now, ago),
        repository: (80 - ago / 4) * 1e9,
        free: (380 + ago / 4) * 1e9,
        archives: 100 - ago,
        runs: { copy: ago !== 20, ...(ago % 15 === 12 ? { retention: true } : {}) },
      })),
    },
  };
  const drill = {
    ...known,
    role: "drill",
    host: "third-moh",
    facts: {
      drill: ran(now, 3 * DAY, { counts: { medic: 896_000, _users: 63 }, seconds: 700, from: "bucket" }),
      units: [unit("cht-drill-moh.timer", 4 * DAY)],
      history: every(60, (ago) => ({ day: dayOf(now, ago), runs: ago % 7 === 3 ? { drill: ago !== 24 } : {} })),
    },
  };
  return [cht, server, drill];
}

/** The same with a good deal wrong. */
export function troubledReports(now: number) {
  const [cht, server, drill] = wellReports(now) as [object, object & { facts: object }, object];
  const unreachable = { hiddenBy: "server-unreachable" };
  return [
    {
      ...cht,
      conditions: [
        condition("server-unreachable", "critical", {
          title: "The backup server doesn't answer",
          text: "backup.example.org doesn't answer: no answer at port 22.",
          todo: "See whether the server is on and its network works. Until it answers no backup can be made.",
          since: now - 3 * DAY,
        }),
        condition("backup-overdue", "critical", { ...unreachable, title: "There is no new backup", since: now - DAY }),
        condition("backup-failed", "warning", {
          ...unreachable,
          title: "The last backup failed",
          since: now - 2 * DAY,
        }),
        condition("certificate-ends", "warning", {
          title: "The CHT's certificate ends soon",
          text: "The certificate that the CHT shows ends 2026-12-10.",
          todo: "Renew it as you did the last time. Without it no phone can reach the CHT.",
          since: now - HOUR,
          link: "https://example.org/runbook#certificate-ends",
        }),
      ],
    },
    {
      ...server,
      facts: {
        ...server.facts,
        copy: ran(now, 2 * HOUR, { ok: false, lastSuccessAt: now - 2 * DAY, problems: ["no way", "no bucket"] }),
        units: [{ unit: "cht-bucket-copy-moh.timer", state: "inactive", next: null, masked: true }],
      },
    },
    drill,
  ];
}
