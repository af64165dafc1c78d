/** Machines that lose their power, or stand still. */
import { containerOf, exec, kill, type Machine, start } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { Problem } from "../../toolchain/progress";
import type { Fault, VictimName } from "../fault";

/** The CHT's containers are back, as Docker starts them at boot: what a backup or a drill asks. */
export async function chtIsBack(): Promise<void> {
  const running = "docker ps --filter label=com.docker.compose.project=cht --format '{{.State}}' | grep -c running";
  for (let tries = 0; tries < 300; tries++) {
    if ((await exec("cht", running, { timeoutMs: 20_000 })).stdout.trim() === "2") return;
    await new Promise((wake) => setTimeout(wake, 500));
  }
  throw new Problem("the CHT's containers don't run again");
}

function powerCut(machine: Machine, victims: VictimName[], expect: Fault["expect"]): Fault {
  return {
    kind: "power cut",
    name: `the ${machine === "cht" ? "CHT machine" : "server"} loses its power`,
    victims,
    expect,
    lasts: [0, 10],
    inject: async () => {
      await kill(machine);
      return true;
    },
    undo: async () => {
      await start(machine);
      if (machine === "cht") await chtIsBack();
    },
  };
}

function frozen(machine: Machine, victims: VictimName[]): Fault {
  const docker = (word: string) => run("docker", [word, containerOf(machine)]);
  return {
    kind: "machine stands still",
    name: `the ${machine === "cht" ? "CHT machine" : "server"} stands still`,
    victims,
    expect: "told",
    lasts: [3, 20],
    inject: async () => (await docker("pause")).code === 0,
    undo: () => docker("unpause"),
  };
}

export const power: Fault[] = [
  // Nobody who has lost his power can tell of it; that a machine stays silent, another one tells hours later.
  powerCut("cht", ["backup", "drill", "restore", "up"], "healed"),
  powerCut("server", ["backup", "copy", "drill", "restore", "retention", "up"], "healed"),
  frozen("cht", ["backup", "drill", "restore", "up"]),
  frozen("server", ["backup", "copy", "drill", "restore", "retention", "up"]),
];
