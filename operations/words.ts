/** Times and sizes as people read them; `hosts/chtbackup/watch/words.py` is the same for the page. Pure. */

export const UNKNOWN = "unknown";

const grouped = (value: number, digits = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** How long something took or is ago, in the one unit that matters: `3 days`. */
export function age(seconds: number): string {
  const passed = Math.max(seconds, 0);
  if (passed < 90) return `${passed.toFixed(0)} s`;
  if (passed < 90 * 60) return `${(passed / 60).toFixed(0)} min`;
  const hours = passed / 3600;
  return hours < 48 ? `${hours.toFixed(0)} h` : `${(hours / 24).toFixed(0)} days`;
}

/** @param at seconds since 1970; null: never */
export function ago(at: number | null, now: number): string {
  return at === null ? "never" : `${age(now - at)} ago`;
}

/** A time to the minute, UTC: `2026-11-28 02:10`. */
export function clock(at: number | null): string {
  if (at === null || at < 0 || at >= 1e11) return UNKNOWN;
  return new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ");
}

/** Bytes in powers of 1000, as disks are sold: `12.3 GB`. */
export function size(value: number | null): string {
  if (value === null) return UNKNOWN;
  let amount = value;
  for (const unit of ["bytes", "kB", "MB", "GB"]) {
    if (Math.abs(amount) < 999.5) {
      return `${amount.toFixed(unit === "bytes" || Math.abs(amount) >= 99.95 ? 0 : 1)} ${unit}`;
    }
    amount /= 1000;
  }
  return `${grouped(amount, 1)} TB`;
}

/** Bytes where they are compared: always in one unit. */
export const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

/** `1 file`, `2 files`. */
export function count(value: number | null, one: string): string {
  return `${value === null ? UNKNOWN : grouped(value)} ${one}${value === 1 ? "" : "s"}`;
}
