/** Which borg a machine gets, for archives or for the server's guard. */
import type { PackagesArgs } from "../provider";
import { readHostFile } from "./host-files";

/**
 * The distribution's where it is new enough (borg's own advice after CVE-2023-36811), else its backports', else one that is
 * built on the machine: Ubuntu 22.04 and Debian 12 have older ones.
 *
 * @param programs directory of the deployment's programs on the machine: what is built goes to `borg/` in it
 */
export function borgPackage(programs: string) {
  return {
    packages: ["borgbackup"],
    minimum: { borgbackup: "1.2.8" },
    build: {
      path: `${programs}/borg`,
      requirements: readHostFile("borg/requirements.txt"),
      tools: readHostFile("borg/build.txt"),
      check: "import borg.crypto.low_level, borg.hashindex, borg.remote",
      packages: [
        ...["gcc", "libc6-dev", "pkg-config", "python3-dev"],
        ...["libacl1-dev", "libssl-dev", "liblz4-dev", "libzstd-dev", "libxxhash-dev"],
      ],
    },
  } satisfies Omit<PackagesArgs, "machine">;
}

/**
 * Where units look for programs: first borg as it was built, and the distribution's before what somebody put in /usr/local.
 *
 * @param programs as for {@link borgPackage}
 */
export function searchPath(programs: string): string {
  return `${programs}/borg/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin`;
}

/**
 * borg with a deployment's repository and passphrase, outside a unit: with the borg that the unit takes.
 *
 * @param programs the package of programs of the deployment
 */
export function borgByHand(programs: string): string {
  return `python3 -I ${programs} borg`;
}
