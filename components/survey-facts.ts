/** What a machine said, taken apart. */
export interface Facts {
  /** All values of a word, in their order. */
  all(word: string): string[];
  /** The first value of a word; empty where there is none. */
  one(word: string): string;
  path(path: string): { kind: string; free: number };
  /** Versions of a package by where they are: installed, from the distribution, from its backports. */
  versions(name: string): { installed?: string; candidate?: string; backports?: string };
}

export function factsIn(lines: string): Facts {
  const pairs = lines.split("\n").map((line) => /^(\S+) ?(.*)$/.exec(line) ?? ["", "", ""]);
  const all = (word: string) => pairs.filter(([, first]) => first === word).map(([, , value = ""]) => value);
  const one = (word: string) => all(word)[0] ?? "";
  const policy = `\n${all("policy").join("\n")}\n`;
  return {
    all,
    one,
    path(path) {
      const found = all("path").find((value) => value.split(" ").slice(2).join(" ") === path);
      const [kind = "missing", free = "0"] = found?.split(" ") ?? [];
      return { kind, free: Number(free) };
    },
    versions(name) {
      const start = policy.indexOf(`\n${name}:\n`);
      const text = start < 0 ? "" : policy.slice(start + name.length + 3).split(/\n(?=\S)/)[0];
      const version = (label: string) => new RegExp(`^ {2}${label}: ([^(\\s]\\S*)$`, "m").exec(text ?? "")?.[1];
      const [installed, candidate] = [version("Installed"), version("Candidate")];
      let last: string | undefined;
      let backports: string | undefined;
      for (const line of (text ?? "").split("\n")) {
        last = /^ (?:\*\*\*| {3}) (\S+)/.exec(line)?.[1] ?? last;
        if (/^ {8} *-?\d+ .*-backports\//.test(line)) backports ??= last;
      }
      return { ...(installed && { installed }), ...(candidate && { candidate }), ...(backports && { backports }) };
    },
  };
}

/** Whether a version, of Debian's or not, isn't below another, by their numbers alone. */
export function reaches(version: string, least: string): boolean {
  const numbers = (text: string) => (/^(?:\d+:)?v?([\d.]+)/.exec(text)?.[1] ?? "0").split(".").map(Number);
  const [one, other] = [numbers(version), numbers(least)];
  for (let index = 0; index < Math.max(one.length, other.length); index++) {
    const [here = 0, there = 0] = [one[index], other[index]];
    if (here !== there) return here > there;
  }
  return true;
}
