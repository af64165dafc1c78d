import { wrongSettings } from "./settings";

wrongSettings([
  [
    "alerts in clear",
    { "cht-backup:alerts": ["tgram://hunter2/1"] },
    /^cht-backup:alerts: found in clear; must be secret, for instance `npm run pulumi -- config set --secret --path /,
  ],
  [
    "an alert that is no address",
    { "cht-backup:alerts": ["hunter2@example.org"] },
    /^cht-backup:alerts\[0\]: found a value that isn't shown; must be an address as apprise takes it/,
    ["cht-backup:alerts"],
  ],
]);
