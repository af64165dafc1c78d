/**
 * What this computer has seen. Of archives, whether those that were there are still there, by their ids: names prove nothing,
 * as one can be given again. Of copies in a bucket, what `retention` compares.
 */
import { readKept, writeKept } from "../toolchain/state-files";

/** What the repository lists, with what interrupted backups have left. */
export interface Listing {
  /** The repository's id. */
  repository: string;
  /** Ids by names. */
  ids: Record<string, string>;
}

/** An archive in the server's ledger (`audit ledger`), which it makes from the repository's log, without the key. */
export interface Entry {
  id: string;
  /** When the server took it, UTC. */
  at: string;
  /** The transaction that deleted it; null while it is there. */
  gone: number | null;
}

/** What this computer has seen of a repository: names by ids. */
export interface Seen {
  repository: string;
  archives: Record<string, string>;
}

/**
 * What is missing in a listing, a line each. Pure.
 * @param server the server's ledger; undefined where it can't be asked
 * @param seen what this computer saw before; undefined where that is nothing
 */
export function missing(listing: Listing, server: Entry[] | undefined, seen: Seen | undefined): string[] {
  const there = new Set(Object.values(listing.ids));
  const before = seen?.repository === listing.repository ? seen.archives : {};
  const gone = Object.entries(before).filter(([id]) => !there.has(id));
  const unlisted = (server ?? []).filter(
    (entry) => entry.gone === null && !there.has(entry.id) && !(entry.id in before),
  );
  return [
    ...gone.map(([id, name]) => `${name} (${id.slice(0, 16)}…) was here when this computer looked before, and is gone`),
    ...unlisted.map(({ id, at }) => `the server took an archive at ${at} (${id.slice(0, 16)}…) that isn't listed`),
  ];
}

/** What a computer has seen after a listing: nothing is forgotten, unless the repository is another one. Pure. */
export function seenNow(listing: Listing, seen: Seen | undefined): Seen {
  const before = seen?.repository === listing.repository ? seen.archives : {};
  const now = Object.fromEntries(Object.entries(listing.ids).map(([name, id]) => [id, name]));
  return { repository: listing.repository, archives: { ...before, ...now } };
}

/** What a computer has seen, without archives that were removed on purpose. Pure. */
export function forgotten(seen: Seen, removed: readonly string[]): Seen {
  const gone = new Set(removed);
  const left = Object.entries(seen.archives).filter(([id]) => !gone.has(id));
  return { ...seen, archives: Object.fromEntries(left) };
}

/** A whole copy in a bucket, as `bucket-retention` describes it and takes it back. */
export interface SeenCopy {
  /** `index/…` */
  key: string;
  version: string;
  /** When the bucket received it, in seconds since 1970. */
  at: number;
  deployment: string;
  /** borg's id of the repository. */
  repository: string;
  number: number;
}

/** What this computer has seen of a bucket. */
export interface SeenCopies {
  /** Which bucket, and where in it. */
  place: string;
  copies: SeenCopy[];
}

export const readSeen = (stack: string) => readKept<Seen>("archives", stack);
export const writeSeen = (stack: string, seen: Seen) => writeKept("archives", stack, seen);
export const writeSeenCopies = (stack: string, seen: SeenCopies) => writeKept("copies", stack, seen);

/** @returns the copies that were seen there; none of another bucket */
export function readSeenCopies(stack: string, place: string): SeenCopy[] {
  const seen = readKept<SeenCopies>("copies", stack);
  return seen?.place === place ? seen.copies : [];
}
