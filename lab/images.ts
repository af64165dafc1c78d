/**
 * The lab's images: a base (Debian), the machine, the CHT's machine, the two that run inside the latter, and
 * the bucket's.
 *
 * An image's tag is a hash of all that went into it, so that a change of its definition makes a new one and
 * everything else is found again.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type Logged, run } from "../toolchain/command";
import { aptInstall, distribution } from "../toolchain/engine";
import { labFolder, project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { imagePrefix, label } from "./machines";

/** What machines can be made of. */
const releases = {
  trixie: { title: "Debian 13", docker: "docker.io docker-cli docker-compose", drills: true },
  // Its Docker, 20.10, gives an internal network a way out, which drills refuse.
  bookworm: { title: "Debian 12", docker: "docker.io docker-compose", drills: false },
};
type Release = keyof typeof releases;

/** What the lab's machines are made of; everything else in it is of Debian 13. */
export function machineRelease(env: NodeJS.ProcessEnv = process.env): Release {
  const name = env.CHT_BACKUP_LAB_RELEASE || "trixie";
  if (Object.hasOwn(releases, name)) return name as Release;
  throw new Problem(`CHT_BACKUP_LAB_RELEASE is ${name}; it must be ${Object.keys(releases).join(" or ")}.`);
}

/** Whether a CHT machine can make drills. */
export const canDrill = () => releases[machineRelease()].drills;

const baseOf = (release: Release) => `${imagePrefix}base:${release}`;
/** The version that wrote the files in test/fixtures. */
const couchdbImage = "couchdb:3.5.0";
const officialCouchdb = `${imagePrefix}couchdb-official:3.5.0`;
/** How long a registry may take before the lab goes on without it, in milliseconds. */
const pullLimit = 120_000;

export interface Images {
  machine: string;
  cht: string;
  nginx: string;
  couchdb: string;
  bucket: string;
}

/** The settings about reaching package sources in what `apt-config dump` prints: proxies, checks of dates. */
export function aptSettings(dump: string): string {
  const wanted = /^Acquire::(https?::|ftp::|Retries|Check-Valid-Until|Check-Date|ForceIPv)/;
  const lines = dump.split("\n").filter((line) => wanted.test(line) && !/ "";$/.test(line));
  return lines.map((line) => `${line}\n`).join("");
}

/** A short name for the content of files: equal for equal content. */
export function contentHash(files: ReadonlyMap<string, Buffer>, ...more: string[]): string {
  const hash = createHash("sha256");
  for (const text of more) hash.update(`${text.length}:${text}`);
  for (const name of [...files.keys()].sort()) {
    const content = files.get(name) as Buffer;
    hash.update(`${name.length}:${name}${content.length}:`).update(content);
  }
  return hash.digest("hex").slice(0, 12);
}

/** Arguments of `docker` for a build, and what its environment needs on top. */
export function buildCommand(hasBuildx: boolean): { args: string[]; env: NodeJS.ProcessEnv } {
  // The builder of the engine itself: others don't see the engine's images. Without buildx, the older one.
  return hasBuildx
    ? { args: ["buildx", "build", "--builder", "default", "--load"], env: {} }
    : { args: ["build", "--force-rm"], env: { DOCKER_BUILDKIT: "0" } };
}

async function imageId(name: string): Promise<string | undefined> {
  const result = await run("docker", ["image", "inspect", "--format", "{{.Id}}", name]);
  return result.code === 0 ? result.stdout.trim() : undefined;
}

/** All files of a folder by their path in it. */
function filesOf(folder: string, prefix = ""): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) {
      for (const [inner, content] of filesOf(path, `${prefix}${name}/`)) files.set(inner, content);
    } else {
      files.set(prefix + name, readFileSync(path));
    }
  }
  return files;
}

/** A folder with all that an image is built from: its definition and files from elsewhere, by their place in it. */
function context(definition: string, extra: Record<string, Buffer | string> = {}): string {
  const folder = join(labFolder, "build", definition.replaceAll("/", "-"));
  rmSync(folder, { recursive: true, force: true });
  cpSync(join(project, "lab", "images", definition), folder, { recursive: true });
  // Some ways to copy a project lose who may run what.
  for (const [name, content] of filesOf(folder)) {
    if (content.subarray(0, 2).toString() === "#!") chmodSync(join(folder, name), 0o755);
  }
  for (const [place, content] of Object.entries(extra)) {
    mkdirSync(dirname(join(folder, place)), { recursive: true });
    writeFileSync(join(folder, place), content);
  }
  return folder;
}

/** What this computer knows about its network, as files of an image. */
async function networkFiles(): Promise<Record<string, Buffer | string>> {
  const files: Record<string, Buffer | string> = {};
  const bundle = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"].find(existsSync);
  if (bundle !== undefined) {
    // The first is used until the package ca-certificates is there, the second is merged into what that writes.
    files["network/etc/ssl/certs/ca-certificates.crt"] = readFileSync(bundle);
    files["network/usr/local/share/ca-certificates/lab-host.crt"] = readFileSync(bundle);
  }
  // pip comes with a bundle of its own unless it is told otherwise.
  files["network/etc/pip.conf"] = existsSync("/etc/pip.conf")
    ? readFileSync("/etc/pip.conf")
    : "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n";
  const dump = await run("apt-config", ["dump"]);
  files["network/etc/apt/apt.conf.d/80lab-host"] = dump.code === 0 ? aptSettings(dump.stdout) : "";
  return files;
}

/** The proxy variables of this computer, for the time of a build. */
function proxyArguments(): string[] {
  return ["http_proxy", "https_proxy", "no_proxy"].flatMap((name) => {
    const value = process.env[name] ?? process.env[name.toUpperCase()];
    return value === undefined ? [] : ["--build-arg", `${name}=${value}`];
  });
}

/**
 * Gets an image from a registry under the lab's own name. Says whether it could. An image that was there before
 * keeps its other name; one that was pulled has only the lab's, so that `lab:down` removes it.
 */
async function pull(image: string, own: string, logged: Logged): Promise<boolean> {
  if ((await imageId(own)) !== undefined) return true;
  const hadIt = (await imageId(image)) !== undefined;
  if (!hadIt) {
    const log = join(logged.folder, "pull.log");
    const pulled = await run("docker", ["pull", "--quiet", image], { timeoutMs: pullLimit, log });
    if (pulled.code !== 0) return false;
  }
  await logged.run("pull", "docker", ["tag", image, own]);
  if (!hadIt) await run("docker", ["rmi", image]);
  return true;
}

/** Debian's base from an image registry, or made from Debian's packages where none is reached. */
async function base(release: Release, progress: Progress, logged: Logged): Promise<void> {
  if (await pull(registryImage(release), baseOf(release), logged)) return;
  progress.note("no image registry is reached: the base image is made from Debian's packages");
  await bootstrap(release, progress, logged);
}

const registryImage = (release: Release) => `debian:${release}-slim`;

async function bootstrap(release: Release, progress: Progress, logged: Logged): Promise<void> {
  const ids = existsSync("/etc/os-release") ? distribution(readFileSync("/etc/os-release", "utf8")) : [];
  if ((await run("mmdebstrap", ["--version"])).code !== 0) {
    if (process.getuid?.() !== 0 || !(ids.includes("debian") || ids.includes("ubuntu"))) {
      throw new Problem(
        `neither ${registryImage(release)} can be pulled nor is mmdebstrap here to make a base image. ` +
          "Install it (on Debian and Ubuntu: `sudo apt-get install mmdebstrap debian-archive-keyring`), or run this as root.",
      );
    }
    await progress.step("installing mmdebstrap", () => aptInstall(logged, ["mmdebstrap", "debian-archive-keyring"]));
  }
  const folder = join(labFolder, "build");
  mkdirSync(folder, { recursive: true });
  const settings = join(folder, "apt.conf");
  writeFileSync(settings, (await networkFiles())["network/etc/apt/apt.conf.d/80lab-host"] ?? "");
  const tar = join(folder, "base.tar");
  rmSync(`${tar}.new`, { force: true });
  await logged.run("image-base", "mmdebstrap", [
    "--variant=minbase",
    "--format=tar",
    `--aptopt=${settings}`,
    release,
    `${tar}.new`,
  ]);
  renameSync(`${tar}.new`, tar);
  await logged.run("image-base", "docker", [
    "import",
    "--change",
    `LABEL ${label.replace("=", " ")}`,
    tar,
    baseOf(release),
  ]);
  rmSync(tar, { force: true });
}

/** Builds an image from another one, a folder and `more` arguments, where it is missing. @returns its name */
export async function ensureImage(
  name: string,
  from: string,
  folder: string,
  progress: Progress,
  logged: Logged,
  more: Readonly<Record<string, string>> = {},
): Promise<string> {
  const id = await imageId(from);
  const words = Object.entries(more).map(([name, value]) => `${name}=${value}`);
  const image = `${imagePrefix}${name}:${contentHash(filesOf(folder), id ?? from, ...words)}`;
  if ((await imageId(image)) !== undefined) return image;
  const builder = buildCommand((await run("docker", ["buildx", "version"])).code === 0);
  await progress.step(`building the image of ${titles[name] ?? name}`, () =>
    logged.run(
      `image-${name}`,
      "docker",
      [
        ...[...builder.args, ...proxyArguments(), "--build-arg", `BASE=${from}`],
        ...words.flatMap((word) => ["--build-arg", word]),
        ...["--tag", image, folder],
      ],
      { env: { ...process.env, ...builder.env } },
    ),
  );
  return image;
}

/** The image of a machine as a cloud has it, which only tests need, on top of that of a machine. */
export function ensureCloudImage(machine: string, progress: Progress, logged: Logged): Promise<string> {
  return ensureImage("cloud", machine, context("cloud"), progress, logged);
}

/** The CHT's database on top of CouchDB's own image, `from`. */
export function ensureCouchdb(from: string, progress: Progress, logged: Logged): Promise<string> {
  return ensureImage("couchdb", from, context("couchdb/official"), progress, logged);
}

/** Builds the images that are missing, several at once. */
export async function ensureImages(progress: Progress, logged: Logged): Promise<Images> {
  const build = (name: string, from: string, folder: string, more?: Record<string, string>) =>
    ensureImage(name, from, folder, progress, logged, more);
  const baseImage = baseOf("trixie");
  const release = machineRelease();

  for (const of of new Set<Release>(["trixie", release])) {
    if ((await imageId(baseOf(of))) !== undefined) continue;
    await progress.step(`getting the base image (${releases[of].title})`, () => base(of, progress, logged));
  }
  const fromNetwork = await networkFiles();
  const outer = async () => {
    const machine = await build("machine", baseOf(release), context("machine", fromNetwork));
    const fixture = readFileSync(join(project, "test", "fixtures", "couchdb-small.tar.gz"));
    const docker = { DOCKER: releases[release].docker };
    return { machine, cht: await build("cht", machine, context("cht", { "couchdb.tar.gz": fixture }), docker) };
  };
  const couchdb = async () => {
    if (await pull(couchdbImage, officialCouchdb, logged)) {
      return ensureCouchdb(officialCouchdb, progress, logged);
    }
    // What reads CouchDB's files in the product reads them here.
    const reading = ["__init__", "files", "scan", "snappy", "term"].map((name) => `couchdb/${name}`);
    const modules = ["__init__", "base/__init__", "base/text", ...reading];
    const reader = Object.fromEntries(
      modules.map((name) => [`chtbackup/${name}.py`, readFileSync(join(project, "hosts", "chtbackup", `${name}.py`))]),
    );
    return build("couchdb", baseImage, context("couchdb/stand-in", { ...reader, ...fromNetwork }));
  };
  const requirements = readFileSync(join(project, "test", "bucket", "requirements.txt"));
  const [machineImages, nginx, couchdbBuilt, bucket] = await Promise.all([
    outer(),
    build("nginx", baseImage, context("nginx", fromNetwork)),
    couchdb(),
    build("bucket", baseImage, context("bucket", { "requirements.txt": requirements, ...fromNetwork })),
  ]);
  return { ...machineImages, nginx, couchdb: couchdbBuilt, bucket };
}

const titles: Record<string, string> = {
  machine: "a machine",
  cht: "the CHT's machine",
  nginx: "nginx",
  couchdb: "CouchDB",
  bucket: "the bucket",
  cloud: "a machine in a cloud",
};
