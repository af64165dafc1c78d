/**
 * A whole restore with its start beside a bare `borg extract` of the same archive and `docker compose up`: on an empty
 * machine, of the bench's own deployment, once as small as the lab's data and once with data enough that fixed costs
 * don't decide alone.
 */
import { containerOf, output } from "../lab/machines";
import { freshMachine } from "../test/e2e/fresh-machine";
import { run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import {
  bringData,
  cht,
  compose,
  DEPLOYMENT,
  deploy,
  environment,
  home,
  makeContainers,
  names,
  tidyUp,
  unit,
} from "./backup";
import { comparison, inTurns, seconds } from "./figures";
import { environmentOf } from "./stack";

const volumes = ["cht-credentials", "cht-ssl"].map((name) => `${compose}_${name}`);
const up = `docker compose --project-name ${compose} --env-file ${home}/upgrade-service/.env \\
  --file ${home}/compose/cht-core.yml --file ${home}/compose/cht-couchdb.yml up --detach`;

const there = (script: string) => output("restore", script, { timeoutMs: 1_200_000 });

/** Makes the machine as empty as it was, and waits until its disk has nothing left to do. */
const clear = `
docker ps --all --quiet | xargs -r docker rm --force >/dev/null
docker volume rm --force ${volumes.join(" ")} >/dev/null
docker network prune --force >/dev/null
rm -rf ${home} /srv/.*.restoring /var/lib/cht-restore /run/cht-backup
sync`;

/** What the containers of the archive answer by: a restore that did less isn't measured. */
const running = `docker ps --filter label=com.docker.compose.project=${compose} --format '{{.State}}' | grep -c running`;

async function mustRunBoth(): Promise<void> {
  const count = await there(`${running} || true`);
  if (count !== "2") throw new Problem(`${count} containers run on the restored machine instead of 2`);
}

/** borg alone, with the CHT machine's key; seconds. */
async function bare(archive: string): Promise<number> {
  await there(clear);
  const printed = await there(`${environment}; set -e; begin=$(date +%s%N)
    docker volume create ${volumes[0]} >/dev/null; docker volume create ${volumes[1]} >/dev/null
    cd /; borg extract --numeric-ids ::${archive}
    ${up} 2>/dev/null
    echo $((($(date +%s%N) - begin) / 1000))`);
  await mustRunBoth();
  return Number(printed.split("\n").at(-1)) / 1e6;
}

/** Measures; returns tables and figures. The larger data is brought to about as many `megabytes`, see `benchBackup`. */
export async function benchRestore(rounds: number, data: string | undefined, megabytes: number, progress: Progress) {
  await tidyUp();
  const machine = await progress.step("making an empty machine", () => freshMachine("restore"));
  try {
    const sizes: { archive: string; bytes: number; files: number }[] = [];
    const backUp = async () => {
      await unit();
      const report = JSON.parse(await cht(`cat ${names.state}/last-backup.json`));
      sizes.push({ archive: report.archive, bytes: report.originalSize, files: report.files });
    };
    await progress.step("two backups to restore, a small one and a larger one", async () => {
      await bringData(undefined, 0);
      await makeContainers();
      await deploy();
      await backUp();
      await cht(`find ${home}/couchdb -mindepth 1 -delete`);
      await bringData(data, megabytes);
      await backUp();
    });
    // What borg needs to read the repository alone.
    await there("apt-get update -q >/dev/null && apt-get install -y -q borgbackup python3-xxhash >/dev/null 2>&1");
    const copied = await run("sh", [
      "-c",
      `docker exec ${containerOf("cht")} tar -c -C / ${names.settings.slice(1)} | docker exec -i ${containerOf("restore")} tar -x -C /`,
    ]);
    if (copied.code !== 0) throw new Problem(copied.stderr.trim());

    const restore = (archive: string) => async () => {
      await there(clear);
      const words = ["--stack", DEPLOYMENT, "--from", "server", "--to", machine.destination, ...machine.login];
      const time = await seconds(async () => {
        const { code, stdout, stderr } = await run(
          "npm",
          ["run", "-s", "restore", "--", ...words, "--archive", archive, "--start"],
          { cwd: project, env: environmentOf(DEPLOYMENT), timeoutMs: 1_200_000 },
        );
        if (code !== 0) throw new Problem(`the restore failed, exit code ${code}:\n${stdout}${stderr}`);
      });
      await mustRunBoth();
      return time;
    };
    const rows: string[][] = [];
    const figures: unknown[] = [];
    for (const { archive, bytes, files } of sizes) {
      const title = `a restore of ${(bytes / 1e6).toFixed(0)} MB in ${files} files`;
      const results = await progress.step(title, () =>
        inTurns(
          rounds,
          { "cht-backup": restore(archive), "bare borg extract and compose up": () => bare(archive) },
          (text) => progress.note(text),
        ),
      );
      rows.push(...comparison(title, results));
      figures.push({ bytes, files, seconds: results });
    }
    return {
      rows,
      words: [
        "The restore's time is that of `npm run restore … --start` on the operator's computer, from begin to end: with what",
        "it reads of the stack, the temporary key, all checks, and CouchDB and nginx answering.",
      ],
      figures,
    };
  } finally {
    await progress.step("tidying up", async () => {
      await machine.remove();
      await tidyUp();
    });
  }
}
