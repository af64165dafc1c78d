/** When something runs, in the words of systemd.time(7), which reads these texts in the end. */
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

/** How many hours may be between two times of a calendar expression (`isCalendar`), or more. */
export function longestHours(calendar: string): number {
  const days = longestDays(calendar);
  const hour = /(?:^| )([^ :]+):[^ ]+(?: [A-Za-z/_]+)?$/.exec(calendar)?.[1];
  if (days > 1 || hour === undefined) return /^(minutely|hourly)\b/i.test(calendar) ? 1 : days * 24;
  const found = hoursIn(hour);
  return Math.max(...found.map((each, index) => (found[index + 1] ?? (found[0] as number) + 24) - each));
}

/** The hours of a day that a field names (`isCalendarField`), in order. */
function hoursIn(field: string): number[] {
  const found = field.split(",").flatMap((part) => {
    const [range = "", step] = part.split("/");
    const [from = 0, to = step === undefined ? from : 23] = range === "*" ? [0, 23] : range.split("..").map(Number);
    return Array.from({ length: 24 }, (_, each) => each).filter(
      (each) => each >= from && each <= to && (each - from) % Number(step ?? 1) === 0,
    );
  });
  return [...new Set(found)].sort((one, other) => one - other);
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
