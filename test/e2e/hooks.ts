/** A lab that is fit for a test: machines up, the stack deployed on them, nothing left of a test before. */
import { deploy } from "../../lab/deploy";
import { exec, output } from "../../lab/machines";
import { Problem, Progress } from "../../toolchain/progress";
import { alertService, service, timer } from "./backup";

let ready: Promise<void> | undefined;

/** Brings the lab to what its stack says, once in a run of tests. Each test leaves it as it found it. */
export function healthyLab(): Promise<void> {
  ready ??= prepare();
  return ready;
}

async function prepare(): Promise<void> {
  await deploy(new Progress(() => undefined));
  await output("cht", `systemctl reset-failed ${service} ${alertService}; systemctl is-active ${timer}`);
  await chtAnswers();
}

/** Waits until the CHT's database answers: after a restart of the machine or of its Docker that takes a while. */
export async function chtAnswers(): Promise<void> {
  const answers = await exec("cht", "wait-for-cht /home/ubuntu/cht/upgrade-service/.env cht 360");
  if (answers.code !== 0) throw new Problem(answers.stderr);
}
