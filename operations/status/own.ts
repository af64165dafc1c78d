/** What only the operator's computer knows: whether the recovery kit fits, and when somebody last looked for drift. Pure. */
import { kitTrouble } from "../../components/recovery-kit";
import type { Condition as Listed } from "../../toolchain/conditions";
import type { Reported } from "./report";

/** Days without a preview or an `up` until that is told. */
export const DRIFT_DAYS = 30;

export interface Known {
  /** `cht-backup:recoveryKit`: when the last kit was made, and for what. */
  kit: string | undefined;
  /** What a kit must fit since the last `up`; undefined where that can't be read. */
  digest: string | undefined;
  /** When this computer last compared machines and stack; undefined: it never did, another one may. Seconds since 1970. */
  lookedAt: number | undefined;
  now: number;
}

interface Found {
  id: "kit-outdated" | "drift-unseen";
  values: Record<string, string>;
}

/** What isn't as it should be. */
export function found({ kit, digest, lookedAt, now }: Known): Found[] {
  const trouble = digest ? kitTrouble(kit, digest) : undefined;
  const reason = trouble && trouble.charAt(0).toUpperCase() + trouble.slice(1);
  const days = lookedAt === undefined ? 0 : (now - lookedAt) / 86_400;
  return [
    ...(reason === undefined ? [] : [{ id: "kit-outdated" as const, values: { reason } }]),
    ...(days <= DRIFT_DAYS
      ? []
      : [{ id: "drift-unseen" as const, values: { days: days.toFixed(0), allowed: `${DRIFT_DAYS}` } }]),
  ];
}

/** The same as a machine would report it, by the one list of conditions. */
export function reported(all: readonly Found[], listed: readonly Listed[]): Reported[] {
  return all.flatMap(({ id, values }) => {
    const of = listed.find((each) => each.id === id);
    if (of === undefined) return [];
    const text = of.text.replace(/\{(\w+)\}/g, (_, name: string) => values[name] ?? "");
    const { severity, title, todo, link } = of;
    return [{ id, severity, title, text, todo, link, since: null, hiddenBy: "" }];
  });
}
