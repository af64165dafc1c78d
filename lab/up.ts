/** `npm run lab`: two machines, a CHT on one, a bucket, the program deployed onto both, the first backup made. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Logged } from "../toolchain/command";
import { ensureEngine } from "../toolchain/engine";
import { main, onInterrupt } from "../toolchain/main";
import { labFolder, project } from "../toolchain/paths";
import { plainLines } from "../toolchain/plain";
import { duration, Problem, Progress } from "../toolchain/progress";
import { ensureCli } from "../toolchain/pulumi-cli";
import { ensureMachines, machinesExist } from "./boot";
import { bucketExists, ensureBucket } from "./bucket";
import { deployedImages, documentCounts, ensureCht } from "./cht";
import { deploy, firstBackup } from "./deploy";
import { ensureImages } from "./images";
import { takeLock } from "./lock";
import { removeForsaken } from "./remove";
import { writeSettings } from "./stack";
import { summary } from "./summary";

const help = `Usage: npm run lab [-- --no-deploy]

Sets up the lab on this computer: two machines in containers (systemd, sshd), a CHT deployment on one of them,
a bucket in a third container, the stack "lab" deployed onto both by Pulumi, and the first backup. What is there already is found again.

  --no-deploy   stop after the machines, the CHT and Pulumi.lab.yaml
  --help        this text

Needs Linux with Node 22.12 or newer and OpenSSH's client. A Docker engine and the Pulumi CLI are used where they
are, else got (the engine as root on Debian and Ubuntu). \`npm run lab:down\` removes everything again.

The environment may name what differs in a lab of its own beside another one:
  CHT_BACKUP_LAB          its network, and the beginning of its containers' names (default: cht-backup-lab)
  CHT_BACKUP_LAB_RELEASE  what its machines are made of: trixie (Debian 13, the default) or bookworm (Debian 12)
Exit codes: 0 all is there, 1 something failed (said in words), 130 stopped by Ctrl-C.
`;

void main("lab", async () => {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(help);
    return 0;
  }
  const unknown = args.find((arg) => arg !== "--no-deploy");
  if (unknown !== undefined)
    throw new Problem(`${unknown} is no option of this. \`npm run lab -- --help\` lists them.`);
  const deploys = !args.includes("--no-deploy");
  if (deploys && !existsSync(join(project, "index.ts"))) throw new Problem("index.ts, the program, is missing.");

  const start = Date.now();
  const release = takeLock();
  onInterrupt("Stopped. `npm run lab` goes on from here, `npm run lab:down` removes what was made.", release);
  try {
    const progress = new Progress();
    const logged = new Logged(join(labFolder, "log"));
    // The one asks the network and the processor, the other waits for the network: both at once.
    const machinery = async () => {
      await ensureEngine(progress);
      await removeForsaken(progress);
      const present = await Promise.all([machinesExist(), bucketExists()]);
      let images = present.every(Boolean) ? undefined : await ensureImages(progress, logged);
      const machines = await ensureMachines(images, progress, logged);
      const deployed = await deployedImages();
      if (deployed === undefined) images ??= await ensureImages(progress, logged);
      const services = deployed ?? images;
      if (services === undefined) throw new Problem("the CHT's images are missing");
      await Promise.all([
        ensureCht(services, deployed !== undefined, progress, logged),
        ensureBucket(images, progress, logged),
      ]);
      writeSettings(machines);
      return machines;
    };
    const [machines] = await Promise.all([machinery(), deploys ? ensureCli(progress) : undefined]);
    if (deploys) {
      await deploy(progress);
      await firstBackup(progress, logged);
    }
    const counts = await documentCounts();
    const text = await summary({ machines, counts, timings: progress.timings, deployed: deploys });
    process.stdout.write(plainLines(text));
    process.stdout.write(`\nAll in ${duration(Date.now() - start)}.\n`);
    return 0;
  } finally {
    release();
  }
});
