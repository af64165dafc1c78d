/** A borg repository's own configuration, the file `config` in it, as borg 1.x writes it (`repository.py`). */
import { createHash } from "node:crypto";
import { isKeyBlob } from "./borg-key";

/** What a repository says of itself. */
export interface BorgConfig {
  /** 64 hexadecimal digits; undefined where it can't be read. */
  id: string | undefined;
  appendOnly: boolean;
  additionalFreeSpace: string;
  /** The wrapped key in base64, without line breaks; undefined where there is none, or it is damaged. */
  key: string | undefined;
  /** Digest of the key as it stands in the file; undefined where there is none. */
  storedKey: string | undefined;
  /** Whether borg, or some version of Python that it runs on, wouldn't read this. */
  damaged: boolean;
}

/** Values without which borg doesn't open a repository. Sizes are as `parse_file_size` takes them. */
const NEEDED: Record<string, RegExp> = {
  version: /^1$/,
  segments_per_dir: /^[1-9]\d*$/,
  max_segment_size: /^\d+(\.\d+)?[KMGT]?$/,
  id: /^[0-9a-f]{64}$/,
};

/**
 * Reads the file, whatever a hostile account has made of it. Only a line feed ends a line: Python's own reader takes a
 * carriage return for an end, too, so that a key that holds one brings in settings of its own, or is an error.
 */
export function readBorgConfig(text: string): BorgConfig {
  const values = new Map<string, string>();
  const keyLines: string[] = [];
  let damaged = !text.startsWith("[repository]\n") || /[^\t\n\x20-\x7e]/.test(text);
  let inKey = false;
  for (const line of text.split("\n").slice(text.startsWith("[") ? 1 : 0)) {
    const [, name, value = ""] = /^([a-z_]+)[ \t]*[=:][ \t]*(.*?)[ \t]*$/s.exec(line) ?? [];
    if (name !== undefined) {
      damaged ||= values.has(name);
      inKey = name === "key" && !values.has(name);
      if (!values.has(name)) values.set(name, value);
    } else if (!inKey || !/^[ \t]/.test(line)) {
      inKey = false;
      damaged ||= !/^([#;].*)?$/.test(line);
    }
    if (inKey) keyLines.push(line);
  }
  for (const [name, right] of Object.entries(NEEDED)) damaged ||= !right.test(values.get(name) ?? "");
  const stored = keyLines.join("\n");
  const key = stored.replace(/^key[ \t]*[=:]/, "").replace(/\s/g, "");
  const id = values.get("id") ?? "";
  return {
    id: NEEDED.id?.test(id) ? id : undefined,
    appendOnly: values.get("append_only") === "1",
    additionalFreeSpace: values.get("additional_free_space") ?? "0",
    key: isKeyBlob(key) ? key : undefined,
    storedKey: key === "" ? undefined : createHash("sha256").update(stored).digest("hex"),
    damaged: damaged || (key !== "" && !isKeyBlob(key)),
  };
}
