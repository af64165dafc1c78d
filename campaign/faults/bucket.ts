/** A bucket that is gone, stands still, or answers badly. */
import { bucketContainer, exec, type Machine, nameOf, output, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { Problem } from "../../toolchain/progress";
import type { Fault, VictimName } from "../fault";
import { BadDay, type Mood } from "../proxy";
import { bucketAddress } from "./network";

const docker = async (...words: string[]) => (await run("docker", words, { timeoutMs: 60_000 })).code === 0;

/** It answers again: a machine in its network gets a connection. */
async function answers(): Promise<void> {
  const ask = `timeout 2 bash -c ': </dev/tcp/${nameOf("bucket")}/8333'`;
  if (!(await waitFor(async () => (await exec("server", ask)).code === 0, 120_000))) {
    throw new Problem("the bucket doesn't answer again");
  }
}

const victims: VictimName[] = ["copy", "restore from the bucket"];
const machineOf = (victim: VictimName): Machine => (victim === "copy" ? "server" : "cht");

/** Whom the machines take for the bucket. The file is mounted into the container: it is written, not exchanged. */
const redirect = (address: string) => `echo '${address} ${nameOf("bucket")} # campaign' >>/etc/hosts`;
const direct = `sed '/# campaign$/d' /etc/hosts >/run/campaign-hosts && cat /run/campaign-hosts >/etc/hosts`;

function badDay(name: string, mood: Mood, lasts: Fault["lasts"]): Fault {
  const day = new BadDay();
  return {
    kind: "bucket",
    name,
    victims,
    expect: "told",
    early: true,
    lasts,
    inject: async ({ victim, number }) => {
      const address = await day.begin(await bucketAddress(), mood, number);
      await output(machineOf(victim), redirect(address));
      return true;
    },
    undo: async () => {
      for (const machine of ["server", "cht"] as const) await exec(machine, direct);
      await day.end();
    },
  };
}

export const buckets: Fault[] = [
  {
    kind: "bucket",
    name: "the bucket loses its power",
    victims,
    expect: "told",
    lasts: [1, 40],
    inject: async ({ running }) => (await docker("kill", bucketContainer)) && running(),
    undo: async () => {
      await docker("start", bucketContainer);
      await answers();
    },
  },
  {
    kind: "bucket",
    name: "the bucket stands still",
    victims,
    expect: "told",
    lasts: [3, 30],
    inject: async ({ running }) => (await docker("pause", bucketContainer)) && running(),
    undo: () => docker("unpause", bucketContainer),
  },
  badDay("the bucket answers every request with 503", { share: 1, act: "503" }, [5, 40]),
  badDay("the bucket answers a fifth of all requests with 503", { share: 0.2, act: "503" }, [20, 60]),
  badDay("the bucket answers a fifth of all requests with 500", { share: 0.2, act: "500" }, [20, 60]),
  badDay("the bucket takes the time for wrong", { share: 1, act: "skewed" }, [5, 40]),
  badDay("a third of all answers come late", { share: 0.3, act: "slow" }, [20, 60]),
  badDay("a tenth of all connections are cut", { share: 0.1, act: "cut" }, [20, 60]),
  badDay("a tenth of all answers are truncated", { share: 0.1, act: "truncated" }, [20, 60]),
  badDay("a tenth of all requests get no answer", { share: 0.1, act: "silent" }, [10, 30]),
];
