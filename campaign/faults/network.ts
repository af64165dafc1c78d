/** The network between the machines: cut, half-open, lossy, slow, without names. */
import { addressOf, bucketContainer, exec, type Machine, network, output } from "../../lab/machines";
import { run } from "../../toolchain/command";
import type { Fault, VictimName } from "../fault";

const cht: VictimName[] = ["backup", "drill", "restore"];

export async function bucketAddress(): Promise<string> {
  const format = `{{with index .NetworkSettings.Networks "${network}"}}{{.IPAddress}}{{end}}`;
  return (await run("docker", ["inspect", "--format", format, bucketContainer])).stdout.trim();
}

/** Rules on the CHT machine, which has iptables, against the server's address. A chain of their own takes them in. */
const chains = ["INPUT", "OUTPUT"].map((chain) => `${chain} -j CAMPAIGN-${chain}`);
const clear = chains.map((each) => {
  const own = each.split(" ").at(-1);
  return `iptables -D ${each} 2>/dev/null; iptables -F ${own} 2>/dev/null; iptables -X ${own} 2>/dev/null`;
});

function rules(name: string, make: (address: string) => string[], lasts: Fault["lasts"], weight?: number): Fault {
  return {
    kind: "network",
    name,
    victims: cht,
    expect: "told",
    lasts,
    weight,
    inject: async (hit) => {
      const address = await addressOf("server");
      const created = chains.map((each) => `iptables -N ${each.split(" ").at(-1)}; iptables -I ${each}`);
      const lines = make(address).map((rule) => `iptables -A CAMPAIGN-${rule}`);
      await output("cht", [...clear, "set -e", ...created, ...lines].join("\n"));
      return hit.running();
    },
    undo: () => exec("cht", [...clear, "true"].join("\n")),
  };
}

function routed(name: string, machine: Machine, kind: string, to: () => Promise<string>, victims: VictimName[]): Fault {
  let address = "";
  return {
    kind: "network",
    name,
    victims,
    expect: "told",
    lasts: [3, 40],
    inject: async (hit) => {
      address = await to();
      await output(machine, `ip route add ${kind} ${address}/32`);
      return hit.running();
    },
    undo: () => exec(machine, `ip route del ${kind} ${address}/32`),
  };
}

function slow(name: string, machine: Machine, rate: string, victims: VictimName[]): Fault {
  return {
    kind: "network",
    name,
    victims,
    expect: "told",
    lasts: [5, 40],
    inject: async (hit) => {
      await output(machine, `tc qdisc add dev eth0 root tbf rate ${rate} burst 16kb latency 400ms`);
      return hit.running();
    },
    undo: () => exec(machine, "tc qdisc del dev eth0 root"),
  };
}

/** The file is mounted into the container: it is written, not exchanged. */
function nameless(name: string, machine: Machine, nameserver: string, victims: VictimName[]): Fault {
  const kept = "/run/campaign-resolv.conf";
  return {
    kind: "DNS",
    name,
    victims,
    expect: "told",
    early: true,
    lasts: [5, 45],
    inject: async () => {
      await output(
        machine,
        `[ -e ${kept} ] || cp /etc/resolv.conf ${kept}; echo 'nameserver ${nameserver}' >/etc/resolv.conf`,
      );
      return true;
    },
    undo: () => exec(machine, `[ ! -e ${kept} ] || { cat ${kept} >/etc/resolv.conf; rm ${kept}; }`),
  };
}

export const networks: Fault[] = [
  rules(
    "cut between the CHT machine and the server",
    (at) => [`INPUT -s ${at} -j DROP`, `OUTPUT -d ${at} -j DROP`],
    [3, 60],
  ),
  rules("half-open: what the server says is lost", (at) => [`INPUT -s ${at} -j DROP`], [3, 60]),
  rules("half-open: what the CHT machine says is lost", (at) => [`OUTPUT -d ${at} -j DROP`], [3, 60]),
  rules(
    "connections to the server are reset",
    (at) => [`OUTPUT -d ${at} -p tcp -j REJECT --reject-with tcp-reset`],
    [1, 5],
  ),
  rules(
    "a fifth of all packets is lost",
    (at) => [`INPUT -s ${at} -m statistic --mode random --probability 0.2 -j DROP`],
    [5, 40],
  ),
  rules(
    "packets above 600 bytes are lost (an MTU too small, without a word)",
    (at) => [`OUTPUT -d ${at} -m length --length 600:65535 -j DROP`],
    [5, 45],
  ),
  routed("no route from the server to the bucket", "server", "unreachable", bucketAddress, ["copy"]),
  routed("what the server says to the bucket is lost", "server", "blackhole", bucketAddress, ["copy"]),
  routed("no route back from the server to the CHT machine", "server", "blackhole", () => addressOf("cht"), cht),
  slow("256 kbit/s from the CHT machine", "cht", "256kbit", ["backup", "restore"]),
  slow("256 kbit/s from the server", "server", "256kbit", ["copy", "drill", "restore"]),
  nameless("names can't be resolved on the CHT machine", "cht", "127.0.0.1", cht),
  nameless("nobody answers for names on the CHT machine", "cht", "192.0.2.1", cht),
  nameless("names can't be resolved on the server", "server", "127.0.0.1", ["copy"]),
];
