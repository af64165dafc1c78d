/** Which key is a repository's, of those that the stack knows and those that machines show. Asks no machine. */
import { exportOf, type KeyContents, keyBlob, openKey, wrapKey } from "./borg-key";

/** Keys that the stack knows: the repository's, and those that were here before. */
export interface KnownKeys {
  repositoryId: string;
  exportedKey: string;
  /**
   * By the ids of their repositories, and where there are several of one, the last by its id, and those before it by its id,
   * a space and a number from 2 on. What was stored under another key opens with that alone, so none is ever taken out.
   */
  formerKeys: Record<string, string>;
}

/** The repository's id in a name of `formerKeys`. */
export const idOf = (name: string) => name.split(" ", 1)[0] ?? name;

/** A key that is proven: the passphrase opens it, and it says of itself that it is this repository's. */
export interface ProvenKey {
  /** Wrapped by the passphrase of today. */
  exported: string;
  contents: KeyContents;
  /** Whether the stack knew it before a machine showed it. */
  known: boolean;
}

/**
 * The key that a repository shall have: one that the stack has known before any that a machine shows. Undefined: neither
 * passphrase opens any of them.
 * @param stored what the repository has, in base64
 * @param former the passphrase before this one; empty: there was none
 */
export async function chooseKey(
  repositoryId: string,
  keys: KnownKeys | undefined,
  stored: string | undefined,
  passphrase: string,
  former: string,
): Promise<ProvenKey | undefined> {
  const earlier = Object.entries(keys?.formerKeys ?? {}).filter(([name]) => idOf(name) === repositoryId);
  const candidates = [
    ...(keys?.repositoryId === repositoryId ? [keys.exportedKey] : []),
    ...earlier.map(([, exported]) => exported),
  ].map((exported) => ({ exported, known: true }));
  if (stored !== undefined) candidates.push({ exported: exportOf(repositoryId, stored), known: false });
  for (const { exported, known } of candidates) {
    for (const secret of new Set([passphrase, former])) {
      if (secret === "") continue;
      const opened = await openKey(exported, secret);
      if ("reason" in opened || opened.contents.repositoryId !== repositoryId) continue;
      const { contents } = opened;
      return { exported: secret === passphrase ? exported : await wrapKey(contents, passphrase), contents, known };
    }
  }
  return undefined;
}

/**
 * The former keys after `next` has become the repository's: what was exported before is kept, and what is exported now
 * isn't told twice.
 */
export function formerKeysAfter(known: KnownKeys | undefined, next: string): Record<string, string> {
  const blob = (exported: string) => keyBlob(exported) ?? exported;
  const kept = Object.entries(known?.formerKeys ?? {}).filter(([, exported]) => blob(exported) !== blob(next));
  const have = (exported: string) =>
    [next, ...kept.map(([, text]) => text)].some((one) => blob(one) === blob(exported));
  if (known === undefined || known.exportedKey === "" || have(known.exportedKey)) return Object.fromEntries(kept);
  const former = new Map(kept);
  const last = former.get(known.repositoryId);
  former.set(known.repositoryId, known.exportedKey);
  let number = 2;
  while (former.has(`${known.repositoryId} ${number}`)) number++;
  if (last !== undefined) former.set(`${known.repositoryId} ${number}`, last);
  return Object.fromEntries(former);
}
