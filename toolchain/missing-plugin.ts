/** What to say where Pulumi can't get a plugin. Pure. */

/** Plugins that some settings need, by name, with those settings and how to do without. */
const uses: Record<string, { what: string; without: string }> = {
  aws: {
    what: "makes what `cht-backup:server.aws` and `cht-backup:bucket.aws` ask for",
    without: "without it: name a server and a bucket that exist already, and leave `aws` out of both",
  },
  command: {
    what: "waits for a new server's first boot (`cht-backup:server.aws`) and makes the first backup (`cht-backup:firstBackup`)",
    without:
      "without it: `cht-backup:firstBackup: false`, and a server that exists already; the timer then makes the first backup",
  },
  docker: {
    what: "keeps the drill's network and image (`cht-backup:drill.manageDocker`)",
    without:
      "without it: `cht-backup:drill.manageDocker: false`, and once on the machine that drills, as root: `docker network " +
      "create --internal cht-drill-DEPLOYMENT`, with the deployment's name",
  },
};

/** Commands of the CLI that run the program, or load plugins for what the state has. */
const running = new Set(["preview", "pre", "up", "update", "destroy", "down", "dn", "refresh"]);

/** Where among the CLI's arguments its command is. A stack may be named before it; another option there is left alone. */
export function commandAt([first = ""]: readonly string[]): number {
  return first === "--stack" || first === "-s" ? 2 : /^(--stack=|-s)/.test(first) ? 1 : 0;
}

/**
 * Arguments and environment with which the CLI writes its events into a file besides showing them; undefined for commands
 * that have none. It is the way that Pulumi's Automation API goes: the terminal stays the CLI's own.
 */
export function withEvents(
  args: readonly string[],
  file: string,
): { args: string[]; env: NodeJS.ProcessEnv } | undefined {
  const at = commandAt(args);
  if (!running.has(args[at] ?? "") || args.some((arg) => /^--event-log(=|$)/.test(arg))) return undefined;
  return {
    args: [...args.slice(0, at + 1), "--event-log", file, ...args.slice(at + 1)],
    env: { PULUMI_DEBUG_COMMANDS: "true" },
  };
}

/** The errors among the CLI's events: a JSON text a line. */
export function errorsIn(events: string): string[] {
  return events.split("\n").flatMap((line) => {
    try {
      const { diagnosticEvent } = JSON.parse(line);
      const { severity, message } = diagnosticEvent ?? {};
      return severity === "error" && typeof message === "string" ? [message] : [];
    } catch {
      // The last line of a CLI that was killed.
      return [];
    }
  });
}

/** The plugins that the CLI says are missing, from its events. */
export function missingPlugins(events: string): string[] {
  const names = errorsIn(events).flatMap((message) => {
    const [, name = ""] = /\b(?:no|install) resource plugin 'pulumi-resource-([a-z0-9-]+)'/.exec(message) ?? [];
    return name in uses ? [name] : [];
  });
  return [...new Set(names)];
}

/**
 * What is missing, why it is needed, and what to do.
 * @param version as package.json pins the SDK, whose plugin has the same
 * @param platform as Node names it, for instance `linux` and `x64`
 */
export function pluginAdvice(name: string, version: string, platform: { os: string; arch: string }): string {
  const { what = "", without = "" } = uses[name] ?? {};
  const system = platform.os === "win32" ? "windows" : platform.os;
  const file = `pulumi-resource-${name}-v${version}-${system}-${platform.arch === "x64" ? "amd64" : platform.arch}.tar.gz`;
  const install = `npm run pulumi -- plugin install resource ${name} ${version}`;
  return `
Pulumi's plugin \`${name}\`, version ${version}, isn't on this computer, and Pulumi could not download it.
It ${what}. What to do:
  - with a way to the internet: ${install}
    (behind a proxy set HTTPS_PROXY before; \`npm run pulumi -- plugin install\` alone installs all that may be needed)
  - without one: get https://get.pulumi.com/releases/plugins/${file}
    on another computer, and here: ${install} --file ${file}
  - ${without}
`;
}
