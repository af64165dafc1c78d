import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { statePolicy } from "../../components/policies";
import { waitFor } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { pythonEnvironment } from "../../toolchain/python";

const bucket = "moh-state";
const alias = "alias/cht-backup";
const kmsKeyArn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

describe("a stack's state in S3", function () {
  this.timeout(180_000);

  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-state-"));
    const runtime = { name: "nodejs", options: { typescript: false } };
    writeFileSync(join(folder, "Pulumi.yaml"), JSON.stringify({ name: "state", runtime }));
    writeFileSync(join(folder, "package.json"), JSON.stringify({ main: "index.js" }));
    symlinkSync(join(project, "node_modules"), join(folder, "node_modules"));
    writeFileSync(join(folder, "index.js"), 'exports.recovery = require("@pulumi/pulumi").secret("hunter2");\n');
  });
  after(() => rmSync(folder, { recursive: true }));

  /** The CLI in a project of its own, with a login of its own. */
  function asOperator([id, secret]: readonly [string, string], more: NodeJS.ProcessEnv = {}) {
    const env = {
      PATH: process.env.PATH,
      HOME: folder,
      PULUMI_HOME: join(folder, "home"),
      XDG_CACHE_HOME: process.env.XDG_CACHE_HOME ?? join(process.env.HOME ?? "", ".cache"),
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
      AWS_ACCESS_KEY_ID: id,
      AWS_SECRET_ACCESS_KEY: secret,
      AWS_EC2_METADATA_DISABLED: "true",
      ...more,
    };
    const attempt = (...args: string[]): Promise<Result> => pulumi(args, { cwd: folder, env, timeoutMs: 60_000 });
    const must = async (...args: string[]) => {
      const done = await attempt(...args);
      assert.equal(done.code, 0, `pulumi ${args.join(" ")}: ${done.stdout}${done.stderr}`);
      return done.stdout;
    };
    return { attempt, must };
  }

  describe("at AWS, played by moto, which asks everybody for his rights", () => {
    let moto: ChildProcess;
    let endpoint: string;
    let operator: ReturnType<typeof asOperator>;
    let stranger: ReturnType<typeof asOperator>;
    let provider: string;

    before(async () => {
      const environment = await pythonEnvironment("aws-tests", "test/aws/requirements.txt");
      const port = await freePort();
      endpoint = `http://127.0.0.1:${port}`;
      moto = spawn(join(environment, "bin", "moto_server"), ["-H", "127.0.0.1", "-p", String(port)], {
        stdio: "ignore",
      });
      const answers = () =>
        fetch(`${endpoint}/moto-api/data.json`).then(
          ({ ok }) => ok,
          () => false,
        );
      assert.ok(await waitFor(answers, 30_000), "moto doesn't answer");
      // moto asks for rights to any key, where AWS asks for those to the one.
      const policy = statePolicy({ bucket, kmsKeyArn });
      for (const statement of policy.Statement) if (statement.Resource === kmsKeyArn) statement.Resource = "*";
      // One who may do all that the state needs, but not use the key.
      const withoutKey = {
        ...policy,
        Statement: policy.Statement.filter(
          ({ Action }) => ![Action].flat().some((action) => /^kms:/.test(`${action}`)),
        ),
      };
      const prepare = ["-B", join(project, "test/aws/prepare.py"), endpoint, bucket, alias, "operator", "stranger"];
      const prepared = await run(join(environment, "bin", "python"), prepare, {
        stdin: JSON.stringify([policy, withoutKey]),
      });
      assert.equal(prepared.code, 0, prepared.stderr);
      const [one, other] = JSON.parse(prepared.stdout);
      operator = asOperator(one);
      stranger = asOperator(other);
      const query = `region=eu-west-1&endpoint=${endpoint}`;
      provider = `awskms://${alias}?${query}`;
      await operator.must("login", `s3://${bucket}?${query}&s3ForcePathStyle=true`);
    });
    after(async () => {
      if (moto?.exitCode !== null) return;
      const ended = new Promise((done) => moto.once("close", done));
      moto.kill();
      await ended;
    });

    it("is kept with secrets that a KMS key encrypts, by the rights of docs/production.md and no more", async () => {
      await operator.must("stack", "init", "prod", "--secrets-provider", provider);
      assert.match(
        readFileSync(join(folder, "Pulumi.prod.yaml"), "utf8"),
        /secretsprovider: ["']?awskms:[\s\S]*encryptedkey: /,
      );
      await operator.must("config", "set", "--secret", "password", "hunter2", "--stack", "prod");
      assert.doesNotMatch(readFileSync(join(folder, "Pulumi.prod.yaml"), "utf8"), /hunter2/);
      await operator.must("up", "--yes", "--skip-preview", "--stack", "prod");
      await operator.must("preview", "--expect-no-changes", "--stack", "prod");
      assert.match(
        await operator.must("stack", "output", "recovery", "--show-secrets", "--stack", "prod"),
        /^hunter2$/m,
      );
      assert.doesNotMatch(await operator.must("stack", "export", "--stack", "prod"), /hunter2/);
      // What a change of hands leaves behind is removed by the same rights.
      await operator.must("cancel", "--yes", "--stack", "prod");
    });

    it("can't be read by whoever has the bucket but not the key", async () => {
      const shown = await stranger.attempt("stack", "output", "recovery", "--show-secrets", "--stack", "prod");
      assert.notEqual(shown.code, 0, shown.stdout);
      assert.doesNotMatch(shown.stdout + shown.stderr, /hunter2/);
      assert.match(shown.stderr, /kms|AccessDenied|not authorized/i);
    });

    it("can't be read by whoever has no rights", async () => {
      const nobody = asOperator(["AKIAIOSFODNN7EXAMPLE", "wrong"]);
      const shown = await nobody.attempt("stack", "ls");
      assert.notEqual(shown.code, 0, shown.stdout);
    });
  });
});
