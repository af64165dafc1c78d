/**
 * A Docker engine: the one that runs; else, as root on Debian or Ubuntu, one that is installed and started here.
 *
 * Where systemd is the machine's init it runs the engine; elsewhere (a container, a build machine) `dockerd` is
 * started in the background. An engine that was started here is remembered, so that it can be stopped again.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Logged, run } from "./command";
import { labFolder } from "./paths";
import { livingProcess } from "./process";
import { Problem, type Progress } from "./progress";

const record = join(labFolder, "engine.json");

/** How an engine was started here. */
type Started = { by: "systemd" } | { by: "dockerd"; pid: number };

/** What decides where an engine comes from. */
export interface Situation {
  /** An engine answers. */
  answers: boolean;
  /** `DOCKER_HOST` or a Docker context names an engine elsewhere. */
  elsewhere: boolean;
  root: boolean;
  /** The client, or the engine's own program, is there. */
  client: boolean;
  dockerd: boolean;
  iptables: boolean;
  /** `ID` and `ID_LIKE` of /etc/os-release. */
  distribution: string[];
  /** systemd is the machine's init. */
  systemd: boolean;
}

export type Plan = { use: true } | { install: string[]; start: "systemd" | "dockerd" } | { refuse: string };

/** Decides where the engine comes from. */
export function plan(now: Situation): Plan {
  if (now.answers && now.client) return { use: true };
  if (now.elsewhere) {
    return { refuse: "the Docker engine that DOCKER_HOST names doesn't answer. Start it, or unset DOCKER_HOST." };
  }
  const missing = !now.dockerd || !now.client || !now.iptables;
  if (!now.root) {
    return {
      refuse: now.dockerd
        ? "the Docker engine isn't running, or this user may not use it. Start it (`sudo systemctl start docker`), add the user to the group `docker`, or run this as root."
        : "a Docker engine is needed. Install one (on Debian and Ubuntu: `sudo apt-get install docker.io`), or run this as root, which does it.",
    };
  }
  const debian = now.distribution.includes("debian") || now.distribution.includes("ubuntu");
  if (missing && !debian) {
    return {
      refuse:
        "a Docker engine is needed. Install your distribution's (it is called docker or moby-engine) and start it.",
    };
  }
  return {
    // Newer releases have the client in a package of its own, which docker.io only recommends.
    install: missing ? ["docker.io", "iptables", "docker-cli?"] : [],
    start: now.systemd ? "systemd" : "dockerd",
  };
}

/** `ID` and the words of `ID_LIKE` in the text of an os-release(5) file. */
export function distribution(osRelease: string): string[] {
  return [...osRelease.matchAll(/^ID(?:_LIKE)?=(.*)$/gm)].flatMap((match) =>
    (match[1] ?? "").replace(/["']/g, "").split(/\s+/).filter(Boolean),
  );
}

function onPath(program: string): boolean {
  const folders = [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/sbin"];
  return folders.some((folder) => folder !== "" && existsSync(join(folder, program)));
}

async function answers(): Promise<boolean> {
  const version = await run("docker", ["version", "--format", "{{.Server.Version}}"], { timeoutMs: 10_000 });
  return version.code === 0 && version.stdout.trim() !== "";
}

async function situation(): Promise<Situation> {
  return {
    answers: await answers(),
    elsewhere: Boolean(process.env.DOCKER_HOST),
    root: process.getuid?.() === 0,
    client: onPath("docker"),
    dockerd: onPath("dockerd"),
    iptables: onPath("iptables"),
    distribution: existsSync("/etc/os-release") ? distribution(readFileSync("/etc/os-release", "utf8")) : [],
    systemd: existsSync("/run/systemd/system"),
  };
}

/**
 * A killed engine leaves its pid file behind. When another program has got that number since, the engine
 * takes it for itself and refuses to start; so a pid file that names anything else is removed.
 */
function removeStalePidFile(file: string, program: string): void {
  if (!existsSync(file)) return;
  const pid = Number(readFileSync(file, "utf8").trim());
  if (livingProcess(pid)?.name !== program) rmSync(file, { force: true });
}

function startDockerd(): number {
  removeStalePidFile("/var/run/docker.pid", "dockerd");
  removeStalePidFile("/var/run/docker/containerd/containerd.pid", "containerd");
  const log = openSync(join(labFolder, "log", "engine.log"), "a");
  // In a session of its own, so that Ctrl-C in this terminal doesn't reach it.
  const child = spawn("dockerd", [], {
    detached: true,
    stdio: ["ignore", log, log],
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  child.on("error", () => undefined);
  child.unref();
  return child.pid ?? 0;
}

async function waitForAnswer(limitMs: number, alive: () => boolean): Promise<boolean> {
  const end = Date.now() + limitMs;
  while (Date.now() < end) {
    if (await answers()) return true;
    if (!alive()) return false;
    await new Promise((wake) => setTimeout(wake, 250));
  }
  return false;
}

/** Makes sure that a Docker engine answers. Throws a `Problem` with one clear sentence when there is no way to one. */
export async function ensureEngine(progress: Progress): Promise<void> {
  const now = await situation();
  const decision = plan(now);
  if ("use" in decision) return;
  if ("refuse" in decision) throw new Problem(decision.refuse);
  mkdirSync(labFolder, { recursive: true, mode: 0o700 });
  const logged = new Logged(join(labFolder, "log"));
  if (decision.install.length > 0) {
    await progress.step("installing a Docker engine (apt-get install docker.io)", () =>
      aptInstall(logged, decision.install),
    );
    if (await answers()) {
      // The package starts it where systemd runs; elsewhere only the client was missing.
      if (decision.start === "systemd") remember({ by: "systemd" });
      return;
    }
  }
  await progress.step("starting the Docker engine", async () => {
    if (decision.start === "systemd") {
      remember({ by: "systemd" });
      await logged.run("engine", "systemctl", ["start", "docker.service"]);
      if (await waitForAnswer(60_000, () => true)) return;
    } else {
      const pid = startDockerd();
      remember({ by: "dockerd", pid });
      if (await waitForAnswer(60_000, () => livingProcess(pid)?.name === "dockerd")) return;
    }
    const log = join(labFolder, "log", "engine.log");
    const words = existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").slice(-4).join("\n  ") : "";
    throw new Problem(`the Docker engine doesn't start:\n  ${words}\n  The whole log: ${log}`);
  });
}

/** Installs packages of Debian or Ubuntu as root, without questions. One with `?` at its end only if there is such a package. */
export async function aptInstall(logged: Logged, packages: readonly string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const options = ["-q", "-y", "-o", "DPkg::Lock::Timeout=120", "install", "--no-install-recommends"];
  // An installation that was interrupted earlier is finished first: apt-get refuses to work until then.
  await logged.run("apt", "dpkg", ["--configure", "-a"], { env });
  await logged.run("apt", "apt-get", ["-q", "update"], { env });
  const names: string[] = [];
  for (const name of packages) {
    if (!name.endsWith("?")) names.push(name);
    else if ((await run("apt-cache", ["show", name.slice(0, -1)])).code === 0) names.push(name.slice(0, -1));
  }
  await logged.run("apt", "apt-get", [...options, ...names], { env });
}

function remember(started: Started): void {
  writeFileSync(record, `${JSON.stringify(started)}\n`);
}

/** How the engine was started here, or undefined when it wasn't. */
export function startedEngine(): Started | undefined {
  try {
    return JSON.parse(readFileSync(record, "utf8")) as Started;
  } catch {
    return undefined;
  }
}

/** Whether an engine answers now. */
export const engineAnswers = answers;

/** Stops the engine that was started here; any other is left alone. Says whether there was one. */
export async function stopEngine(): Promise<boolean> {
  const started = startedEngine();
  if (started === undefined) return false;
  if (started.by === "systemd") {
    await run("systemctl", ["stop", "docker.service", "docker.socket"], { timeoutMs: 60_000 });
  } else if (livingProcess(started.pid)?.name === "dockerd") {
    process.kill(started.pid, "SIGTERM");
    const end = Date.now() + 30_000;
    while (livingProcess(started.pid)?.name === "dockerd" && Date.now() < end) {
      await new Promise((wake) => setTimeout(wake, 100));
    }
  }
  rmSync(record, { force: true });
  return true;
}
