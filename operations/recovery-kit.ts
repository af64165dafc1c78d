/** `npm run recovery-kit`: one page that is enough to bring a CHT back when everything else is gone. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { Marked } from "marked";
import encodeQR from "qr";
import { render } from "../components/host-files";
import { serverNames } from "../components/names";
import { kitDigest } from "../components/recovery-kit";
import { idOf } from "../provider/known-keys";
import { lastLines } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { plain, plainLines } from "../toolchain/plain";
import { Problem } from "../toolchain/progress";
import { command, exitCodes, optionsOf, Refused } from "./main";
import { repositoryId } from "./repository";
import { type Deployment, readDeployment } from "./stack";
import { unlocked } from "./unlock";

const help = `Usage: npm run recovery-kit -- --stack STACK [--output FILE.html]

Writes one page with all that is needed to bring the CHT back with nothing but a shell, ssh and borg: where the copies
are, the passphrase and the repository's key, the commands. Print it, seal it, keep it at two places with two people
(docs/recovery-kit.md), and delete the files.

  --stack STACK        the stack
  --output FILE.html   where the page goes; the same as plain text is FILE.txt beside it. A kit of that name is
                       replaced. Not inside a git work tree, where a secret is soon committed or copied.
                       Default: recovery-kit-STACK.html in your home directory
  --help               this text

No machine is asked: the page is made from the stack. That it was made is noted in the stack's settings, so that
\`pulumi up\` reminds when a new one is due.

Exit codes: 0 written; 2 refused or not possible, the reason is said; 130 after Ctrl-C.
`;

const templates = join(__dirname, "recovery-kit");
const template = (name: string) => readFileSync(join(templates, name), "utf8");
/** What an earlier kit is recognised by. */
const MARK = { html: "<!-- cht-backup recovery kit -->", text: "# CHT recovery kit: " };

/** Headings of the frames by the kind that the template gives them. */
const FRAMES: Record<string, string> = {
  new: "NEW MACHINE, as root",
  server: "BACKUP SERVER, as root",
  text: "secret",
};
const WIDTH = 78;

/** What a kit is made from. */
export interface Kit {
  stack: string;
  deployment: Deployment & { hostKey: string };
  made: Date;
  /** Of this program. */
  version: string;
}

/** A text that opens archives, with what is to be said of it. */
interface Secret {
  title: string;
  about: string;
  text: string;
}

/** A key as a person types it: no empty lines, no spaces at the lines' ends, nothing unseen: it comes from a machine. */
const typed = (key: string) => plainLines(key.replace(/\s*\n\s*/g, "\n").trim());

const EARLIER_KEY = {
  title: "An earlier key of this repository",
  about:
    "Only if part B doesn't open it, or for an old copy of it. It may need the\npassphrase of its time, which isn't in this page.",
};
const earlierRepository = (id: string) => ({
  title: "The key of an earlier repository",
  about: `Only for a copy of the repository that was in the same place before. Its id is\n${id}.`,
});

function secretsOf({ settings, passphrase, key, formerKeys = {} }: Deployment): Secret[] {
  const bucket = settings.bucket && {
    title: "The secret of the bucket's key",
    about: "For step 4, only where the bucket is used.",
    text: settings.bucket.reader?.secretAccessKey ?? "",
  };
  return [
    {
      title: "The passphrase",
      about: "For step 5. Capital and small letters differ.",
      text: passphrase,
    },
    {
      title: "The key",
      about: "For step 6a, if the repository lost its own. It is of use only with the passphrase.",
      text: typed(key),
    },
    ...(bucket ? [bucket] : []),
    ...Object.entries(formerKeys).map(([name, former]) => ({
      ...(idOf(name) === repositoryId(key) ? EARLIER_KEY : earlierRepository(idOf(name))),
      text: typed(former),
    })),
  ];
}

/** What the template leaves open. */
function valuesOf({ stack, deployment, made, version }: Kit): Record<string, string | number> {
  const { settings, hostKey, key, passphrase } = deployment;
  const { server, cht, machines } = settings;
  const { user, home, repository } = serverNames(settings.deployment, server.dataDirectory);
  const [type = "", blob = ""] = hostKey.split(" ");
  const digest = createHash("sha256").update(Buffer.from(blob, "base64")).digest("base64").replace(/=+$/, "");
  const other = machines.server.address;
  const { bucket } = settings;
  return {
    ...(bucket && {
      BUCKET: bucket.name,
      BUCKET_AT: bucket.endpoint ?? "AWS",
      BUCKET_ENDPOINT: bucket.endpoint ?? "",
      BUCKET_REGION: bucket.region,
      BUCKET_PREFIX: bucket.prefix,
      BUCKET_STYLE: bucket.pathStyle ? "path" : "auto",
      BUCKET_KEY_ID: bucket.reader?.accessKeyId ?? "",
    }),
    OTHER_COPY: bucket
      ? `A copy of it is in the bucket ${bucket.name}: see "4, from the bucket".`
      : "There is no copy of it in a bucket: the server's is the only one.",
    DEPLOYMENT: settings.deployment,
    STACK: stack,
    MADE: `${made.toISOString().slice(0, 16).replace("T", " ")} UTC`,
    VERSION: version,
    SERVER_ADDRESS: server.address,
    SERVER_PORT: server.port,
    OTHER_ADDRESS: other === server.address ? "" : ` (from where this page was made: ${other})`,
    SERVER_USER: user,
    SERVER_HOME: home,
    REPOSITORY: repository,
    REPOSITORY_ID: repositoryId(key),
    HOST_KEY_TYPE: plain(type),
    HOST_KEY: plain(blob),
    FINGERPRINT: `SHA256:${digest}`,
    CHT_HOME: cht.home,
    PROJECT: cht.composeProject,
    COUCHDB_DATA: cht.couchdbData.join(", ") || `where that .env says, usually ${cht.home}/couchdb`,
    // Beside CouchDB's data, so that putting it in its place is no copying.
    STAGE: join(dirname(cht.couchdbData[0] ?? cht.home), "cht-recovery"),
    PASSPHRASE_LENGTH: [...passphrase].length,
    KEY_SHA256: createHash("sha256")
      .update(`${typed(key)}\n`)
      .digest("hex"),
  };
}

/** The page's template, with the section on the bucket where there is one. */
function pageTemplate({ settings }: Deployment): string {
  const section = settings.bucket ? template("bucket.md") : "";
  // A function: a replacement's text has a meaning for `$`.
  return template("page.md").replace(/^\[bucket\.md\]\n\n/m, () => section && `${section}\n`);
}

/** The page as plain text. Pure. */
export function textPage(kit: Kit): string {
  const frames = (markdown: string) =>
    markdown.replace(/^```(\w+)\n([\s\S]*?)^```$/gm, (_, kind: string, body: string) => {
      const heading = `======== ${FRAMES[kind]} `;
      return `${heading.padEnd(WIDTH, "=")}\n${body}${"=".repeat(WIDTH)}`;
    });
  const parts = secretsOf(kit.deployment).map(({ title, about, text }, index) => {
    const values = { PART: partName(index), TITLE: title, ABOUT: about, TEXT: text, QR: "" };
    return render(frames(template("secret.md")), values, { severalLines: true }).trimEnd();
  });
  return `${[render(frames(pageTemplate(kit.deployment)), valuesOf(kit)).trimEnd(), ...parts].join("\n\n")}\n`;
}

/** The page as HTML, without scripts and without anything that is fetched. Pure. */
export function htmlPage(kit: Kit): string {
  const marked = new Marked({
    renderer: {
      code: ({ text, lang = "" }) =>
        `<figure class="${lang}"><figcaption>${FRAMES[lang]}</figcaption><pre>${escapeHtml(text)}\n</pre></figure>\n`,
    },
  });
  const html = (markdown: string) => marked.parse(markdown, { async: false });
  const escaped = (values: Record<string, string | number>) =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, escapeHtml(String(value))]));
  const parts = secretsOf(kit.deployment).map(({ title, about, text }, index) => {
    const values = escaped({ PART: partName(index), TITLE: title, ABOUT: about, TEXT: text });
    const qr = `<span class="qr">${qrCode(text)}</span>`;
    const part = render(html(template("secret.md")), { ...values, QR: qr }, { severalLines: true });
    return `<section class="secret">\n${part}</section>\n`;
  });
  const body = render(html(pageTemplate(kit.deployment)), escaped(valuesOf(kit))) + parts.join("");
  const style = `<style>\n${template("page.css")}</style>`;
  const values = { DEPLOYMENT: kit.deployment.settings.deployment, STYLE: style, BODY: body };
  return render(template("page.html"), values, { severalLines: true });
}

const partName = (index: number) => String.fromCharCode("A".charCodeAt(0) + index);

/** A QR code of exactly this text, as SVG. */
export function qrCode(text: string): string {
  const border = 4;
  const modules = encodeQR(text, "raw", { ecc: "medium", border }).length;
  // Modules of 1.2 mm: a phone reads them from paper.
  const size = `width="${(modules * 1.2).toFixed(1)}mm" height="${(modules * 1.2).toFixed(1)}mm" shape-rendering="crispEdges"`;
  return encodeQR(text, "svg", { ecc: "medium", border }).replace("<svg ", `<svg ${size} `);
}

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}

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
  const kit: Kit = { stack, deployment: { ...deployment, hostKey }, made, version };
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
