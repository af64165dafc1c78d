/** The lab's stack file, `Pulumi.lab.yaml`. */
import { type Document, isMap, isScalar, parseDocument, visit } from "yaml";
import { Problem } from "../toolchain/progress";
import type { Reached } from "./boot";
import { type Machine, nameOf } from "./machines";

/** When what runs by itself does: not in the middle of what somebody tries. */
export function halfADayFrom(now: Date): string {
  const hour = (now.getUTCHours() + 12) % 24;
  return `*-*-* ${String(hour).padStart(2, "0")}:00:00`;
}

/**
 * What the lab knows of itself and the program has to know.
 * @param drills whether the CHT machine's Docker can make drills
 * @param now when the lab is made
 */
export function labSettings(
  machines: Record<Machine, Reached>,
  identityFile: string,
  drills = true,
  now = new Date(),
): Record<string, unknown> {
  return {
    "host:machines": {
      cht: { ...machines.cht, identityFile },
      server: { ...machines.server, identityFile },
    },
    // The CHT machine reaches the server by its name in the lab's network, which stays when addresses change.
    "cht-backup:server": { address: nameOf("server") },
    // `npm run lab` starts the first backup itself: the plugin for one-shot commands can't be had everywhere.
    "cht-backup:firstBackup": false,
    "cht-backup:schedule": halfADayFrom(now),
    // Nobody else's network has to be spared.
    "cht-backup:randomDelay": "0s",
    // The Docker plugin can't be had everywhere either: `npm run lab` makes the drill's network, and the CHT machine holds the image.
    "cht-backup:drill": { manageDocker: false, randomDelay: "0s", ...(drills ? {} : { enabled: false }) },
  };
}

/**
 * The stack file's text with the lab's settings in it.
 *
 * The machines are always today's. Of everything else only what is missing is added: what the user or Pulumi put
 * there (settings, comments, secrets, `encryptionsalt`) stays.
 *
 * @param text The file's text, empty where there is none.
 * @param newPassphrase Whether the stack's passphrase has just been made: then nothing that an older one encrypted
 *   can be read any more, and it is dropped.
 */
export function mergeSettings(text: string, settings: Record<string, unknown>, newPassphrase = false): string {
  const document: Document = parseDocument(text);
  if (document.errors.length > 0) {
    throw new Problem(
      `Pulumi.lab.yaml can't be read: ${document.errors[0]?.message.split("\n")[0]}. Mend or remove it.`,
    );
  }
  const before = JSON.stringify(document.toJS());
  if (!isMap(document.contents)) document.contents = document.createNode({});
  if (newPassphrase) {
    document.delete("encryptionsalt");
    visit(document, {
      Pair(_key, pair) {
        const encrypted = isMap(pair.value) && pair.value.items.length === 1 && pair.value.has("secure");
        return encrypted ? visit.REMOVE : undefined;
      },
    });
  }
  const config = document.get("config");
  if (!isMap(config)) document.set("config", document.createNode({}));
  for (const [key, value] of Object.entries(settings)) {
    const path = ["config", key];
    if (key === "host:machines") {
      for (const [machine, reached] of Object.entries(value as Record<string, Record<string, unknown>>)) {
        for (const [property, now] of Object.entries(reached)) {
          const place = [...path, machine, property];
          const old = document.getIn(place, true);
          if (!isScalar(old) || old.value !== now) document.setIn(place, now);
        }
      }
    } else {
      addMissing(document, path, value);
    }
  }
  // What says the same already is left as it is written.
  return JSON.stringify(document.toJS()) === before ? text : document.toString({ lineWidth: 0 });
}

/** Adds a value where there is none; of a mapping that is there what is missing in it. */
function addMissing(document: Document, path: readonly string[], value: unknown): void {
  if (isMap(document.getIn(path))) {
    for (const [name, inner] of Object.entries(value as object)) addMissing(document, [...path, name], inner);
  } else if (!document.hasIn(path)) {
    document.setIn(path, document.createNode(value));
  }
}

/**
 * The bucket's secrets that the stack file lacks, as `pulumi config set --path` names them, and whose they are. None
 * where the user says that there is no bucket.
 */
export function missingBucketSecrets(text: string): { path: string; of: "writer" | "reader" }[] {
  const document = parseDocument(text);
  const bucket = ["config", "cht-backup:bucket"];
  if (document.hasIn(bucket) && !isMap(document.getIn(bucket))) return [];
  const secrets = [
    { inside: ["secretAccessKey"], of: "writer" as const },
    { inside: ["reader", "secretAccessKey"], of: "reader" as const },
  ];
  return secrets
    .filter(({ inside }) => !document.hasIn([...bucket, ...inside]))
    .map(({ inside, of }) => ({ path: ["cht-backup:bucket", ...inside].join("."), of }));
}
