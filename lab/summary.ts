/** What `npm run lab` says at its end. */
import { duration, type Timing } from "../toolchain/progress";
import type { Reached } from "./boot";
import { bucketSettings } from "./bucket";
import { containerOf, exec, type Machine } from "./machines";

/** One archive as borg tells of it. */
export interface Archive {
  name: string;
  files: number;
  originalSize: number;
  compressedSize: number;
}

/** How many files an archive holds of what a restore needs, by the words of an operator. */
export type Holdings = [what: string, files: number][];

const items: [RegExp, string][] = [
  [/(^|\/)\.shards\//, "view indexes (.shards)"],
  [/(^|\/)shards\/.*\.couch$/, "databases (shards)"],
  [/(^|\/)_[a-z_]+\.couch$/, "CouchDB's own databases"],
  [/(^|\/)\.env$/, ".env"],
  [/\.ya?ml$/, "compose files"],
  [/\.pem$/, "TLS key and certificate"],
  [/cht-credentials|cluster-credentials/, "CouchDB's credentials"],
];

/** Sorts an archive's paths into what a restore needs. */
export function holdings(paths: readonly string[]): Holdings {
  const counts = new Map<string, number>(items.map(([, name]) => [name, 0]));
  let others = 0;
  for (const path of paths) {
    const name = items.find(([pattern]) => pattern.test(path))?.[1];
    if (name === undefined) others += 1;
    else counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const result: Holdings = [...counts].filter(([, count]) => count > 0);
  return others > 0 ? [...result, ["manifest and others", others]] : result;
}

/** `1.4 MB`, in powers of 1000 as borg counts. */
export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

const borg = `
export BORG_PASSCOMMAND='cat /etc/cht-backup/lab/passphrase'
export BORG_RSH='ssh -F /etc/cht-backup/lab/ssh_config'
export BORG_BASE_DIR=/var/lib/cht-backup/lab/borg
repository=ssh://offsite/srv/cht-backup/lab/repository
`;

/** The first archive in the repository and what is in it, asked through the CHT machine; undefined when there is none. */
async function firstArchive(): Promise<{ archive: Archive; holdings: Holdings } | undefined> {
  // A copy to the bucket may have the repository's lock for a moment.
  const info = await exec("cht", `${borg} borg --lock-wait 60 info --json --first 1 "$repository"`);
  if (info.code !== 0) return undefined;
  const [first] = (JSON.parse(info.stdout) as { archives: BorgArchive[] }).archives;
  if (first === undefined) return undefined;
  const list = await exec(
    "cht",
    `${borg} borg --lock-wait 60 list --format '{type} {path}{NL}' "$repository::${first.name}"`,
  );
  const paths = list.stdout.split("\n").flatMap((line) => (line.startsWith("- ") ? [line.slice(2)] : []));
  const { nfiles, original_size, compressed_size } = first.stats;
  return {
    archive: {
      name: first.name,
      files: nfiles,
      originalSize: original_size,
      compressedSize: compressed_size,
    },
    holdings: holdings(paths),
  };
}

interface BorgArchive {
  name: string;
  stats: { nfiles: number; original_size: number; compressed_size: number };
}

/** The text at the end. */
export async function summary(lab: {
  machines: Record<Machine, Reached>;
  /** Documents by database. */
  counts: Record<string, number>;
  timings: readonly Timing[];
  deployed: boolean;
}): Promise<string> {
  const documents = Object.values(lab.counts).reduce((sum, count) => sum + count, 0);
  const { cht, server } = lab.machines;
  const lines = [
    "",
    "Machines",
    `  cht     ${cht.user}@${cht.address}   CHT with ${documents} documents in ${Object.keys(lab.counts).length} databases`,
    `  server  ${server.user}@${server.address}   takes the backups`,
    `  bucket  ${bucketSettings.endpoint}   takes copies of them; reached inside the lab's network`,
    "  ssh -i .lab/id_ed25519 USER@ADDRESS logs in; Pulumi.lab.yaml holds the settings",
  ];
  const first = lab.deployed ? await firstArchive() : undefined;
  if (first !== undefined) {
    const { archive } = first;
    lines.push(
      "",
      `First archive: ${archive.name}`,
      `  ${archive.files} files, ${size(archive.originalSize)}; ${size(archive.compressedSize)} compressed and encrypted`,
      ...first.holdings.map(([what, files]) => `  ${String(files).padStart(4)}  ${what}`),
    );
  }
  lines.push(
    "",
    "Time",
    ...lab.timings.map(({ step, milliseconds }) => `  ${duration(milliseconds).padStart(10)}  ${step}`),
  );
  const next = lab.deployed
    ? [
        ["npm run pulumi -- preview --stack lab", "whether a machine has drifted"],
        [`docker exec ${containerOf("cht")} systemctl start cht-backup-lab.service`, "another backup"],
        ["npm run drill -- --stack lab", "restore the newest backup beside the CHT, and prove it"],
        ["npm run lab:down", "remove all of it"],
      ]
    : [
        ["npm run lab", "deploy and back up"],
        ["npm run lab:down", "remove all of it"],
      ];
  const width = Math.max(...next.map(([command]) => command?.length ?? 0));
  lines.push("", "Try next", ...next.map(([command, what]) => `  ${(command ?? "").padEnd(width)}   ${what}`), "");
  return lines.join("\n");
}
