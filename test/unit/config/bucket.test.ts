import assert from "node:assert/strict";
import { bucket, read, wrongSettings } from "./settings";

wrongSettings([
  [
    "a bucket that exists without a key",
    { "cht-backup:bucket": { ...bucket, accessKeyId: undefined } },
    /^cht-backup:bucket.accessKeyId: missing; must be 3 to 128 letters/,
    ["cht-backup:bucket"],
  ],
  [
    "a bucket without a name",
    { "cht-backup:bucket": { ...bucket, name: undefined } },
    /^cht-backup:bucket.name: missing; must be 3 to 63 lower-case letters/,
    ["cht-backup:bucket"],
  ],
  [
    "a bucket in no mode",
    { "cht-backup:bucket": { ...bucket, mode: undefined } },
    /^cht-backup:bucket.mode: missing; must be `compliance` or `governance`/,
    ["cht-backup:bucket"],
  ],
  [
    "a bucket that is switched on",
    { "cht-backup:bucket": true },
    /^cht-backup:bucket: found true; must be `none`, or a mapping of `name`, /,
  ],
  [
    "a bucket's secret in clear",
    { "cht-backup:bucket": bucket },
    /^cht-backup:bucket.secretAccessKey: found in clear; must be secret, for instance `npm run pulumi -- config set --secret --path 'cht-backup:bucket.secretAccessKey'`$/,
  ],
  [
    "a bucket's secret cut off",
    { "cht-backup:bucket": { ...bucket, secretAccessKey: "hunter2" } },
    /^cht-backup:bucket.secretAccessKey: found a value that isn't shown; must be 8 to 128 letters/,
    ["cht-backup:bucket"],
  ],
  [
    "a reader without a secret",
    { "cht-backup:bucket": { ...bucket, reader: { accessKeyId: "READER" } } },
    /^cht-backup:bucket.reader.secretAccessKey: missing; must be 8 to 128 letters/,
    ["cht-backup:bucket"],
  ],
  [
    "an endpoint with a path",
    { "cht-backup:bucket": { ...bucket, endpoint: "https://s3.example.org/moh" } },
    /^cht-backup:bucket.endpoint: found a value that isn't shown; must be an address of `https:\/\/`/,
    ["cht-backup:bucket"],
  ],
  [
    "a prefix that doesn't end",
    { "cht-backup:bucket": { ...bucket, prefix: "moh" } },
    /^cht-backup:bucket.prefix: found .*; must be letters, digits .*, ending in `\/`, for instance/,
    ["cht-backup:bucket"],
  ],
  [
    "locks that are lengthened every day",
    { "cht-backup:bucket": { ...bucket, keepDays: 60 } },
    /^cht-backup:bucket.lockDays: found 60 with keepDays 60; must be more: locks are lengthened in the days between$/,
    ["cht-backup:bucket"],
  ],
  [
    "copies so seldom that each is too old",
    { "cht-backup:bucket": { ...bucket, leastIntervalMinutes: 120, maxAgeHours: 2 } },
    /^cht-backup:bucket.leastIntervalMinutes: found 120 with maxAgeHours 2; must be less than these hours, or .* alarm/,
    ["cht-backup:bucket"],
  ],
  [
    "a check that reads back most of it",
    { "cht-backup:bucket": { ...bucket, readBack: "most" } },
    /^cht-backup:bucket.readBack: found .*; must be a whole number from 0 to 1000000, or `all`/,
    ["cht-backup:bucket"],
  ],
]);

describe("settings", () => {
  it("lead to no bucket where they say so, or nothing", () => {
    assert.equal(read({ "cht-backup:bucket": "none" }).bucket, undefined);
  });

  it("need little for a bucket at AWS", () => {
    const writer = { accessKeyId: "WRITER", secretAccessKey: "hunter2+secret/key=" };
    assert.deepEqual(read({ "cht-backup:bucket": bucket }, ["cht-backup:bucket"]).bucket, {
      name: "moh-backup-copy",
      region: "us-east-1",
      endpoint: null,
      pathStyle: false,
      prefix: "moh/",
      mode: "governance",
      keepDays: 30,
      lockDays: 60,
      uploadRate: 0,
      storageClass: null,
      schedule: "*-*-* 06:00:00",
      leastIntervalMinutes: 30,
      checkSchedule: "Wed *-*-* 12:00:00",
      randomDelay: "30min",
      readBack: 20,
      maxAgeHours: 48,
      writer,
      reader: writer,
    });
  });

  it("take a bucket elsewhere, by its path, and another key for reading", () => {
    const reader = { accessKeyId: "READER", secretAccessKey: "hunter2-reader" };
    const elsewhere = {
      ...bucket,
      endpoint: "http://storage.lan:8333",
      reader,
      readBack: "all",
      prefix: "country/moh/",
    };
    const found = read({ "cht-backup:bucket": elsewhere }, ["cht-backup:bucket"]).bucket;
    assert.deepEqual(
      [found?.endpoint, found?.pathStyle, found?.reader, found?.readBack, found?.prefix],
      ["http://storage.lan:8333", true, reader, "all", "country/moh/"],
    );
  });
});
