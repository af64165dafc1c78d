/** Files that aren't what they were: caches, reports, what programs remember, and a part of the repository itself. */
import { exec, type Machine, output } from "../../lab/machines";
import type { Fault, VictimName } from "../fault";
import { bucket, cht, drills, server } from "../victims";

/** Shell functions that spoil a file and leave its owner, its mode and its length in order. */
const spoil = `
flip() { # one bit, in the middle
  size=$(stat -c %s "$1"); at=$((size / 2))
  byte=$(od -An -tu1 -j $at -N 1 "$1" | tr -d ' ')
  printf "\\\\$(printf %o $((byte ^ 1)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
cut() { truncate -s $(( $(stat -c %s "$1") / 2 )) "$1"; }
rubbish() { head -c 200 /dev/urandom >"$1.rubbish"; cat "$1.rubbish" >"$1"; rm "$1.rubbish"; }
empty() { : >"$1"; }
`;
type Way = "flip" | "cut" | "rubbish" | "empty" | "rm -rf";

/** A file that is only a help: nobody puts it back, the program itself has to. */
function spoilt(
  what: string,
  machine: Machine,
  find: string,
  way: Way,
  victims: VictimName[],
  kind = "cache or report spoilt",
): Fault {
  const ways = { flip: "has a bit flipped", cut: "is cut off", rubbish: "is rubbish", empty: "is empty" };
  return {
    kind,
    name: `${what} ${way === "rm -rf" ? "is gone" : ways[way]}`,
    victims,
    expect: "told",
    early: true,
    inject: async () => {
      const found = await exec(machine, `${spoil}\nset -e\nfile=$(${find})\n[ -e "$file" ]\n${way} "$file"`);
      return found.code === 0;
    },
  };
}

const cache = (name: string) => `ls -d ${cht.state}/borg/.cache/borg/*/${name} | head -n 1`;
const newest = (name: string) => `ls ${server.repository}/${name}.* | sort -V | tail -n 1`;
const last = `${cht.state}/last-backup.json`;

/** The segment of the newest upload, which no cache has. It is put back: it is the only one there. */
const segment = `find ${server.repository}/data -type f -size +1M | sort -V | tail -n 1`;

const rotten: Fault = {
  kind: "repository rots",
  name: "a segment has a bit flipped, in what the newest archive holds",
  victims: ["drill"],
  expect: "told",
  early: true,
  // Until the drill has ended.
  lasts: [400, 400],
  inject: async () => {
    await output("server", `${spoil}\nset -e\nflip "$(${segment})"`);
    return true;
  },
  undo: () => output("server", `${spoil}\nset -e\nflip "$(${segment})"`),
};

export const files: Fault[] = [
  ...(["flip", "cut", "rubbish", "empty", "rm -rf"] as const).map((way) =>
    spoilt("the last backup's report", "cht", `echo ${last}`, way, ["backup"]),
  ),
  ...(["flip", "cut", "rm -rf"] as const).flatMap((way) =>
    ["chunks", "files", "config"].map((name) =>
      spoilt(`borg's cache (${name})`, "cht", cache(name), way, ["backup", "drill"]),
    ),
  ),
  spoilt("all of borg's cache", "cht", cache(""), "rm -rf", ["backup", "drill"]),
  spoilt("the last drill's report", "cht", `echo ${drills.reports}/latest.json`, "rubbish", ["drill", "retention"]),
  spoilt("the drill's ledger of archives", "cht", `echo ${drills.reports}/ledger.json`, "rubbish", ["drill"]),
  spoilt("what the copy remembers", "server", `echo ${bucket.state}/bucket-state.json`, "rubbish", ["copy"]),
  spoilt("what the copy remembers", "server", `echo ${bucket.state}/bucket-state.json`, "rm -rf", ["copy"]),
  spoilt("the last copy's report", "server", `echo ${bucket.state}/last-copy.json`, "cut", ["copy"]),
  rotten,
];

/** borg's index of the repository: it can be made anew from the log. */
export const indexes: Fault[] = (["index", "hints"] as const).flatMap((name) =>
  (["flip", "cut"] as const).map((way) =>
    spoilt(`the repository's ${name}`, "server", newest(name), way, ["backup", "drill"], "repository's index spoilt"),
  ),
);
