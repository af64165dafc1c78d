import { wrongSettings } from "./settings";

wrongSettings([
  [
    "a passphrase in clear",
    { "cht-backup:passphrase": "hunter2 hunter2 hunter2" },
    /^cht-backup:passphrase: found in clear; must be secret, for instance `npm run pulumi -- config set --secret cht-backup:passphrase`$/,
  ],
  [
    "a passphrase with a space at its end",
    { "cht-backup:passphrase": "hunter2 hunter2 hunter2 " },
    /^cht-backup:passphrase: found a value that isn't shown; must be one line of 16 characters or more/,
    ["cht-backup:passphrase"],
  ],
]);
