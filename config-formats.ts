/**
 * The small languages that occur in the settings: does a text belong to one? Each function follows the manual
 * or the source of the program that reads the text in the end.
 */
import { isIP } from "node:net";

const calendarWords = [
  "minutely",
  "hourly",
  "daily",
  "weekly",
  "monthly",
  "quarterly",
  "semiannually",
  "biannually",
  "bi-annually",
  "semi-annually",
  "yearly",
  "annually",
  "anually",
];

const weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const longWeekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/** Whether a text is a calendar expression of systemd.time(7), as `OnCalendar=` takes it. */
export function isCalendar(text: string): boolean {
  if (calendarWords.includes(text.toLowerCase())) return true;
  const parts = text.split(/ +/);
  if (parts.length > 1 && isTimeZone(parts.at(-1) ?? "")) parts.pop();
  if (parts.length === 1 && calendarWords.includes((parts[0] ?? "").toLowerCase())) return true;
  let left = parts;
  if (isCalendarWeekdays(left[0] ?? "")) left = left.slice(1);
  if (left.length > 0 && isCalendarDate(left[0] ?? "")) left = left.slice(1);
  if (left.length > 0 && isCalendarTime(left[0] ?? "")) left = left.slice(1);
  return left.length === 0 && text !== "";
}

/**
 * After how much time without a run one was missed, as a time span of systemd.time(7). A time that a zone leaves out when
 * its summer time begins comes only the next time for systemd.
 * @param calendar where `isCalendar`
 * @param randomDelay how much later than scheduled a run may start, where `isTimeSpan`
 */
export function missedAfter(calendar: string, randomDelay: string): string {
  // When summer time ends a day has an hour more.
  return `${longestDays(calendar) * 24 + 1}h 10min ${randomDelay}`;
}

/** How many days may be between two times of a calendar expression (`isCalendar`), or more. */
export function longestDays(calendar: string): number {
  const rare = 731;
  const parts = calendar.split(/ +/);
  if (parts.length > 1 && isTimeZone(parts.at(-1) ?? "")) parts.pop();
  const word = (parts[0] ?? "").toLowerCase();
  if (calendarWords.includes(word)) {
    return { minutely: 1, hourly: 1, daily: 1, weekly: 7, monthly: 31 }[word] ?? rare;
  }
  const days = isCalendarWeekdays(parts[0] ?? "") ? weekdaysIn(parts.shift() ?? "") : [0, 1, 2, 3, 4, 5, 6];
  const date = isCalendarDate(parts[0] ?? "") ? (parts[0] ?? "") : "*-*";
  if (!/^(\*-)?\*-\*$/.test(date)) return days.length === 7 && /^(\*-)?\*[-~][^-~]+$/.test(date) ? 31 : rare;
  return Math.max(...days.map((day, index) => (days[index + 1] ?? (days[0] as number) + 7) - day));
}

/** Days and ranges of days, divided by commas. */
function isCalendarWeekdays(text: string): boolean {
  return text.split(",").every((part) => {
    const [from = -1, to = from, ...rest] = weekdayRange(part);
    return rest.length === 0 && from >= 0 && from <= to;
  });
}

/** Their numbers, Monday's is 0, in order. */
function weekdaysIn(text: string): number[] {
  const named = text.split(",").flatMap((part) => {
    const [from = 0, to = from] = weekdayRange(part);
    return weekdays.map((_, day) => day).filter((day) => day >= from && day <= to);
  });
  return [...new Set(named)].sort();
}

function weekdayRange(text: string): number[] {
  return text.split(/\.\.|-/).map((day) => {
    const name = day.toLowerCase();
    return Math.max(weekdays.indexOf(name), longWeekdays.indexOf(name));
  });
}

function isCalendarDate(text: string): boolean {
  const match = /^(?:([^-~:]+)-)?([^-~:]+)[-~]([^-~:]+)$/.exec(text);
  if (match === null) return false;
  const [, year = "*", month = "", day = ""] = match;
  return isCalendarField(year, 1970, 2199) && isCalendarField(month, 1, 12) && isCalendarField(day, 1, 31);
}

function isCalendarTime(text: string): boolean {
  const [hour = "", minute = "", second = "0", ...rest] = text.split(":");
  if (rest.length > 0 || !text.includes(":")) return false;
  return isCalendarField(hour, 0, 23) && isCalendarField(minute, 0, 59) && isCalendarField(second, 0, 59, true);
}

/** `*`, a number or a range `a..b`, the last two with an optional step `/n`, or a list of them. */
function isCalendarField(text: string, lowest: number, highest: number, decimals = false): boolean {
  const number = decimals ? "[0-9]{1,2}(?:\\.[0-9]{1,6})?" : "[0-9]{1,4}";
  const item = new RegExp(`^(${number})(?:\\.\\.(${number}))?(?:/(${number}))?$`);
  return text.split(",").every((part) => {
    if (part === "*") return true;
    const match = item.exec(part);
    if (match === null) return false;
    const [from = lowest, to = from, step = 1] = match.slice(1).map((digits) => (digits ? Number(digits) : undefined));
    return from >= lowest && from <= to && Math.floor(to) <= highest && step > 0 && step <= highest;
  });
}

function isTimeZone(text: string): boolean {
  if (!/^[A-Za-z]/.test(text) || isCalendarWeekdays(text)) return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: text });
    return true;
  } catch {
    return false;
  }
}

const spanUnits =
  "usec|us|µs|msec|ms|seconds|second|sec|s|minutes|minute|min|months|month|m|M|hours|hour|hr|h|days|day|d|weeks|week|w|years|year|y";
const span = new RegExp(`^(?:[0-9]+(?:\\.[0-9]+)? ?(?:${spanUnits}) ?)+$`);

/** Whether a text is a time span of systemd.time(7). A bare number is refused, 0 apart: its unit is easily mistaken. */
export function isTimeSpan(text: string): boolean {
  return text === "0" || (span.test(text) && !text.endsWith(" "));
}

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

/**
 * Whether a text is a network in CIDR notation that isn't half of the internet: IPv4 from /8 on, IPv6 from /16 on, without
 * bits set beyond its length (AWS refuses those). No zone, and no IPv4 in IPv6's clothes (`::ffff:203.0.113.7`), which comes
 * in as IPv4.
 */
export function isNetwork(text: string): boolean {
  const [address = "", length = "", ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 0 || rest.length > 0 || !/^\d{1,3}$/.test(length)) return false;
  if (version === 6 && (address.includes("%") || /^0{80}1{16}/.test(bitsOf(address)))) return false;
  const bits = Number(length);
  if (version === 4 ? bits < 8 || bits > 32 : bits < 16 || bits > 128) return false;
  return /^0*$/.test(bitsOf(address).slice(bits));
}

/**
 * A network as AWS writes it: IPv6 shortened and in lower case (RFC 5952), the length without zeros before it. Another form
 * of the same would be drift for ever. What is no network stays as it is.
 */
export function canonicalNetwork(text: string): string {
  if (!isNetwork(text)) return text;
  const [address = "", length] = text.split("/");
  return `${isIP(address) === 6 ? shortened(address) : address}/${Number(length)}`;
}

/** An IPv6 address by RFC 5952, which the parser of URLs follows; it also turns an IPv4 address at the end into groups. */
function shortened(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

/** Networks that the internet doesn't route (RFC 1918, 6598, 3927, 4193, 4291). */
const privateNetworks = [
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "fc00::/7",
  "fe80::/10",
  "::1/128",
];

/** Whether a network (`isNetwork`) is inside one that the internet doesn't route. */
export function isPrivateNetwork(text: string): boolean {
  return privateNetworks.some((outer) => {
    const [[address = "", length = ""], [start = "", bits = ""]] = [text.split("/"), outer.split("/")];
    const same = isIP(address) === isIP(start) && Number(length) >= Number(bits);
    return same && bitsOf(address).startsWith(bitsOf(start).slice(0, Number(bits)));
  });
}

/** An IP address as zeros and ones. */
function bitsOf(address: string): string {
  if (isIP(address) === 4)
    return address
      .split(".")
      .map((byte) => Number(byte).toString(2).padStart(8, "0"))
      .join("");
  const [head = "", tail] = shortened(address).split("::");
  const groups = (text: string) => text.split(":").filter((group) => group !== "");
  const [first, last] = [groups(head), groups(tail ?? "")];
  return [...first, ...Array<string>(8 - first.length - last.length).fill("0"), ...last]
    .map((group) => Number.parseInt(group, 16).toString(2).padStart(16, "0"))
    .join("");
}
