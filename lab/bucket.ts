/** The lab's bucket: an S3 storage in a container of its own, with versioning and object lock. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { render } from "../components/host-files";
import { type Logged, run } from "../toolchain/command";
import { labFolder, project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import type { Images } from "./images";
import { bucketContainer, label, nameOf, network } from "./machines";
import { halfADayFrom } from "./settings";

/** The shortest locks that there are, as the smallest unit is a day; `npm run lab:down` removes the disk below them. */
const [keepDays, lockDays] = [1, 2];
/** Everybody's secret by name; the storage and the stack are told from here. */
const secretsFile = join(labFolder, "bucket.json");
/** Who may do everything (but what locks forbid), write, read. */
const identities = ["owner", "writer", "reader"] as const;
type Identity = (typeof identities)[number];

/** What the stack says of the bucket, without the secrets. */
export const bucketSettings = {
  name: "cht-backup-lab",
  endpoint: `http://${nameOf("bucket")}:8333`,
  mode: "compliance",
  keepDays,
  lockDays,
  // Nobody floods it, and whoever tries it out waits for nothing.
  leastIntervalMinutes: 0,
  randomDelay: "0s",
  schedule: halfADayFrom(new Date()),
  accessKeyId: "lab-writer",
  reader: { accessKeyId: "lab-reader" },
};

/** The secrets, made where there are none. */
export function bucketSecrets(): Record<Identity, string> {
  if (!existsSync(secretsFile)) {
    mkdirSync(labFolder, { recursive: true, mode: 0o700 });
    const made = Object.fromEntries(identities.map((identity) => [identity, randomBytes(24).toString("hex")]));
    writeFileSync(`${secretsFile}.new`, JSON.stringify(made), { mode: 0o600 });
    renameSync(`${secretsFile}.new`, secretsFile);
  }
  return JSON.parse(readFileSync(secretsFile, "utf8"));
}

/** SeaweedFS's list of who may do what: the writer and the reader have the policies that a real bucket's have. */
function storageSettings(): string {
  const secrets = bucketSecrets();
  const arn = `arn:aws:s3:::${bucketSettings.name}`;
  const policy = (name: string, values: Record<string, string | number>) => {
    const text = readFileSync(join(project, "components", `bucket-${name}-policy.json`), "utf8");
    return { name, content: render(text, { BUCKET_ARN: arn, PREFIX: "lab/", ...values }) };
  };
  return JSON.stringify({
    identities: identities.map((name) => ({
      name,
      credentials: [{ accessKey: `lab-${name}`, secretKey: secrets[name] }],
      ...(name === "owner" ? { actions: ["Admin", "Read", "Write", "List", "Tagging"] } : { policyNames: [name] }),
    })),
    policies: [policy("writer", { LONGEST_LOCK_DAYS: lockDays + 1 }), policy("reader", {})],
  });
}

/** The command, in the container, that makes the bucket where it is missing, and has it lock in this mode for some days. */
export function protect(mode: string, days: number): string {
  const program = "/opt/bucket/venv/bin/python -B /opt/bucket/make-bucket.py";
  return `${program} ${bucketSettings.name} ${mode.toUpperCase()} ${days}`;
}

async function state(): Promise<string | undefined> {
  const result = await run("docker", ["inspect", "--format", "{{.State.Status}}", bucketContainer]);
  return result.code === 0 ? result.stdout.trim() : undefined;
}

/** Whether the container is there, running or not. */
export async function bucketExists(): Promise<boolean> {
  return (await state()) !== undefined;
}

/** Makes container and bucket where they are missing, starts what is stopped, and waits until the bucket is there. */
export async function ensureBucket(
  images: Pick<Images, "bucket"> | undefined,
  progress: Progress,
  logged: Logged,
): Promise<void> {
  const before = await state();
  const inside = (script: string, stdin?: string) =>
    logged.run("bucket", "docker", ["exec", "-i", bucketContainer, "sh", "-c", script], { stdin, timeoutMs: 120_000 });
  const ready = "/etc/bucket/ready";
  if (before === "running" && (await run("docker", ["exec", bucketContainer, "test", "-e", ready])).code === 0) return;
  await progress.step(before === undefined ? "making the bucket" : "starting the bucket", async () => {
    if (before === undefined) {
      if (images === undefined) throw new Problem("there is no image for the bucket");
      const named = ["--name", bucketContainer, "--hostname", "bucket", "--label", label];
      const reached = ["--network", network, "--network-alias", nameOf("bucket")];
      await logged.run("bucket", "docker", ["create", ...named, ...reached, images.bucket]);
    }
    if (before === "paused") await logged.run("bucket", "docker", ["unpause", bucketContainer]);
    await logged.run("bucket", "docker", ["start", bucketContainer]);
    // By standard input: arguments are for everybody to see.
    await inside(
      "[ -s /etc/bucket/s3.json ] || { umask 077; mkdir -p /etc/bucket; cat >/etc/bucket/s3.json.new; mv /etc/bucket/s3.json.new /etc/bucket/s3.json; }",
      storageSettings(),
    );
    await inside(`${protect(bucketSettings.mode, lockDays)} && touch ${ready}`);
  });
}
