import { randomBytes } from "node:crypto";
import { z } from "zod";
import { parseFile } from "./file";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, type Machines, machineName, oneLine } from "./resource";
import { encode } from "./shell";

interface PassphraseInputs extends Inputs {
  path: string;
  value?: string;
  mode: string;
  owner: string;
  inFile: string;
}

/** What a passphrase must be that nothing was stored under yet. */
export const passphraseRule = "must be one line of 16 characters or more, without spaces at its ends";
export const isStrong = (passphrase: string) => /^\S[^\r\n]{14,}\S$/.test(passphrase);

const AS_CHOSEN = "as chosen";

/** 160 random bits in lower-case letters and digits that can't be mistaken for each other on paper, in groups. */
export function newPassphrase(bytes: Uint8Array = randomBytes(20)): string {
  const alphabet = "abcdefghjkmnpqrstuvwxyz023456789";
  let bits = 0;
  let held = 0;
  let text = "";
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += alphabet[(held >> bits) & 31];
    }
    held &= (1 << bits) - 1;
  }
  return text.match(/.{1,4}/g)?.join("-") ?? "";
}

async function inFile(machines: Machines, { machine, path }: PassphraseInputs) {
  const answer = await machines(machine).read({ library: "file", name: "file_read", arguments: [path, ""] });
  return parseFile(answer, `${machine}: ${path}`);
}

/** What is there in place of a regular file, whose text is no passphrase. */
const inPlace = (found: Awaited<ReturnType<typeof inFile>>) =>
  found !== undefined && found.mode === undefined ? found.content : undefined;

async function write(machines: Machines, { machine }: PassphraseInputs, path: string, value: string): Promise<void> {
  await machines(machine).act({
    library: "file",
    name: "file_apply",
    arguments: [path, "0600", "root", "root", encode(`${value}\n`), "", ""],
  });
}

/** A passphrase: see `Passphrase` in `index.ts`. */
export const passphrase: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    // How long it must be depends on whether something is stored under it already: `backups-so-far.ts`.
    value: oneLine.optional(),
    // Observed, not chosen.
    mode: z.literal("0600").default("0600"),
    owner: z.literal("root").default("root"),
    inFile: z.literal(AS_CHOSEN).default(AS_CHOSEN),
  }),
  identity: ["machine", "path"],
  secret: ["value", "passphrase"],
  async read(machines, inputs, outputs) {
    const found = await inFile(machines, inputs as PassphraseInputs);
    const known = outputs.passphrase as string;
    // The state knows the passphrase: a file that is gone or differs is mended from there, never the other way round.
    if (found === undefined) return { inputs: { ...inputs, inFile: "missing" }, outputs };
    if (inPlace(found) !== undefined) return { inputs: { ...inputs, inFile: inPlace(found) }, outputs };
    const same = found.content.trimEnd() === known;
    return {
      inputs: { ...inputs, mode: found.mode, owner: found.owner, inFile: same ? AS_CHOSEN : "another passphrase" },
      outputs,
    };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as PassphraseInputs;
    const found = await inFile(machines, wanted);
    const known = before?.outputs.passphrase as string | undefined;
    const other = inPlace(found);
    // What the state knows is written in its place; without that, the passphrase of all archives may be where it leads.
    if (other !== undefined && known === undefined) {
      throw new Refused(
        `${wanted.machine}: ${wanted.path} must be a regular file, found ${other}. Put the passphrase itself there, or move it away`,
      );
    }
    const inUse = other === undefined ? (found?.content.trimEnd() ?? "") : "";
    const value = wanted.value ?? known ?? (inUse || newPassphrase());
    if (known === undefined && inUse !== "" && inUse !== value) {
      throw new Refused(
        `${wanted.machine}: ${wanted.path} holds another passphrase than cht-backup:passphrase, perhaps the only one that ` +
          "opens the archives there are. Take the setting out to keep it, or move the file away",
      );
    }
    if (known !== undefined && known !== value) await write(machines, wanted, `${wanted.path}.former`, known);
    await write(machines, wanted, wanted.path, value);
    return { passphrase: value };
  },
  async remove() {
    // Without it no archive can ever be read again.
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
