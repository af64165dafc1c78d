import { wrongSettings } from "./settings";

wrongSettings([
  [
    "a relative home",
    { "cht-backup:cht": { home: "cht" } },
    /^cht-backup:cht.home: found "cht"; must be an absolute path/,
  ],
  [
    "a data directory given twice",
    { "cht-backup:cht": { couchdbData: ["/srv/a", "/srv/a"] } },
    /^cht-backup:cht.couchdbData\[1\]: found "\/srv\/a" a second time; must be another directory$/,
  ],
  [
    "a text in place of a list",
    { "cht-backup:cht": { couchdbData: "/srv/a" } },
    /^cht-backup:cht.couchdbData: found "\/srv\/a"; must be a list of absolute paths/,
  ],
]);
