/** `cht-backup:alerts`: who is told of failures. */
import { z } from "zod";
import { isAlertAddress } from "./formats";

export const alertsSchema = z
  .array(
    z.string().refine(isAlertAddress).meta({
      description: "One address.",
      allowed: "an address as apprise takes it, a service and what it needs",
      example: "mailtos://user:password@mail.example.org?to=oncall@example.org",
    }),
  )
  .default([])
  .meta({
    description:
      "Where a failed backup is reported: addresses of apprise (mail, SMS, chat and many more). They hold " +
      "passwords, so each is a secret: `npm run pulumi -- config set --secret --path 'cht-backup:alerts[0]'` asks for it. " +
      "What can't be delivered is tried again for a week. Without an address every `preview` and `up` says so.",
    allowed: "a list of secret addresses",
    example: '[{ secure: "…" }]',
  });
