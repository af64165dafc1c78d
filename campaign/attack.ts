/** Hostile acts one after the other, and what must hold after them. */
import { waitFor } from "../lab/machines";
import { type Act, hostileActs } from "./hostile";
import { approve, audited, type Copies, unsealedOrOdd } from "./invariants";
import { tune } from "./lab";
import { calm, type Scene } from "./round";
import { victims } from "./victims";

const alarm = /^CHT backup lab: somebody must look at the repository/;
const ALARM_MS = 60_000;

/** @returns what doesn't hold that must */
export async function attack(
  scene: Scene,
  copies: Copies,
  word: string | undefined,
  tell: (act: Act) => void,
): Promise<string[]> {
  const problems: string[] = [];
  await tune(scene.alarmAddress);
  // What somebody was told of within a day isn't told again.
  await approve();
  scene.alarms.take();
  let inRepository = false;
  await hostileActs(word, async (acts) => {
    for (const act of acts) {
      tell(act);
      if (!act.refused) problems.push(`GRANTED: ${act.name}: ${act.answer}`);
      inRepository ||= !act.means.startsWith("the bucket");
    }
    if (acts.length > 0) problems.push(...(await scene.archives.check((names) => names, [])));
  });
  if (inRepository) {
    const found = await audited();
    if (found.length === 0) problems.push("UNTOLD: the audit has found nothing");
    if (!(await waitFor(async () => scene.alarms.has(alarm), ALARM_MS))) problems.push("UNTOLD: no alarm came");
    await approve();
  }
  const next = await calm(victims.backup);
  if (!next.right) problems.push(`NOT HEALED: the next backup: ${next.words}`);
  // Not before: what a session has begun and never finished isn't sealed, and goes with the next one.
  return [...problems, ...(await unsealedOrOdd()), ...(await copies.check())];
}
