/**
 * The small languages that occur in the settings: does a text belong to one? Each function follows the manual
 * or the source of the program that reads the text in the end.
 */
import { z } from "zod";

/** Whether borg takes a text for `--compression` (`borg help compression`). */
export function isCompression(text: string): boolean {
  const [name = "", ...rest] = text.split(",");
  const level = rest[0];
  switch (name) {
    case "none":
    case "lz4":
      return rest.length === 0;
    case "zlib":
    case "lzma":
      return rest.length === 0 || (rest.length === 1 && isInteger(level, 0, 9));
    case "zstd":
      return rest.length === 0 || (rest.length === 1 && isInteger(level, 1, 22));
    case "auto":
      return rest.length > 0 && level !== "auto" && level !== "obfuscate" && isCompression(rest.join(","));
    case "obfuscate":
      return (
        (isInteger(level, 1, 6) || isInteger(level, 110, 123)) &&
        rest.length > 1 &&
        rest[1] !== "obfuscate" &&
        isCompression(rest.slice(1).join(","))
      );
    default:
      return false;
  }
}

/** The most that borg stores as one object: 20 MiB less its own header (borg's `constants.py`). */
const largestChunk = 20 * 1024 * 1024 - 41;

/** Whether borg takes a text for `--chunker-params` (borg's `ChunkerParams`). */
export function isChunker(text: string): boolean {
  const [name = "", ...rest] = text.split(",");
  if (name === "default") return rest.length === 0;
  if (name === "fixed") {
    const [size, header = "0"] = rest;
    return rest.length <= 2 && isInteger(size, 64, largestChunk) && isInteger(header, 0, largestChunk);
  }
  if (name !== "buzhash" || rest.length !== 4) return false;
  const [smallest, largest, mask, window] = rest;
  return (
    isInteger(smallest, 6, 23) &&
    isInteger(largest, 6, 23) &&
    isInteger(mask, Number(smallest), Number(largest)) &&
    isInteger(window, 1, largestChunk) &&
    Number(window) % 2 === 1
  );
}

function isInteger(text: string | undefined, lowest: number, highest: number): boolean {
  return text !== undefined && /^[0-9]{1,9}$/.test(text) && Number(text) >= lowest && Number(text) <= highest;
}

/**
 * Whether a text is an absolute path without `.` or `..` in it, of characters that mean nothing to a shell, to
 * systemd, to sshd or to borg: such paths land in the configuration of all four.
 */
export function isPath(text: string): boolean {
  return /^(?:\/[A-Za-z0-9_.+@-]+)+$/.test(text) && !text.split("/").some((part) => part === "." || part === "..");
}

export const pathRule =
  "an absolute path without `.` or `..` in it, of letters, digits and the characters `_`, `.`, `+`, `@`, `-`";

export const path = () => z.string().refine(isPath);

/** Whether a text looks like an address of apprise: a service and what it needs. */
export function isAlertAddress(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\/\S+$/i.test(text);
}

/**
 * Whether a text names a Docker image by its digest: `[REGISTRY[:PORT]/]NAME[:TAG]@sha256:…` (the grammar of
 * distribution's `reference` package). A tag may lead to another image tomorrow.
 */
export function isPinnedImage(text: string): boolean {
  const part = "[a-z0-9]+(?:(?:\\.|_{1,2}|-+)[a-z0-9]+)*";
  const registry = "[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?";
  const tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
  return new RegExp(`^(?:${registry}/)?${part}(?:/${part})*(?::${tag})?@sha256:[0-9a-f]{64}$`).test(text);
}

/** Whether a text is the address of an S3 storage: `http(s)://HOST[:PORT]`, without user, path or query. */
export function isEndpoint(text: string): boolean {
  return /^https?:\/\/(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$/.test(text);
}
