/**
 * The backup's unit beside a bare `borg create` of the same files: a deployment of the bench's own on the lab's two
 * machines, with files enough that fixed costs don't decide alone, deployed by the same program and taken away after.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { chtNames, serverNames } from "../components/names";
import { settingsSchema } from "../config";
import { containerOf, type ExecOptions, output } from "../lab/machines";
import { stackFile } from "../lab/stack";
import { run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { comparison, inTurns } from "./figures";
import { unpack } from "./growth";
import { mustRun } from "./stack";

export const DEPLOYMENT = "bench";
export const home = "/srv/cht-backup-bench";
const data = `${home}/couchdb`;
export const compose = "cht-backup-bench";
export const names = chtNames(DEPLOYMENT);
const { shape } = settingsSchema;
const server = serverNames(DEPLOYMENT, shape["cht-backup:server"].parse(undefined).dataDirectory);
const chunker = shape["cht-backup:chunker"].parse(undefined);
const compression = shape["cht-backup:compression"].parse(undefined);
const settingsFile = join(project, `Pulumi.${DEPLOYMENT}.yaml`);

export const cht = (script: string, options?: ExecOptions) =>
  output("cht", script, { timeoutMs: 1_200_000, ...options });

/** Takes everything away that the bench ever puts on the machines; what isn't there does no harm. */
export async function tidyUp(): Promise<void> {
  await cht(
    `systemctl disable --quiet --now ${names.timer} 2>/dev/null || true
     rm -f /etc/systemd/system/${names.service} /etc/systemd/system/${names.timer} /etc/systemd/system/${names.failedService}
     systemctl daemon-reload
     docker ps --all --quiet --filter label=com.docker.compose.project=${compose} | xargs -r docker rm --force >/dev/null
     docker volume rm --force ${compose}_cht-credentials ${compose}_cht-ssl >/dev/null
     rm -rf ${home} ${names.settings} ${names.programs} ${names.state} /etc/tmpfiles.d/cht-backup-${DEPLOYMENT}.conf`,
  );
  await output(
    "server",
    `rm -rf ${server.home} /etc/ssh/sshd_config.d/50-cht-backup-${DEPLOYMENT}.conf /etc/tmpfiles.d/cht-backup-${DEPLOYMENT}.conf
     userdel ${server.user} 2>/dev/null || true
     systemctl reload ssh.service`,
  );
  if (existsSync(settingsFile)) await mustRun(DEPLOYMENT, ["stack", "rm", "--yes", "--force", DEPLOYMENT]);
  rmSync(settingsFile, { force: true });
}

/** The first day of the given archive, or the lab's own data, brought to size. */
export async function bringData(archive: string | undefined, megabytes: number): Promise<void> {
  await cht(`mkdir -p ${data} && cp -a /home/ubuntu/cht/compose /home/ubuntu/cht/upgrade-service ${home}/
    {
      printf 'COUCHDB_DATA=${data}\\nCOUCHDB_PASSWORD=x\\nCOUCHDB_SECRET=x\\nCOUCHDB_UUID=x\\nCHT_NETWORK=${compose}\\n'
      grep _IMAGE= /home/ubuntu/cht/upgrade-service/.env
    } >${home}/upgrade-service/.env`);
  if (archive === undefined) await cht(`cp -a /home/ubuntu/cht/couchdb/. ${data}/`);
  else {
    if (!existsSync(archive)) throw new Problem(`--data ${archive}: there is no such file.`);
    const scratch = mkdtempSync(join(tmpdir(), "cht-backup-bench-"));
    try {
      const [day = ""] = await unpack(archive, scratch, "day00");
      const couchdb = existsSync(join(day, "couchdb")) ? join(day, "couchdb") : day;
      const copied = await run("docker", ["cp", `${couchdb}/.`, `${containerOf("cht")}:${data}`]);
      if (copied.code !== 0) throw new Problem(copied.stderr.trim());
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
  const program = readFileSync(join(__dirname, "copies.py"));
  await cht(`python3 - ${data} ${megabytes * 1e6}`, { stdin: program });
}

/** Containers that are found as a CHT's are. They don't run: counts then come from the files, as with CouchDB stopped. */
export async function makeContainers(): Promise<void> {
  await cht(`set -e
    of() { docker ps --all --quiet --filter label=com.docker.compose.project=cht --filter label=com.docker.compose.service=$1; }
    make() {
      service=$1; shift
      docker create --label com.docker.compose.project=${compose} --label com.docker.compose.service=$service "$@" \\
        "$(docker inspect --format '{{.Image}}' "$(of $service)")"
    }
    make couchdb --volume ${data}:/opt/couchdb/data >/dev/null
    made=$(make nginx)
    for file in cert key; do
      docker cp --quiet --follow-link "$(of nginx):/etc/nginx/private/$file.pem" ${home}/$file.pem 2>/dev/null ||
        docker cp --follow-link "$(of nginx):/etc/nginx/private/$file.pem" ${home}/$file.pem
    done
    mkdir -p ${home}/private && mv ${home}/*.pem ${home}/private/
    docker cp ${home}/private "$made:/etc/nginx/" && rm -rf ${home}/private
    docker volume create ${compose}_cht-credentials >/dev/null
    docker volume create ${compose}_cht-ssl >/dev/null`);
}

export async function deploy(): Promise<void> {
  const { config } = parse(readFileSync(stackFile, "utf8"));
  const settings = {
    "host:machines": config["host:machines"],
    "cht-backup:deployment": DEPLOYMENT,
    "cht-backup:cht": { home, composeProject: compose },
    "cht-backup:server": { ...config["cht-backup:server"], reserveMebibytes: 16 },
    "cht-backup:schedule": "2099-*-01 00:00:00",
    "cht-backup:firstBackup": false,
    "cht-backup:drill": { enabled: false },
  };
  writeFileSync(settingsFile, stringify({ config: settings }));
  await mustRun(DEPLOYMENT, ["stack", "init", DEPLOYMENT, "--no-select"]);
  await mustRun(DEPLOYMENT, ["up", "--yes", "--skip-preview"]);
}

export const environment = `export BORG_RSH='ssh -F ${names.settings}/ssh_config' BORG_BASE_DIR=${names.state}/borg \\
  BORG_PASSCOMMAND='cat ${names.settings}/passphrase' BORG_REPO=ssh://offsite${server.repository} LANG=C.UTF-8`;

/** Empties the repository, and all that borg remembers of it on the CHT machine. */
async function emptyRepository(): Promise<void> {
  await output("server", `find ${server.repository} -mindepth 1 -delete`);
  await cht(`${environment}; rm -rf ${names.state}/borg; borg init --encryption repokey-blake2 2>/dev/null`);
}

let archives = 0;

/** Runs the unit; seconds from its start to its end as systemd has them. */
export async function unit(): Promise<number> {
  archives++;
  const shown = await cht(`
    # An archive's name ends in a second.
    sleep 1
    systemctl start ${names.service} || journalctl --no-pager --output=cat --lines=15 --unit=${names.service}
    systemctl show --property=Result --property=ExecMainStatus --property=ExecMainStartTimestampMonotonic \\
      --property=ExecMainExitTimestampMonotonic ${names.service}`);
  const of = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(shown)?.[1];
  if (of("Result") !== "success" || of("ExecMainStatus") !== "0")
    throw new Problem(`the backup's unit failed:\n${shown}`);
  return (Number(of("ExecMainExitTimestampMonotonic")) - Number(of("ExecMainStartTimestampMonotonic"))) / 1e6;
}

/** Runs borg alone, in a unit with the same place behind the CHT; seconds. */
async function bare(): Promise<number> {
  archives++;
  const printed = await cht(
    `systemd-run --quiet --wait --pipe --collect --property=Nice=10 --property=CPUWeight=20 \\
       --property=IOSchedulingClass=best-effort --property=IOSchedulingPriority=7 sh -s`,
    {
      stdin: `${environment}; set -e; begin=$(date +%s%N)
        borg create --chunker-params ${chunker} --compression ${compression} --checkpoint-interval 300 ::bare-{now} ${home}
        echo $((($(date +%s%N) - begin) / 1000))\n`,
    },
  );
  return Number(printed) / 1e6;
}

/** Every archive that was asked for has to be there. */
async function countArchives(): Promise<void> {
  const listed = JSON.parse(await cht(`${environment}; borg list --json`)).archives.length;
  if (listed !== archives) throw new Problem(`${listed} archives are in the repository instead of ${archives}`);
}

/** Measures; returns a table and figures. The data is brought to about as many `megabytes` by copies. */
export async function benchBackup(rounds: number, archive: string | undefined, megabytes: number, progress: Progress) {
  await tidyUp();
  try {
    await progress.step("bringing data", () => bringData(archive, megabytes));
    await makeContainers();
    await progress.step("deploying the bench's own stack", deploy);
    const [bytes, files] = (await cht(`du -sb ${home} | cut -f1; find ${home} -type f | wc -l`))
      .split("\n")
      .map(Number);

    const fromNothing = (work: () => Promise<number>) => async () => {
      await emptyRepository();
      archives = 0;
      const time = await work();
      await countArchives();
      return time;
    };
    const touched = (work: () => Promise<number>) => async () => {
      // Borg reads again what has another time than before; CouchDB's files change every day.
      await cht(`find ${data} -name '*.couch' -exec touch {} +`);
      return work();
    };
    const contestants = (around: (work: () => Promise<number>) => () => Promise<number>) => ({
      "cht-backup's unit": around(unit),
      "bare borg create": around(bare),
    });
    const say = (text: string) => progress.note(text);
    const turns = (what: string, around: (work: () => Promise<number>) => () => Promise<number>) =>
      progress.step(`backup, ${what}`, () => inTurns(rounds, contestants(around), say));
    const first = await turns("first", fromNothing);
    const again = await turns("every file changed its time, nothing new", touched);
    const same = await turns("nothing changed", (work) => work);
    await countArchives();
    return {
      rows: [
        ...comparison("the first backup", first),
        ...comparison("all files read, nothing new", again),
        ...comparison("nothing changed", same),
      ],
      words: [
        `${((bytes ?? 0) / 1e6).toFixed(0)} MB in ${files} files, to the lab's server over SSH; ${chunker}, ${compression}.`,
      ],
      figures: { bytes, files, first, again, same },
    };
  } finally {
    await progress.step("tidying up", tidyUp);
  }
}
