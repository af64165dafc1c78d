import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { waitFor } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { pythonEnvironment } from "../../toolchain/python";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

/** The shell blocks of docs/production.md that are the administrator's, as one script. The first two are run again. */
function accountCommands(): string {
  const page = readFileSync(join(project, "docs/production.md"), "utf8");
  const blocks = [...page.matchAll(/```shell\n([\s\S]*?)```/g)].map(([, block = ""]) => block);
  const [names = "", rights = "", ...others] = blocks.filter((block) => /\baws (iam|kms|s3api|sts) /.test(block));
  return [names, rights, names, rights, ...others].join("\n");
}

// moto asks for rights to any key, where AWS asks for those to the one: the same actions, given for all.
const anyKey = (...actions: string[]) =>
  JSON.stringify({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: actions, Resource: "*" }] });

/** Users beside the operator whom docs/production.md makes: one with the pipeline's rights, one without the key. */
const others = `
policy() { echo "arn:aws:iam::$ACCOUNT:policy/cht-backup-$1"; }
for user in pipeline stranger; do aws iam create-user --user-name $user; done
aws iam attach-user-policy --user-name pipeline --policy-arn "$(policy pipeline)"
aws iam attach-user-policy --user-name stranger --policy-arn "$(policy state)"
aws iam put-user-policy --user-name cht-backup-operator --policy-name any --policy-document '${anyKey("kms:Encrypt", "kms:Decrypt")}'
aws iam put-user-policy --user-name pipeline --policy-name any --policy-document '${anyKey("kms:Decrypt")}'
for user in cht-backup-operator pipeline stranger; do
  echo "key $user $(aws iam create-access-key --user-name $user --query AccessKey.[AccessKeyId,SecretAccessKey] --output text)"
done`;

describe("a stack's state in S3, by the commands and rights of docs/production.md", function () {
  this.timeout(180_000);

  let folder: string;
  let moto: ChildProcess;
  let bucket: string;
  let endpoint: string;
  let users: Map<string, [string, string]>;

  /** The CLI in a project of its own, with a login of its own. */
  function as(user: string) {
    const [id = "", secret] = users.get(user) ?? ["AKIAIOSFODNN7EXAMPLE", "wrong"];
    const env = {
      ...process.env,
      PULUMI_HOME: join(folder, "home"),
      PULUMI_BACKEND_URL: `s3://${bucket}?region=eu-west-1&endpoint=${endpoint}&s3ForcePathStyle=true`,
      PULUMI_CONFIG_PASSPHRASE: undefined,
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
      AWS_ACCESS_KEY_ID: id,
      AWS_SECRET_ACCESS_KEY: secret,
    };
    const attempt = (...args: string[]): Promise<Result> =>
      pulumi([...args, "--color", "never"], { cwd: folder, env, timeoutMs: 240_000 });
    const must = async (...args: string[]) => {
      const done = await attempt(...args);
      assert.equal(done.code, 0, `pulumi ${args.join(" ")}: ${done.stdout}${done.stderr}`);
      return done.stdout;
    };
    return { attempt, must };
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-state-"));
    const runtime = { name: "nodejs", options: { typescript: false } };
    writeFileSync(join(folder, "Pulumi.yaml"), JSON.stringify({ name: "state", runtime }));
    writeFileSync(join(folder, "package.json"), JSON.stringify({ main: "index.js" }));
    symlinkSync(join(project, "node_modules"), join(folder, "node_modules"));
    writeFileSync(join(folder, "index.js"), 'exports.recovery = require("@pulumi/pulumi").secret("hunter2");\n');

    const programs = join(await pythonEnvironment("aws-tests", "test/aws/requirements.txt"), "bin");
    const answers = () =>
      fetch(`${endpoint}/moto-api/data.json`).then(
        ({ ok }) => ok,
        () => false,
      );
    // Somebody else may get the port before it.
    for (let attempt = 0; attempt < 3; attempt++) {
      const port = await freePort();
      endpoint = `http://127.0.0.1:${port}`;
      moto = spawn(join(programs, "moto_server"), ["-H", "127.0.0.1", "-p", String(port)], { stdio: "ignore" });
      await waitFor(async () => moto.exitCode !== null || (await answers()), 270_000);
      if (moto.exitCode === null) break;
    }
    assert.ok(await answers(), "moto doesn't answer");

    const commands = accountCommands();
    [, bucket = ""] = /^STATE=(\S+)/m.exec(commands) ?? [];
    const done = await run("bash", ["-euc", commands + others], {
      cwd: project,
      env: {
        HOME: folder,
        PATH: `${programs}${delimiter}${process.env.PATH}`,
        TMPDIR: folder,
        AWS_ENDPOINT_URL: endpoint,
        AWS_DEFAULT_REGION: "eu-west-1",
        AWS_ACCESS_KEY_ID: "administrator",
        AWS_SECRET_ACCESS_KEY: "administrator",
      },
    });
    assert.equal(done.code, 0, done.stderr);
    const keys = [...done.stdout.matchAll(/^key (\S+) (\S+)\s(\S+)$/gm)];
    users = new Map(keys.map(([, user = "", id = "", secret = ""]) => [user, [id, secret]]));
    // From here on it asks everybody for his rights.
    const headers = { "Content-Type": "text/plain" };
    assert.ok((await fetch(`${endpoint}/moto-api/reset-auth`, { method: "POST", headers, body: "0" })).ok);
  });
  after(async () => {
    if (moto?.exitCode === null) {
      const ended = new Promise((done) => moto.once("close", done));
      moto.kill();
      await ended;
    }
    rmSync(folder, { recursive: true });
  });

  it("is kept by the operator, with secrets that the KMS key encrypts", async () => {
    const { must } = as("cht-backup-operator");
    const provider = `awskms://alias/cht-backup?region=eu-west-1&endpoint=${endpoint}`;
    await must("stack", "init", "prod", "--secrets-provider", provider);
    const settings = () => readFileSync(join(folder, "Pulumi.prod.yaml"), "utf8");
    assert.match(settings(), /secretsprovider: ["']?awskms:[\s\S]*encryptedkey: /);
    await must("config", "set", "--secret", "password", "hunter2", "--stack", "prod");
    assert.doesNotMatch(settings(), /hunter2/);
    await must("up", "--yes", "--skip-preview", "--stack", "prod");
    assert.match(await must("stack", "output", "recovery", "--show-secrets", "--stack", "prod"), /^hunter2$/m);
    assert.doesNotMatch(await must("stack", "export", "--stack", "prod"), /hunter2/);
  });

  it("is enough for the pipeline to look for drift, by rights that change nothing", async () => {
    const { must, attempt } = as("pipeline");
    await must("preview", "--expect-no-changes", "--non-interactive", "--stack", "prod");
    const change = await attempt("up", "--yes", "--skip-preview", "--stack", "prod");
    assert.notEqual(change.code, 0, change.stdout);
    assert.match(change.stdout + change.stderr, /AccessDenied|Forbidden/);
  });

  it("can't be read by whoever has the bucket but not the key", async () => {
    const { must, attempt } = as("stranger");
    assert.match(await must("stack", "ls"), /prod/);
    const shown = await attempt("stack", "output", "recovery", "--show-secrets", "--stack", "prod");
    assert.notEqual(shown.code, 0, shown.stdout);
    assert.doesNotMatch(shown.stdout + shown.stderr, /hunter2/);
  });

  it("can't be seen by whoever has no rights", async () => {
    const shown = await as("nobody").attempt("stack", "ls");
    assert.notEqual(shown.code, 0, shown.stdout);
  });
});
