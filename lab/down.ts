/** `npm run lab:down`: removes everything that `npm run lab` made, and nothing else. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { engineAnswers, ensureEngine, stopEngine } from "../toolchain/engine";
import { main, onInterrupt } from "../toolchain/main";
import { labFolder } from "../toolchain/paths";
import { Problem, Progress } from "../toolchain/progress";
import { takeLock } from "./lock";
import { removeLabs } from "./remove";
import { stackFile } from "./stack";

const help = `Usage: npm run lab:down

Removes the lab, and the second one that tests make: containers, volumes, networks, images, the Docker engine if
\`npm run lab\` started it, the folder .lab and Pulumi.lab.yaml. Installed packages and the Pulumi CLI in the user's cache
stay, and images and engine where there is another lab.
Exit codes: 0 nothing of the lab is left, 1 something couldn't be removed.
`;

void main("lab:down", async () => {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(help);
    return 0;
  }
  if (args.length > 0) throw new Problem(`${args[0]} is no option of this: it takes none.`);
  const existed = existsSync(labFolder) || existsSync(stackFile);
  const release = takeLock();
  onInterrupt("Stopped. `npm run lab:down` goes on from here.", release);
  try {
    const progress = new Progress();
    const answers = await engineAnswers();
    let others = false;
    // Images and machines exist only where they were begun; otherwise no engine has to be started to look.
    if (!answers && existsSync(join(labFolder, "build"))) await ensureEngine(progress);
    if (answers || existsSync(join(labFolder, "build"))) {
      others = await progress.step("removing machines, volumes, network and images", removeLabs);
    }
    if (!others && (await stopEngine())) progress.note("the Docker engine that was started for the lab is stopped");
    rmSync(stackFile, { force: true });
    rmSync(labFolder, { recursive: true, force: true });
    process.stdout.write(existed ? "The lab is removed.\n" : "There was no lab.\n");
    return 0;
  } finally {
    release();
  }
});
