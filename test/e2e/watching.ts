/** The watch of a machine, as tests have it look at once and with shorter times. */
import { chtNames, serverNames } from "../../components/names";
import { type Machine, output } from "../../lab/machines";
import { during } from "./backup";

export const here = chtNames("lab");
export const there = serverNames("lab", "");
export const namesOf = (machine: Machine) => (machine === "cht" ? here : there);

export interface WatchReport {
  role: string;
  facts: {
    backup: { ok: boolean } | null;
    lastTransactionAt: number | null;
    units: { unit: string; there: boolean }[];
  };
  conditions: { id: string; text: string; link: string }[];
}

/** Has a machine look now, as its timer does, and returns what it wrote. */
export async function look(machine: Machine): Promise<WatchReport> {
  const { watchService, state } = namesOf(machine);
  await output(
    machine,
    `systemctl start ${watchService} || { journalctl --lines=20 --unit=${watchService} >&2; false; }`,
  );
  return JSON.parse(await output(machine, `cat ${state}/watch.json`));
}

/** Does something while the watch of a machine has other settings, such as limits. */
export function withLimits<T>(machine: Machine, limits: object, work: () => Promise<T>): Promise<T> {
  const file = `${namesOf(machine).settings}/watch.json`;
  const change = `cp -p ${file} /run/watch-test.json; python3 -c '
import json, sys
path = sys.argv[1]
known = json.load(open(path))
json.dump({**known, **json.loads(sys.argv[2])}, open(path, "w"))' ${file} '${JSON.stringify(limits)}'`;
  return during(machine, change, `mv /run/watch-test.json ${file}`, work);
}

export const holds = ({ conditions }: WatchReport, id: string) => conditions.some((of) => of.id === id);
