/** What a recovery kit must fit, as the stack knows it, and the reminder in `up` to make a new one. */
import * as pulumi from "@pulumi/pulumi";
import { type Made, type StackSettings, withMade } from "../config";
import { kitDigest, kitReminder, type Place } from "./recovery-kit";

/** `kitDigest`, once what a kit must agree with is known. It tells nobody what it was made from. */
export function kitDigestOf(
  settings: Place,
  key: pulumi.Output<string>,
  hostKey: pulumi.Output<string>,
  made: { [K in keyof Made]: pulumi.Input<Made[K]> },
): pulumi.Output<string> {
  const digest = pulumi
    .all([key, hostKey, pulumi.output(made)])
    .apply(([knownKey, knownHostKey, knownMade]) => kitDigest(withMade(settings, knownMade), knownKey, knownHostKey));
  return pulumi.unsecret(digest);
}

/** Reminds in `up`. */
export function remindOfRecoveryKit(
  { recoveryKit }: Pick<StackSettings, "recoveryKit">,
  digest: pulumi.Output<string>,
) {
  // A preview would say the same a second time.
  if (pulumi.runtime.isDryRun()) return;
  digest.apply(async (known) => {
    const reminder = kitReminder(recoveryKit, known, pulumi.getStack());
    if (reminder !== undefined) await pulumi.log.warn(reminder);
  });
}
