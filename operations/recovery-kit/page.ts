/** The recovery kit's three pages, as plain text and as HTML, from what a stack knows. Nothing here asks or writes. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Marked } from "marked";
import encodeQR from "qr";
import { render } from "../../components/host-files";
import { serverNames } from "../../components/names";
import type { RecoverProgram } from "../../components/recover-program";
import { fingerprintOf } from "../../components/ssh-fingerprint";
import { idOf } from "../../provider/known-keys";
import { plain, plainLines } from "../../toolchain/plain";
import { repositoryId } from "../repository";
import type { Deployment } from "../stack";

const template = (name: string) => readFileSync(join(__dirname, name), "utf8");
/** What an earlier kit is recognised by. */
export const MARK = { html: "<!-- cht-backup recovery kit -->", text: "# CHT recovery kit: " };

/** Headings of the frames by the kind that the template gives them. */
const FRAMES: Record<string, string> = {
  new: "NEW MACHINE, as root",
  text: "secret",
};
const WIDTH = 78;
/** What two codes side by side may take of a page's width, in millimetres. */
const PAIR = 168;

/** What a kit is made from. */
export interface Kit {
  stack: string;
  deployment: Deployment & { hostKey: string };
  made: Date;
  /** Of this program. */
  version: string;
  /** The program that the page's commands run. */
  program: Pick<RecoverProgram, "name" | "sha256">;
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
  about: "Only if part B doesn't open it, or for an old copy of it. It may need the passphrase of its time.",
};
const earlierRepository = (id: string) => ({
  title: "The key of an earlier repository",
  about: `Only for a copy of the repository that was in the same place before. Its id is ${id}.`,
});

/** Digest of the key's text, of which the page has the beginning. */
const sumOf = (key: string) =>
  createHash("sha256")
    .update(`${typed(key)}\n`)
    .digest("hex")
    .slice(0, 16);

/**
 * The lines that the program reads (`hosts/chtbackup/recover/paper.py`): what it must know of a deployment. The last one has
 * two hexadecimal digits for each of the others, so that a mistyped letter is told. Pure.
 */
export function factsOf({ settings, passphrase, key, hostKey, formerKeys = {} }: Kit["deployment"]): string {
  const { server, bucket } = settings;
  const { user, repository } = serverNames(settings.deployment, server.dataDirectory);
  const id = repositoryId(key);
  const earlier = [...new Set(Object.keys(formerKeys).map(idOf))].filter((each) => each !== id);
  const lines = [
    "cht-backup recovery kit 1",
    `deployment ${settings.deployment}`,
    `server ${server.address} ${server.port} ${user}`,
    `host-key ${plain(hostKey)}`,
    `repository ${repository}`,
    `id ${id}`,
    ...earlier.map((each) => `earlier-id ${each}`),
    ...(bucket
      ? [
          `bucket ${bucket.name} ${bucket.region} ${bucket.pathStyle ? "path" : "auto"} ${bucket.endpoint ?? "AWS"} ${bucket.prefix}`.trimEnd(),
        ]
      : []),
    ...(bucket?.reader ? [`reader ${bucket.reader.accessKeyId} ${bucket.reader.secretAccessKey}`] : []),
    `passphrase ${passphrase}`,
  ];
  const check = lines.map((line) => createHash("sha256").update(line).digest("hex").slice(0, 2));
  return [...lines, `check ${check.join(" ")}`].join("\n");
}

/** Where `curl` finds an object in a bucket. */
function urlOf(
  { name, region, endpoint, pathStyle }: NonNullable<Kit["deployment"]["settings"]["bucket"]>,
  key: string,
) {
  const { protocol, host, pathname } = new URL(endpoint ?? `https://s3.${region}.amazonaws.com`);
  const base = pathname.replace(/\/$/, "");
  const path = key.split("/").map(encodeURIComponent).join("/");
  // As boto3 does it: a name with dots has no certificate of its own.
  const named = !pathStyle && !name.includes(".");
  return named ? `${protocol}//${name}.${host}${base}/${path}` : `${protocol}//${host}${base}/${name}/${path}`;
}

function secretsOf(deployment: Kit["deployment"]): Secret[] {
  const { key, formerKeys = {} } = deployment;
  return [
    {
      title: "What the program must know, with the passphrase",
      about: "For step 2: all lines, from the first to the one with check. Capital and small letters differ.",
      text: factsOf(deployment),
    },
    {
      title: "The key",
      about: "Only if the repository lost its own. It is of use only with the passphrase.",
      text: typed(key),
    },
    ...Object.entries(formerKeys).map(([name, former]) => ({
      ...(idOf(name) === repositoryId(key) ? EARLIER_KEY : earlierRepository(idOf(name))),
      text: typed(former),
    })),
  ];
}

/** What the template leaves open. */
function valuesOf({ stack, deployment, made, version, program }: Kit): Record<string, string | number> {
  const { settings, hostKey, key } = deployment;
  const { server, cht, machines, bucket } = settings;
  const { user, repository, recovery } = serverNames(settings.deployment, server.dataDirectory);
  const other = machines.server.address;
  return {
    ...(bucket && {
      BUCKET_REGION: bucket.region,
      RECOVER_URL: urlOf(bucket, bucket.prefix + program.name),
    }),
    OTHER_COPY: bucket
      ? `A copy of it is in the bucket ${bucket.name} at ${bucket.endpoint ?? "AWS"}, region ${bucket.region}, below ${bucket.prefix || "no prefix"}; the key for reading it is in part A.`
      : "There is no copy of it in a bucket: the server's is the only one.",
    RECOVER: program.name,
    RECOVER_SHA256: program.sha256,
    RECOVERY: recovery,
    RECOVER_IN_BUCKET: bucket ? `, in the bucket as ${bucket.prefix}${program.name}` : "",
    DEPLOYMENT: settings.deployment,
    STACK: stack,
    MADE: `${made.toISOString().slice(0, 16).replace("T", " ")} UTC`,
    VERSION: version,
    SERVER_ADDRESS: server.address,
    SERVER_PORT: server.port,
    OTHER_ADDRESS: other === server.address ? "" : ` (from where this page was made: ${other})`,
    SERVER_USER: user,
    REPOSITORY: repository,
    REPOSITORY_ID: repositoryId(key),
    FINGERPRINT: fingerprintOf(hostKey),
    CHT_HOME: cht.home,
    PROJECT: cht.composeProject,
    COUCHDB_DATA: cht.couchdbData.join(", ") || `where that .env says, usually ${cht.home}/couchdb`,
    KEY_SUM: sumOf(key),
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
  const secrets = secretsOf(kit.deployment);
  // The codes of the first two parts are side by side, so that both parts fit on one page.
  const pair = secrets.slice(0, 2).map(({ text }) => text);
  const beside = Math.min(MODULE, PAIR / pair.map(modulesOf).reduce((sum, each) => sum + each, 0));
  const code = (text: string, index: number, module = MODULE) =>
    `<div class="qr"><strong>${partName(index)}</strong>${qrCode(text, module)}</div>\n`;
  const codes = (text: string, index: number) =>
    index > 1 ? code(text, index) : index === 0 ? "" : pair.map((each, n) => code(each, n, beside)).join("");
  const parts = secrets.map(({ title, about, text }, index) => {
    const values = escaped({ PART: partName(index), TITLE: title, ABOUT: about, TEXT: text });
    const QR = codes(text, index);
    const part = render(html(template("secret.md")), { ...values, QR }, { severalLines: true });
    return `<section class="secret">\n${part}</section>\n`;
  });
  const body = render(html(pageTemplate(kit.deployment)), escaped(valuesOf(kit))) + parts.join("");
  const style = `<style>\n${template("page.css")}</style>`;
  const values = { DEPLOYMENT: kit.deployment.settings.deployment, STYLE: style, BODY: body };
  return render(template("page.html"), values, { severalLines: true });
}

const partName = (index: number) => String.fromCharCode("A".charCodeAt(0) + index);

const QUIET = 4; // modules around a code
/** Modules of a code's side, with what is around it. */
const modulesOf = (text: string) => encodeQR(text, "raw", { ecc: "medium", border: QUIET }).length;
/** A module's side in millimetres, where there is room: a phone reads it from paper. */
const MODULE = 0.8;

/** A QR code of exactly this text, as SVG. `module` is a module's side in millimetres. */
export function qrCode(text: string, module = MODULE): string {
  const side = (modulesOf(text) * module).toFixed(1);
  const size = `width="${side}mm" height="${side}mm" shape-rendering="crispEdges"`;
  return encodeQR(text, "svg", { ecc: "medium", border: QUIET }).replace("<svg ", `<svg ${size} `);
}

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}
