/** A lab that is fit for a test: machines up, the stack deployed on them, nothing left of a test before. */
import { deploy } from "../../lab/deploy";
import { exec, output, waitFor } from "../../lab/machines";
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

/** Waits until both containers of the CHT run: after a restart of the machine or of its Docker that takes a while. */
export async function chtAnswers(): Promise<void> {
  const running = "docker ps --filter label=com.docker.compose.project=cht --format '{{.State}}' | grep -c running";
  const up = await waitFor(async () => (await exec("cht", running)).stdout.trim() === "2", 180_000);
  if (!up) throw new Problem("the CHT's containers don't run");
}
