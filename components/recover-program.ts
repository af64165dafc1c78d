/**
 * `recover.pyz`, the package of programs as one file: what a recovery kit on paper needs. Its SHA-256 is on the page, so the
 * bytes are the same as those that machines make of the same package (`hosts/chtbackup/base/pack.py`).
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathsIn } from "../provider/tree";
import { hostFile } from "./host-files";

export interface RecoverProgram {
  /** Of the file, wherever it is kept: it carries the sum, so that an old kit finds the one that it was printed for. */
  name: string;
  /** Hexadecimal. */
  sha256: string;
  content: Buffer;
}

/** 1980-01-01 in a zip's form, the first day that there is in it. */
const FIRST_DAY = 0x21;

/** The package of this checkout, packed. */
export function recoverProgram(folder = hostFile("chtbackup")): RecoverProgram {
  const files = pathsIn(folder).map((path): [string, Buffer] => [path, readFileSync(join(folder, path))]);
  const [, starter] = files.find(([path]) => path === "recover/__main__.py") ?? [];
  if (starter === undefined) throw new Error(`${folder} has no recover/__main__.py`);
  const inside = files.map(([path, content]): [string, Buffer] => [`chtbackup/${path}`, content]);
  const content = zipped([["__main__.py", starter], ...inside]);
  const sha256 = createHash("sha256").update(content).digest("hex");
  return { name: `recover-${sha256.slice(0, 12)}.pyz`, sha256, content };
}

/** A zip archive of files that aren't compressed, in their order (APPNOTE.TXT of PKWARE, 4.3). */
function zipped(files: [name: string, content: Buffer][]): Buffer {
  const body: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of files) {
    const path = Buffer.from(name, "ascii");
    // Version 2.0, no flags, stored; time and day; sum and sizes.
    const head = Buffer.alloc(26);
    head.writeUInt16LE(20, 0);
    head.writeUInt16LE(FIRST_DAY, 8);
    head.writeUInt32LE(crc32(content), 10);
    head.writeUInt32LE(content.length, 14);
    head.writeUInt32LE(content.length, 18);
    head.writeUInt16LE(path.length, 22);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(0o100644 * 2 ** 16, 6);
    rest.writeUInt32LE(offset, 10);
    // Made by Unix.
    directory.push(Buffer.from([0x50, 0x4b, 1, 2, 20, 3]), head, rest, path);
    body.push(Buffer.from([0x50, 0x4b, 3, 4]), head, path, content);
    offset += 4 + head.length + path.length + content.length;
  }
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(Buffer.concat(directory).length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...body, ...directory, end]);
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32 as zip has it. (Node's own came with 22.2.) */
function crc32(content: Buffer): number {
  let sum = 0xffffffff;
  for (const byte of content) sum = (sum >>> 8) ^ (table[(sum ^ byte) & 255] as number);
  return (sum ^ 0xffffffff) >>> 0;
}
