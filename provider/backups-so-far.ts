import { posix } from "node:path";
import { z } from "zod";
import {
  type BackupsSoFarInputs,
  bucketPlace,
  byOthers,
  type Judgement,
  judge,
  type SoFar,
  type Stored,
} from "./backups-so-far-judgement";
import { readBorgConfig } from "./borg-config";
import { warn } from "./engine";
import { absolutePath, accountName, type Kind, type Machines, machineName, oneLine } from "./resource";
import { decode, type ShellCall } from "./shell";

/** What {@link Stored} is, in the output of `backups_so_far_repository`. */
function storedIn(path: string, output: string): Stored | undefined {
  const value = (name: string) => new RegExp(`^${name} (.+)$`, "m").exec(output)?.[1];
  if (!/^there$/m.test(output)) return undefined;
  const config = value("config");
  return {
    path,
    config: config === undefined ? undefined : readBorgConfig(decode(config)),
    owner: value("owner") ?? "",
    type: value("type"),
    newest: Number(value("newest") ?? 0),
    locked: /^locked$/m.test(output),
  };
}

/** A JSON file's object; empty where there is none, or another text. */
function objectIn(text: string): Record<string, unknown> {
  try {
    return (JSON.parse(text) ?? {}) as Record<string, unknown>;
  } catch {
    return {};
  }
}

async function look(
  machines: Machines,
  wanted: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
): Promise<SoFar> {
  const { machine, path, account, client, clientSettings, baseDirectory, bucketFile } = wanted;
  const ask = async (on: string, name: string, ...given: string[]) => {
    const call: ShellCall = { library: "backups_so_far", name: `backups_so_far_${name}`, arguments: given };
    return (await machines(on).read(call)).output;
  };
  const stored = async (at: string) => storedIn(at, await ask(machine, "repository", at));
  const [home, bucketText, here, clientText, settings, borgmatic, passphrase] = await Promise.all([
    ask(machine, "account", account),
    ask(machine, "file", bucketFile),
    stored(path),
    ask(client, "client", baseDirectory, clientSettings),
    ask(client, "file", `${clientSettings}/settings.json`),
    // Where the chunker was before it was in settings.json; an upgrade removes the file.
    ask(client, "file", `${clientSettings}/borgmatic.yaml`),
    ask(client, "file", `${clientSettings}/passphrase`),
  ]);
  const accountHome = home.trim() || undefined;
  const earlier = [
    ...(previous === undefined ? [] : [previous.path]),
    ...(accountHome === undefined ? [] : [`${accountHome}/${posix.basename(path)}`]),
  ].filter((each) => each !== path);
  const lines = clientText.split("\n").map((line) => line.split(" "));
  const copied = objectIn(decode(bucketText.trim()));
  const { bucket: name, prefix, endpoint } = copied as Record<string, string>;
  const { chunker } = objectIn(decode(settings.trim()));
  return {
    accountHome,
    here,
    before: (await Promise.all([...new Set(earlier)].map(stored))).find((each) => each !== undefined),
    known: lines.flatMap(([kind, id = ""]) => (kind === "knows" && /^[0-9a-f]{64}$/.test(id) ? [id] : [])),
    passphraseInFile: decode(passphrase.trim()).trimEnd() || undefined,
    chunker: typeof chunker === "string" ? chunker : /^chunker_params: "(.*)"$/m.exec(decode(borgmatic.trim()))?.[1],
    bucket: name === undefined || prefix === undefined ? undefined : bucketPlace({ endpoint, name, prefix }),
    others: lines.flatMap(([kind, other = "", settings = ""]) => {
      if (kind !== "deployment") return [];
      const { chtHome, repository } = objectIn(decode(settings));
      return [{ name: other, home: String(chtHome), repository: String(repository) }];
    }),
  };
}

/** Looks, changing nothing, and says what is to be said. */
export async function lookAndJudge(
  machines: Machines,
  wanted: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
): Promise<Judgement> {
  return judge(wanted, previous, await look(machines, wanted, previous));
}

/** What a deployment has so far: see `BackupsSoFar` in `index.ts`. */
export const backupsSoFar: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    deployment: oneLine,
    path: absolutePath,
    account: accountName,
    note: absolutePath,
    client: machineName,
    clientSettings: absolutePath,
    baseDirectory: absolutePath,
    home: absolutePath,
    chunker: oneLine,
    bucket: z.string(),
    bucketFile: absolutePath,
    passphrase: oneLine.optional(),
  }),
  identity: [],
  secret: ["passphrase"],
  async survey(machines, inputs, previous) {
    const [wanted, before] = [inputs as BackupsSoFarInputs, previous as BackupsSoFarInputs | undefined];
    const { mistakes, announcements } = await lookAndJudge(machines, wanted, before);
    for (const text of announcements) await warn(text);
    return mistakes;
  },
  async read(_machines, inputs, outputs) {
    return { inputs, outputs };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as BackupsSoFarInputs;
    const soFar = await look(machines, wanted, before?.inputs as BackupsSoFarInputs | undefined);
    const { here } = soFar;
    if (here?.config?.id !== undefined && byOthers(here, wanted, soFar)) {
      const note = JSON.stringify({ repository: here.config.id, transaction: here.newest });
      await machines(wanted.machine).act({
        library: "backups_so_far",
        name: "backups_so_far_adopt",
        arguments: [wanted.note, note],
      });
    }
    return {};
  },
  async remove() {
    // It has nothing of its own on the machines.
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
