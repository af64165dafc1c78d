/** When timers start what they start: by systemd's own reading of the schedule, through a year of each zone. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { renderHostFile } from "../../components/host-files";
import { backupSettings } from "../../config/backup";
import { longestDays, missedAfter } from "../../config/calendar";

const HOUR = 3600_000;

function analyze(args: string[], zone = "UTC"): string {
  const { status, stdout, stderr } = spawnSync("systemd-analyze", args, {
    encoding: "utf8",
    env: { ...process.env, TZ: zone },
  });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** All times of a calendar expression in 2027 and some days around, on a machine in a zone. */
function elapses(calendar: string, zone = "UTC"): number[] {
  const said = analyze(["calendar", "--iterations=2300", "--base-time=2026-12-25 00:00:00 UTC", calendar], zone);
  return [...said.matchAll(/: \w+ (\S+) (\S+) UTC$/gm)].map(([, day, time]) => Date.parse(`${day}T${time}Z`));
}

/** Milliseconds of a timer's own setting. */
function setting(timer: string, name: string): number | undefined {
  const value = new RegExp(`^${name}=(.*)$`, "m").exec(timer)?.[1];
  if (value === undefined) return undefined;
  return Number(/μs: (\d+)/.exec(analyze(["timespan", value]))?.[1]) / 1000;
}

/**
 * When a timer starts its service through 2027.
 * @param times of its calendar expression
 * @param hours how long the service runs each time
 */
function starts(timer: string, times: number[], hours: number): number[] {
  const missed = setting(timer, "OnUnitInactiveSec") ?? Number.POSITIVE_INFINITY;
  const found: number[] = [];
  for (
    let ended = times[0] as number;
    ended < Date.UTC(2027, 11, 31);
    ended = (found.at(-1) as number) + hours * HOUR
  ) {
    const next = times.find((time) => time >= ended) ?? Number.POSITIVE_INFINITY;
    found.push(Math.min(next, ended + missed));
    assert.ok(found.length < 3000);
  }
  return found;
}

const longestBetween = (found: number[]) =>
  Math.max(0, ...found.slice(1).map((start, index) => start - (found[index] as number)));

const common = { DEPLOYMENT: "moh", RANDOM_DELAY: "30min" };
const timer = (file: string, calendar: string) =>
  renderHostFile(file, { ...common, SCHEDULE: calendar, MISSED_AFTER: missedAfter(calendar, "30min") });

describe("timers", function () {
  this.timeout(60_000);

  before(function () {
    if (spawnSync("systemd-analyze", ["--version"]).status !== 0) this.skip();
  });

  /** Zones with the hour that they leave out, and one that leaves none out. */
  const zones = {
    "Europe/Berlin": "02:00",
    "America/New_York": "02:30",
    "Africa/Cairo": "00:00",
    "Asia/Beirut": "00:15",
    "Europe/London": "01:00",
    "Australia/Lord_Howe": "02:10",
    "Africa/Nairobi": "02:00",
  };
  for (const [zone, time] of Object.entries(zones)) {
    it(`start a backup on each day of the year at ${time} in ${zone}, with or without summer time`, () => {
      const calendar = `*-*-* ${time}:00`;
      const times = elapses(calendar, zone);
      for (const hours of [0.1, 3]) {
        const found = starts(timer("cht/cht-backup.timer", calendar), times, hours);
        const days = new Map<string, number>();
        const { format } = new Intl.DateTimeFormat("en-CA", { timeZone: zone, dateStyle: "short" });
        for (const start of found) days.set(format(start), (days.get(format(start)) ?? 0) + 1);
        for (let day = Date.UTC(2027, 0, 2); day < Date.UTC(2027, 11, 30); day += 24 * HOUR) {
          const name = new Date(day).toISOString().slice(0, 10);
          assert.equal(days.get(name), 1, `${name}: ${days.get(name)} starts`);
        }
        const longest = longestBetween(found);
        assert.ok(longest <= (26 + 3) * HOUR, `${longest / HOUR} hours between two starts`);
      }
    });
  }

  it("start a backup every four hours by default, in every zone and on every day", () => {
    const calendar = backupSettings["cht-backup:schedule"].parse(undefined);
    for (const zone of [...Object.keys(zones), "America/Nuuk", "Europe/Athens", "Antarctica/Troll"]) {
      const found = starts(timer("cht/cht-backup.timer", calendar), elapses(calendar, zone), 0.5);
      assert.equal(longestBetween(found), 4 * HOUR, zone);
      assert.ok(found.length > 2190, `${found.length} starts`);
    }
  });

  for (const file of ["drill/cht-drill.timer", "server/cht-bucket-check.timer", "server/cht-bucket-copy.timer"]) {
    it(`start what ${file} starts in the week in which summer time begins on its day`, () => {
      const calendar = "Sun *-*-* 02:30:00";
      const found = starts(timer(file, calendar), elapses(calendar, "Europe/Berlin"), 1);
      const longest = longestBetween(found);
      assert.ok(longest <= (7 * 24 + 4) * HOUR, `${longest / HOUR} hours between two starts`);
      assert.ok(found.length >= 52 && found.length <= 54, `${found.length} starts`);
    });
  }

  it("look for an overdue drill on a day without a midnight, too", () => {
    const text = renderHostFile("drill/cht-drill-overdue.timer", { DEPLOYMENT: "moh" });
    const found = starts(text, elapses("daily", "Africa/Cairo"), 0.1);
    const longest = longestBetween(found);
    assert.ok(longest <= 27 * HOUR, `${longest / HOUR} hours between two looks`);
  });

  it("know how long it is at most from one time of a schedule to the next", () => {
    const table: Record<string, number> = {
      "*-*-* 02:00:00": 1,
      "02:00": 1,
      "*:0/15": 1,
      "daily Africa/Cairo": 1,
      "Sun *-*-* 10:00:00": 7,
      "Sunday 10:00 Europe/Berlin": 7,
      "Mon..Fri 02:00": 3,
      "Wed,Sat *-*-* 02:00:00": 4,
      "Mon,Tue-Thu 02:00": 4,
      weekly: 7,
      monthly: 31,
      "*-*-01 02:00:00": 31,
      "*-*~1 02:00:00": 31,
      "*-01,15 02:00:00": 31,
      "*-01-01 02:00:00": 731,
      "2027-*-* 02:00:00": 731,
      "Sun *-*-1..7 10:00": 731,
      yearly: 731,
    };
    for (const [calendar, days] of Object.entries(table)) {
      assert.equal(longestDays(calendar), days, calendar);
      if (calendar.includes("Africa/") || calendar.includes("Europe/")) continue;
      const longest = longestBetween(elapses(calendar));
      assert.ok(longest <= days * 24 * HOUR, `${calendar}: ${longest / 24 / HOUR} days`);
    }
  });

  it("have a time span that systemd reads, whatever the delay", () => {
    for (const delay of ["0", "30min", "1h 30min", "5 minutes", "2h"]) {
      analyze(["timespan", missedAfter("*-*-* 02:00:00", delay)]);
    }
    assert.equal(missedAfter("*-*-* 02:00:00", "30min"), "25h 10min 30min");
    assert.equal(missedAfter("Sun 10:00", "0"), "169h 10min 0");
  });
});
