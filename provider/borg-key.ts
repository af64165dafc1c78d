/**
 * A repository's key as `borg key export` writes it, read on the operator's side: neither machine has to be believed.
 *
 * Formats: borg 1.x, `crypto/key.py` (`KeyfileKeyBase.decrypt_key_file`, `encrypt_key_file`, `_load`) and
 * `crypto/keymanager.py` (`get_keyfile_data`). The key is a msgpack map, encrypted with AES-256-CTR and authenticated with
 * HMAC-SHA256, both by a key that PBKDF2 derives from the passphrase; around it goes another map, in base64.
 */
import { createCipheriv, createDecipheriv, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { Decoder } from "@msgpack/msgpack";
import { z } from "zod";

/** `PBKDF2_ITERATIONS` in borg 1.x's `constants.py`. */
const ITERATIONS = 100_000;
/** Borg has never used more. A forged key must not keep the operator's computer busy. */
const MOST_ITERATIONS = 10 * ITERATIONS;
/** Characters of a key in base64; borg's are 400 to 800. */
const LONGEST = 8192;
/** Where Python's `textwrap.wrap` breaks lines, by which borg writes keys. */
const LINE = 70;

const bytes = (shortest: number, longest: number) =>
  z.instanceof(Uint8Array).refine((value) => value.length >= shortest && value.length <= longest);
const text = bytes(1, 32).transform((value) => Buffer.from(value).toString("latin1"));

const envelopeSchema = z.object({
  version: z.literal(1),
  algorithm: text.pipe(z.literal("sha256")),
  iterations: z.int().min(1).max(MOST_ITERATIONS),
  salt: bytes(8, 64),
  hash: bytes(32, 32),
  data: bytes(1, 4096),
});

const contentsSchema = z.object({
  version: z.literal(1),
  repository_id: bytes(32, 32),
  enc_key: bytes(32, 32),
  enc_hmac_key: bytes(32, 128),
  id_key: bytes(32, 128),
  chunk_seed: z.int(),
});

/** What a key is made of: with these, and only with these, what was stored under it can be read. */
export interface KeyContents {
  /** Of the repository that the key belongs to, 64 hexadecimal digits. */
  repositoryId: string;
  /** AES-256's key. */
  encryptionKey: Uint8Array;
  authenticationKey: Uint8Array;
  /** What chunks get their ids by. */
  idKey: Uint8Array;
  chunkSeed: number;
  /** All of it as borg packed it, with what only borg reads. */
  packed: Uint8Array;
}

/** An opened key, or why it can't be opened, in words that go on after "the key". */
export type Opened = { contents: KeyContents } | { reason: string };

// Borg 1.x packs byte strings and texts alike, as msgpack's "raw" of old, which is the "str" of today.
const decoder = new Decoder({ rawStrings: true, maxStrLength: 64, maxBinLength: 4096, maxMapLength: 16 });

function unpack<T>(schema: z.ZodType<T>, packed: Uint8Array): T | undefined {
  try {
    return schema.safeParse(decoder.decode(packed)).data;
  } catch {
    return undefined;
  }
}

/** Takes an export apart. Undefined where it isn't one as borg 1.x writes it. */
function readExport(text: string): { repositoryId: string; blob: string } | undefined {
  if (text.length > LONGEST) return undefined;
  const [, repositoryId, base64 = ""] = /^BORG_KEY ([0-9a-f]{64})\r?\n([\s\S]+)$/.exec(text) ?? [];
  const blob = base64.replace(/\s/g, "");
  return repositoryId !== undefined && isKeyBlob(blob) ? { repositoryId, blob } : undefined;
}

/** Whether a text is base64 of the length that a key has. */
export function isKeyBlob(blob: string): boolean {
  return blob.length >= 28 && blob.length <= LONGEST && blob.length % 4 === 0 && /^[A-Za-z0-9+/]+={0,2}$/.test(blob);
}

/** The key in base64 without line breaks, which is what two texts of one key have in common. Undefined: no export. */
export const keyBlob = (exported: string): string | undefined => readExport(exported)?.blob;

/** The export of a repository's key from its base64, in the lines that borg writes. */
export function exportOf(repositoryId: string, blob: string): string {
  return `BORG_KEY ${repositoryId}\n${blob.match(new RegExp(`.{1,${LINE}}`, "g"))?.join("\n") ?? ""}\n`;
}

const derive = promisify(pbkdf2);
const derivedKey = (passphrase: string, salt: Uint8Array, iterations: number) =>
  derive(Buffer.from(passphrase, "utf8"), salt, iterations, 32, "sha256");
const digest = (key: Uint8Array, data: Uint8Array) => createHmac("sha256", key).update(data).digest();
const noNonce = Buffer.alloc(16);

/** Opens an export. Takes about 50 ms, which the passphrase's derivation is meant to take. */
export async function openKey(exported: string, passphrase: string): Promise<Opened> {
  const read = readExport(exported);
  if (read === undefined) return { reason: "is no key as borg 1.x exports it" };
  const envelope = unpack(envelopeSchema, Buffer.from(read.blob, "base64"));
  if (envelope === undefined) return { reason: "is damaged, or of a kind that borg 1.x doesn't make" };
  const key = await derivedKey(passphrase, envelope.salt, envelope.iterations);
  const decipher = createDecipheriv("aes-256-ctr", key, noNonce);
  const packed = Buffer.concat([decipher.update(envelope.data), decipher.final()]);
  if (!timingSafeEqual(digest(key, packed), envelope.hash)) return { reason: "isn't opened by the passphrase" };
  const found = unpack(contentsSchema, packed);
  if (found === undefined) return { reason: "holds something else than borg 1.x puts there" };
  const repositoryId = Buffer.from(found.repository_id).toString("hex");
  if (repositoryId !== read.repositoryId) return { reason: "is that of another repository than it says" };
  return {
    contents: {
      repositoryId,
      encryptionKey: found.enc_key,
      authenticationKey: found.enc_hmac_key,
      idKey: found.id_key,
      chunkSeed: found.chunk_seed,
      packed,
    },
  };
}

/** Whether two keys open the same archives, whatever passphrase they were wrapped by. */
export function sameKey(one: KeyContents, other: KeyContents): boolean {
  const secrets = ({ repositoryId, encryptionKey, authenticationKey, idKey, chunkSeed }: KeyContents) =>
    [encryptionKey, authenticationKey, idKey].reduce(
      (all, part) => Buffer.concat([all, Buffer.from([part.length]), part]),
      Buffer.from(`${repositoryId} ${chunkSeed} `),
    );
  // Digests by a key of this one comparison: of equal length, and nobody can know one beforehand.
  const once = randomBytes(32);
  return timingSafeEqual(digest(once, secrets(one)), digest(once, secrets(other)));
}

/** An integer or a byte string as every borg 1.x packs them: the library can only write today's "bin", not the "raw" of old. */
function pack(value: number | Uint8Array): Buffer {
  if (typeof value === "number") {
    if (value < 128) return Buffer.from([value]);
    const integer = Buffer.from([0xce, 0, 0, 0, 0]);
    integer.writeUInt32BE(value, 1);
    return integer;
  }
  if (value.length < 32) return Buffer.concat([Buffer.from([0xa0 | value.length]), value]);
  const head = Buffer.from([0xda, 0, 0]);
  head.writeUInt16BE(value.length, 1);
  return Buffer.concat([head, value]);
}

/** Wraps a key's contents by a passphrase, as borg itself does. @returns an export */
export async function wrapKey({ repositoryId, packed }: KeyContents, passphrase: string): Promise<string> {
  const salt = randomBytes(32);
  const key = await derivedKey(passphrase, salt, ITERATIONS);
  const cipher = createCipheriv("aes-256-ctr", key, noNonce);
  const entries: [name: string, value: number | Uint8Array][] = [
    ["algorithm", Buffer.from("sha256")],
    ["data", Buffer.concat([cipher.update(packed), cipher.final()])],
    ["hash", digest(key, packed)],
    ["iterations", ITERATIONS],
    ["salt", salt],
    ["version", 1],
  ];
  const envelope = Buffer.concat([
    Buffer.from([0x80 | entries.length]),
    ...entries.flatMap(([name, value]) => [pack(Buffer.from(name)), pack(value)]),
  ]);
  return exportOf(repositoryId, envelope.toString("base64"));
}
