/** `npm run recovery-kit`: three pages that are enough to bring a CHT back when everything else is gone. */
import { existsSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { recoverProgram } from "../components/recover-program";
import { kitDigest } from "../components/recovery-kit";
import { lastLines } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";
import { command, exitCodes, optionsOf, Refused } from "./main";
import { htmlPage, type Kit, MARK, textPage } from "./recovery-kit/page";
import { readDeployment } from "./stack";
import { unlocked } from "./unlock";

const help = `Usage: npm run recovery-kit -- --stack STACK [--output FILE.html]

Writes what is needed to bring the CHT back when nothing else is at hand, on three pages: where the copies are, the
passphrase and the repository's key, ten commands, and the checksum of the program that they run, which is kept with
the copies. Print it, seal it, keep it at two places with two people (docs/recovery-kit.md), and delete the files.

  --stack STACK        the stack
  --output FILE.html   where the page goes; the same as plain text is FILE.txt beside it. A kit of that name is
                       replaced. Not inside a git work tree, where a secret is soon committed or copied.
                       Default: recovery-kit-STACK.html in your home directory
  --help               this text

No machine is asked: the page is made from the stack. That it was made is noted in the stack's settings, so that
\`pulumi up\` reminds when a new one is due.

Exit codes: 0 written; 2 refused or not possible, the reason is said; 130 after Ctrl-C.
`;

/**
 * Where the two files go.
 * @param output what the user asked for, relative to `from`
 * @throws Refused
 */
export function places(output: string, from: string): { html: string; text: string } {
  const wanted = resolve(from, output);
  if (!/[^/]\.html$/.test(wanted)) throw new Refused(`--output ${output}: its name must end in .html`);
  const folder = dirname(wanted);
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    throw new Refused(`--output ${output}: there is no directory ${folder}`);
  }
  const html = join(realpathSync(folder), basename(wanted));
  for (let above = dirname(html); ; above = dirname(above)) {
    // Ignored by git or not: `git add --force`, a copy of the tree or an index of it would take the page along.
    if (existsSync(join(above, ".git"))) {
      throw new Refused(`${html} is inside the git work tree ${above}: give a place outside of it by --output`);
    }
    if (above === dirname(above)) break;
  }
  const text = html.replace(/\.html$/, ".txt");
  for (const [path, mark] of [
    [html, MARK.html],
    [text, MARK.text],
  ] as const) {
    if (existsSync(path) && !(statSync(path).isFile() && readFileSync(path, "utf8").slice(0, 200).includes(mark))) {
      throw new Refused(`${path} is there already and is no recovery kit: give another name by --output`);
    }
  }
  return { html, text };
}

/** Writes files for nobody else to read, each whole or not at all. */
function writeSecret(files: Record<string, string>): void {
  try {
    for (const [path, text] of Object.entries(files)) {
      rmSync(`${path}.new`, { force: true });
      writeFileSync(`${path}.new`, text, { mode: 0o600, flag: "wx", flush: true });
    }
    for (const path of Object.keys(files)) renameSync(`${path}.new`, path);
  } catch (error) {
    for (const path of Object.keys(files)) rmSync(`${path}.new`, { force: true });
    throw new Problem(`the kit can't be written: ${(error as Error).message}`);
  }
}

async function recoveryKit(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {
    output: { type: "string" },
  });
  if (options === undefined) return exitCodes.right;
  const { stack } = options;
  // npm changes into the project; the user's own directory is in this variable.
  const from = process.env.INIT_CWD ?? process.cwd();
  const name = stack.replaceAll("/", "-");
  const { html, text } = places(options.output ?? join(homedir(), `recovery-kit-${name}.html`), from);
  const deployment = await readDeployment(stack);
  const { hostKey, settings, key } = deployment;
  if (hostKey === undefined) {
    throw new Refused(`the stack ${stack} doesn't know the server's host key yet: run \`pulumi up\` once`);
  }
  const { version } = JSON.parse(readFileSync(join(project, "package.json"), "utf8")) as { version: string };
  const made = new Date();
  const kit: Kit = { stack, deployment: { ...deployment, hostKey }, made, version, program: recoverProgram() };
  const files = { [html]: htmlPage(kit), [text]: textPage(kit) };
  if (signal.aborted) return exitCodes.stopped;
  const replaced = existsSync(html) || existsSync(text);
  writeSecret(files);
  process.stdout.write(`written${replaced ? " in place of an older kit" : ""}:\n  ${html}\n  ${text}\n`);
  const noted = `${made.toISOString().slice(0, 10)} ${kitDigest(settings, key, hostKey)}`;
  const set = await unlocked(["config", "set", "--plaintext", "cht-backup:recoveryKit", noted, "--stack", stack]);
  if (set.code !== 0) {
    throw new Problem(
      `that a kit was made can't be noted in the stack's settings, so \`pulumi up\` will go on reminding:\n${lastLines(set.stderr || set.stdout)}`,
    );
  }
  process.stdout.write(
    "Whoever has one of these files and a copy of the backups can read everything. Print the page, seal it, keep it\n" +
      "at two places with two people, then delete both files and destroy older kits (docs/recovery-kit.md).\n",
  );
  return exitCodes.right;
}

if (require.main === module || process.argv[1] === __filename) void command("recovery-kit", recoveryKit);
