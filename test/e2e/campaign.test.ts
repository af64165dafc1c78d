import assert from "node:assert/strict";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { healthyLab } from "./hooks";

/** Of the long campaign's kinds those that take little time each. */
const seeds = [
  { seed: 20, only: "SIGKILL of" },
  { seed: 21, only: "cache or report spoilt" },
];

/** A few minutes of `npm run campaign`, always the same ones; `docs/reliability.md` has the long ones. */
describe("a slice of the campaign", function () {
  this.timeout(180_000);

  before(healthyLab);

  const campaign = (...options: string[]) =>
    run("npm", ["run", "-s", "campaign", "--", "--newest", "2", ...options], { cwd: project, timeoutMs: 600_000 });

  for (const { seed, only } of seeds) {
    it(`loses nothing, heals and tells: ${only}, seed ${seed}`, async () => {
      const options = ["--seed", `${seed}`, "--only", only, "--rounds", "3", "--minutes", "1"];
      const { code, stdout, stderr } = await campaign(...options);
      assert.equal(code, 0, stdout + stderr);
      assert.match(stdout, /^[1-3] rounds in .*; \d+ archives and \d+ copies are there and right$/m);
    });
  }

  it("is refused every hostile act that it tries", async () => {
    const { code, stdout, stderr } = await campaign("--hostile", "--only", "delete");
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^\d+ hostile acts in .* are there and right$/m);
  });
});
