import { wrongSettings } from "./settings";

wrongSettings([
  [
    "a schedule in words",
    { "cht-backup:schedule": "at night" },
    /^cht-backup:schedule: found "at night"; must be a calendar/,
  ],
  [
    "a delay without a unit",
    { "cht-backup:randomDelay": "30" },
    /^cht-backup:randomDelay: found "30"; must be a time span/,
  ],
  [
    "a compression that borg doesn't know",
    { "cht-backup:compression": "zstd,23" },
    /^cht-backup:compression: found "zstd,23"; must be one of .* for instance zstd,3$/,
  ],
  [
    "a chunker without a size",
    { "cht-backup:chunker": "fixed" },
    /^cht-backup:chunker: found "fixed"; must be `default`/,
  ],
  [
    "a rate in words",
    { "cht-backup:uploadRate": "2 MB" },
    /^cht-backup:uploadRate: found "2 MB"; must be a whole number/,
  ],
  ["a rate below zero", { "cht-backup:uploadRate": -1 }, /^cht-backup:uploadRate: found -1; must be a whole number/],
  [
    "yes in place of true",
    { "cht-backup:firstBackup": "yes" },
    /^cht-backup:firstBackup: found "yes"; must be true or false/,
  ],
]);
