/**
 * Runs one of the project's TypeScript files: `node toolchain/run.mjs FILE [ARGUMENTS]`.
 *
 * Every npm script goes through here, so that a fresh clone needs no other step: it checks the version of Node
 * and installs the dependencies when they are missing or older than `package-lock.json`. The file then runs in
 * this same process (typescript.cjs), with its input, output, signals and exit code.
 */
import { spawn } from "node:child_process";
import { existsSync, statSync, utimesSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const project = dirname(dirname(fileURLToPath(import.meta.url)));
/** Node 20 is past its end of life: it still works, and is named nowhere. */
const minimum = [20, 19];
const supported = "22.12";

function fail(message) {
  console.error(`cht-backup: ${message}`);
  process.exit(1);
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < minimum[0] || (major === minimum[0] && minor < minimum[1])) {
    fail(`Node ${process.versions.node} is too old: ${supported} or newer is needed (https://nodejs.org).`);
  }
}

/** npm writes this file last, so an interrupted installation doesn't have it. */
const installed = join(project, "node_modules", ".package-lock.json");
const lock = join(project, "package-lock.json");

function dependenciesAreCurrent() {
  // npm itself writes the two files in either order within a moment.
  return existsSync(installed) && statSync(installed).mtimeMs + 2000 >= statSync(lock).mtimeMs;
}

const exitCodes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

async function installDependencies() {
  let stoppedBy;
  const start = Date.now();
  const elapsed = () => `${Math.round((Date.now() - start) / 1000)} s`;
  console.error("· installing the dependencies (npm ci)");
  const tick = setInterval(() => console.error(`  installing the dependencies, ${elapsed()} so far`), 15_000);
  const code = await new Promise((done) => {
    // Installation scripts of dependencies are not run: none is needed, and they could do anything.
    const npm = spawn("npm", ["ci", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"], {
      cwd: project,
      // What npm says is not the output of the file that runs afterwards.
      stdio: ["ignore", 2, 2],
    });
    // npm undoes its work before it ends; another run that began meanwhile would be in its way. Mostly it has got
    // Ctrl-C itself.
    const stop = (signal) => {
      stoppedBy ??= signal;
      setTimeout(() => npm.kill("SIGTERM"), 1000).unref();
    };
    for (const signal of Object.keys(exitCodes)) process.on(signal, stop);
    npm.on("error", (error) => fail(`npm can't be run (${error.code}): it comes with Node.`));
    npm.on("close", (exit) => {
      for (const signal of Object.keys(exitCodes)) process.off(signal, stop);
      done(exit ?? 1);
    });
  });
  clearInterval(tick);
  if (stoppedBy !== undefined) {
    console.error("Stopped. The next run installs the dependencies again.");
    process.exit(exitCodes[stoppedBy]);
  }
  if (code !== 0) {
    fail("the dependencies could not be installed; npm's words are above. The next run tries again.");
  }
  utimesSync(installed, new Date(), new Date());
  console.error(`· installing the dependencies … ${elapsed()}`);
}

const [file, ...rest] = process.argv.slice(2);
if (!file) fail("usage: node toolchain/run.mjs FILE [ARGUMENTS]");
checkNode();
if (!dependenciesAreCurrent()) await installDependencies();

const script = resolve(project, file);
if (!existsSync(script)) fail(`${file} doesn't exist.`);
process.argv = [process.argv[0], script, ...rest];
const require = createRequire(import.meta.url);
// tsx looks at JavaScript files, too: with it a command takes four times as long to begin.
require("./typescript.cjs");
require(script);
