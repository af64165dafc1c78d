import assert from "node:assert/strict";
import { isCalendar, isTimeSpan } from "../../../config/calendar";
import { isChunker, isCompression, isEndpoint, isPinnedImage } from "../../../config/formats";
import { isNetwork } from "../../../config/networks";

const digest = `sha256:${"0f".repeat(32)}`;

/** Texts that the program which reads them takes, and others that it refuses. Tried with systemd 252; read in borg 1.4. */
const formats: [what: string, is: (text: string) => boolean, right: string[], wrong: string[]][] = [
  [
    "calendar expressions",
    isCalendar,
    [
      "*-*-* 02:00:00",
      "daily",
      "weekly Asia/Tokyo",
      "Mon",
      "Mon..Fri 02:00",
      "Sat,Sunday 4:30",
      "*:0/15",
      "02:00,14:00",
      "*-*-1..7 18:00:00",
      "*-*~1 2:00",
      "Mon *-05~07/1",
      "02:00 Europe/Berlin",
      "0/2:00",
    ],
    [
      "",
      "nightly",
      "*-*-* 24:00",
      "2:60",
      "2",
      "*",
      "Mon 02",
      "*-13-1",
      "12..4:00",
      "*/2:00",
      "Sat..Mon 1:0",
      "1:00 Mon",
      "02:00 Mars/X",
    ],
  ],
  [
    "time spans",
    isTimeSpan,
    ["0", "30min", "1h 30min", "1h30min", "5 seconds", "1.5h"],
    ["", "30", "1fortnight", "-1s", "1h "],
  ],
  [
    "compressions",
    isCompression,
    [
      "none",
      "lz4",
      "zstd",
      "zstd,1",
      "zstd,22",
      "zlib,0",
      "lzma,9",
      "auto,lzma",
      "auto,zstd,7",
      "obfuscate,110,zstd,3",
    ],
    [
      "",
      "gzip",
      "lz4,1",
      "zstd,0",
      "zstd,23",
      "zlib,10",
      "zstd,",
      "auto",
      "auto,auto,lz4",
      "obfuscate,7,lz4",
      "zstd,3,4",
    ],
  ],
  [
    "pinned images",
    isPinnedImage,
    [
      `couchdb@${digest}`,
      `couchdb:3.5.0@${digest}`,
      `public.ecr.aws/medic/cht-couchdb:4.21.1@${digest}`,
      `localhost:5000/a__b/c.d@${digest}`,
    ],
    [
      "",
      "couchdb:3.5.0",
      digest,
      `@${digest}`,
      `Couchdb@${digest}`,
      `couchdb@${digest}0`,
      `couch db@${digest}`,
      `-couchdb@${digest}`,
      `couchdb@${digest.toUpperCase()}`,
      `http://registry/couchdb@${digest}`,
    ],
  ],
  [
    "networks",
    isNetwork,
    ["203.0.113.7/32", "10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32", "2001:db8::1/128", "2001::/16"],
    [
      "",
      "203.0.113.7",
      "203.0.113.7/24",
      "0.0.0.0/0",
      "128.0.0.0/1",
      "::/0",
      "2000::/3",
      "2001:db8::1/64",
      "fe80::1%eth0/128",
      "::ffff:203.0.113.7/128",
      "a/8",
      "10.0.0.0/8/8",
    ],
  ],
  [
    "endpoints",
    isEndpoint,
    ["https://s3.example.org", "http://storage:8333", "https://10.0.0.2:9000", "https://[2001:db8::3]:9000"],
    [
      "",
      "s3.example.org",
      "https://",
      "https://s3.example.org/",
      "https://user@s3.example.org",
      "ftp://s3",
      "https://a b",
    ],
  ],
  [
    "chunkers",
    isChunker,
    ["default", "fixed,262144", "fixed,4194304,512", "fixed,64", "buzhash,19,23,21,4095", "buzhash,16,20,18,4095"],
    [
      "",
      "fixed",
      "fixed,63",
      "fixed,20971480",
      "buzhash,19,23,24,4095",
      "buzhash,5,20,18,4095",
      "buzhash,16,20,18,4096",
      "fastcdc",
    ],
  ],
];

describe("formats", () => {
  for (const [what, is, right, wrong] of formats) {
    it(`of ${what} are told apart`, () => {
      assert.deepEqual([...right, ...wrong].filter(is), right);
    });
  }
});
