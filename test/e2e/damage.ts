/** Archives that aren't what their manifest says, and a repository whose disk has rotted, for as long as a test needs them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { exec, output } from "../../lab/machines";
import {
  approve,
  assertComplete,
  backUp,
  data,
  location,
  programs,
  recovery,
  repository,
  timer,
  user,
  withPassphrase,
} from "./backup";

const scratch = "/var/tmp/damage-test";
const env = "/home/ubuntu/cht/upgrade-service/.env";
const certificate = "/run/cht-backup/lab/collect/cert.pem";
const range = "bffffffd-d5555551";
const database = "medic.1795302615";
const shard = `${data}/shards/${range}/${database}.couch`;
const view = `${data}/.shards/${range}/${database}_design/mrview/ff81c5aaa2423a01783e280daebe36c0.view`;
const stranger = `${data}/shards/${range}/medic.1600000000.couch`;

export interface Damage {
  /** In an operator's words. */
  what: string;
  /** Shell script whose directory is the root of the archive's content. `$tool` is couch_damage.py. */
  make: string;
  /** The line that names it. */
  named: RegExp;
}

const inside = (path: string) => `'${path.slice(1)}'`;

/** The content lies: what a verification has to notice, and must not put in place. */
export const damages = {
  shardRemoved: {
    what: "a shard is missing",
    make: `rm ${inside(shard)}`,
    named: new RegExp(`${shard}: missing; CouchDB would silently recreate it empty`),
  },
  shardCut: {
    what: "a shard's end is cut off, so that an older state of it remains",
    make: `$tool cut ${inside(shard)}`,
    named: new RegExp(`${shard}: cut off or damaged \\(update sequence \\d+, but 46 before the backup`),
  },
  shardUnreadable: {
    what: "a shard is cut off before its first header",
    make: `truncate --size=100 ${inside(shard)}`,
    named: new RegExp(`${shard}: none of its 100 bytes is an intact CouchDB header`),
  },
  shardOfLater: {
    what: "a shard is of a later archive",
    make: `$tool later ${inside(shard)}`,
    named: new RegExp(`${shard}: newer than the backup`),
  },
  stranger: {
    what: "a file of another archive is mixed in",
    make: `cp --archive ${inside(shard)} ${inside(stranger)}`,
    named: new RegExp(`${stranger}: is not in the manifest, so it comes from elsewhere`),
  },
  environment: {
    what: ".env holds another password",
    make: `sed --in-place 's/^COUCHDB_PASSWORD=.*/COUCHDB_PASSWORD=of-another-deployment/' ${inside(env)}`,
    named: new RegExp(`${env}: its content is not what was backed up .*log in`),
  },
  certificate: {
    what: "the TLS certificate is missing",
    make: `rm ${inside(certificate)} var/lib/docker/volumes/cht_cht-ssl/_data/cert.pem`,
    named: new RegExp(`${certificate}: missing \\(browsers and phones may refuse the connection\\)`),
  },
} satisfies Record<string, Damage>;

/** No lie, but what a restore has to set right: CouchDB wouldn't notice, and answer with rows of absent documents. */
export const viewAhead: Damage = {
  what: "a view is ahead of its shard",
  make: `$tool later ${inside(view)}`,
  named: new RegExp(`note: ${view} was ahead of its shard and is left out`),
};

/** Stops the nightly backup, which must not become the newest archive in between. @returns what starts it again */
async function quiet(): Promise<() => Promise<void>> {
  const active = (await exec("cht", `systemctl is-active ${timer}`)).code === 0;
  await output("cht", `systemctl stop ${timer}`);
  return async () => {
    if (active) await output("cht", `systemctl start ${timer}`);
  };
}

/** Takes archives of a test out of the repository, as the server's administrator. */
export async function removeArchives(...archives: string[]): Promise<void> {
  const { passphrase } = await recovery();
  // The machine's own key can only mark archives as deleted, too; but this is an administrator's work.
  const script = `set -e; IFS= read -r BORG_PASSPHRASE; export BORG_PASSPHRASE
BORG_BASE_DIR=$(mktemp -d); export BORG_BASE_DIR; trap 'rm -rf "$BORG_BASE_DIR"' EXIT; chown ${user} "$BORG_BASE_DIR"
cd /; runuser -u ${user} -- borg --lock-wait 60 delete ${repository} ${archives.join(" ")}`;
  await output("server", script, { stdin: `${passphrase}\n` });
  await approve("archives of a test were taken out");
}

export interface Damaged {
  /** Names of the archives, in the order of the damages; the last one is the newest of the repository. */
  archives: string[];
  /** Takes them away again, and nothing else. */
  remove(): Promise<void>;
}

/**
 * Puts damaged copies of the newest archive into the repository, as newer ones: the manifest is the good archive's and
 * tells of its content, under the new name. Until they are removed there is no nightly backup.
 */
export async function putDamaged(...wanted: Damage[]): Promise<Damaged> {
  const { passphrase } = await recovery();
  const startTimer = await quiet();
  const archives: string[] = [];
  const remove = async () => {
    await exec("cht", `rm -rf ${scratch}`);
    if (archives.length > 0) await removeArchives(...archives.splice(0));
    await startTimer();
  };
  try {
    const tool = readFileSync(join(__dirname, "machine", "couch_damage.py")).toString("base64");
    const prepare = withPassphrase(`
export BORG_BASE_DIR=${scratch}/borg
rm -rf ${scratch}; mkdir -p ${scratch}/good; cd ${scratch}/good
echo ${tool} | base64 -d >${scratch}/couch_damage.py
archive=$(borg list --short --last 1 '${location}')
borg list --format '{path}{NL}' "${location}::$archive" >${scratch}/paths
borg extract --numeric-ids "${location}::$archive"
echo "$archive"`);
    const good = await output("cht", prepare, { stdin: `${passphrase}\n` });
    for (const { make } of wanted) {
      const script = withPassphrase(`
export BORG_BASE_DIR=${scratch}/borg PYTHONPATH=${programs}
tool='${programs}/venv/bin/python -B ${scratch}/couch_damage.py'
rm -rf ${scratch}/copy; cp --archive ${scratch}/good ${scratch}/copy; cd ${scratch}/copy
( unset BORG_PASSPHRASE
  ${make} )
last='${archives.at(-1) ?? good}'
until time=$(date --utc +%Y-%m-%dT%H:%M:%SZ) && [ "lab-$time" != "$last" ]; do sleep 0.1; done
for part in before after; do
  sed --in-place "s/${good}/lab-$time/; s/^ \\"time\\": .*/ \\"time\\": \\"$time\\",/" run/cht-backup/lab/collect/manifest-$part.json
done
# As in a backup: what isn't a part of it (the directories above) isn't there; what is new is.
{ while read -r path; do [ ! -e "$path" ] || echo "$path"; done <${scratch}/paths
  find home/ubuntu/cht/couchdb -type f | grep -vxFf ${scratch}/paths || true
} | borg create --paths-from-stdin --chunker-params fixed,262144 "${location}::lab-$time"
echo "lab-$time"`);
      archives.push(await output("cht", script, { stdin: `${passphrase}\n` }));
    }
  } catch (error) {
    await remove();
    throw error;
  }
  return { archives, remove };
}

export interface Rotten {
  /** The archive that can't be read in full. */
  archive: string;
  /** Puts back what was there. */
  mend(): Promise<void>;
}

/**
 * Makes a backup and lets bytes of it rot on the server's disk: in the content of a file, or in the archive's own
 * description. Older archives stay readable. Until it is mended there is no nightly backup.
 */
export async function rot(where: "content" | "description"): Promise<Rotten> {
  const startTimer = await quiet();
  const bulk = `${data}/.delete/damage-test`;
  const aside = `/var/tmp/damage-test-segment`;
  const mend = async () => {
    const script = `set -e
if [ -e ${aside}/segment ]; then cp --archive ${aside}/segment "$(cat ${aside}/path)"; fi
rm -rf ${aside}`;
    await output("server", script);
    await startTimer();
  };
  try {
    const segments = `find ${repository}/data -type f -name '[0-9]*'`;
    const before = await output("server", `${segments} | sort`);
    // Something that no other archive has.
    await output("cht", `head -c 1M /dev/urandom >${bulk} && chown 5984:5984 ${bulk}`);
    const archive = assertComplete(await backUp()).archive as string;
    const script = `set -e
cat >/run/damage-test-before
segment=$(${segments} -size +1000k -printf '%p\\n' | grep -vxFf /run/damage-test-before)
rm /run/damage-test-before
rm -rf ${aside}; mkdir -m 0700 ${aside}
echo "$segment" >${aside}/path
cp --archive "$segment" ${aside}/segment
size=$(stat --format %s "$segment")
# The archive's own description is what borg writes last.
at=${where === "content" ? "$((size / 2))" : "$((size - 60))"}
head -c 16 /dev/zero | tr '\\0' R | dd of="$segment" bs=1 seek="$at" conv=notrunc status=none`;
    await output("server", script, { stdin: `${before}\n` });
    return { archive, mend };
  } catch (error) {
    await mend();
    throw error;
  } finally {
    await exec("cht", `rm -f ${bulk}`);
  }
}
