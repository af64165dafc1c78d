import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { passphrase } from "../../provider/passphrase";
import type { Inputs, Machines } from "../../provider/resource";
import { actionScript, batchScript, parseBatch, type ShellCall } from "../../provider/shell";
import { sshKey } from "../../provider/ssh-key";

const machines = (() => ({
  read: async (call: ShellCall) =>
    parseBatch(spawnSync("sh", ["-s"], { input: batchScript([call]), encoding: "utf8", timeout: 20_000 }).stdout, 1)[0],
  act: async (call: ShellCall) => {
    const { status, stdout, stderr } = spawnSync("sh", ["-s"], { input: actionScript(call), encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
    return stdout;
  },
})) as unknown as Machines;

describe("a secret's file on a machine", function () {
  this.timeout(20_000);
  let folder = "";
  let inputs: Inputs;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-passphrase-"));
    inputs = passphrase.inputs.parse({ machine: "cht", path: join(folder, "passphrase") }) as Inputs;
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** What may be found in its place, and how it is called. */
  const others: [string, (path: string) => void, RegExp][] = [
    ["a link to a file", (path) => symlinkSync("/etc/hostname", path), /\(a link to \/etc\/hostname\)/],
    ["a link to nothing", (path) => symlinkSync("/no/such", path), /\(a link to \/no\/such\)/],
    ["a pipe", (path) => execFileSync("mkfifo", [path]), /\(not a regular file\)/],
    ["a directory", (path) => mkdirSync(path), /\(not a regular file\)/],
  ];
  for (const [what, make, named] of others) {
    it(`that is ${what} is refused, and left as it is: its description is no passphrase`, async () => {
      const path = inputs.path as string;
      make(path);
      const before = lstatSync(path).ino;
      await assert.rejects(passphrase.apply(machines, inputs, undefined), (error: Error) => {
        assert.match(error.message, /^cht: \S+passphrase must be a regular file, found \(/);
        assert.match(error.message, named);
        return true;
      });
      assert.equal(lstatSync(path).ino, before);
      const seen = await passphrase.read(machines, inputs, { passphrase: "known-known-known" });
      assert.match(String(seen?.inputs.inFile), named);
    });
  }

  it("that became a link is written anew by the stack that knows it; what it led to stays", async function () {
    if (process.getuid?.() !== 0) this.skip();
    const path = inputs.path as string;
    const target = join(folder, "target");
    writeFileSync(target, "other\n");
    symlinkSync(target, path);
    const known = { inputs, outputs: { passphrase: "known-known-known" } };
    assert.deepEqual(await passphrase.apply(machines, inputs, known), { passphrase: "known-known-known" });
    assert.ok(lstatSync(path).isFile());
    assert.deepEqual(
      [path, target].map((file) => readFileSync(file, "utf8")),
      ["known-known-known\n", "other\n"],
    );
    assert.equal(existsSync(`${path}.former`), false);
  });

  it("that is a link in place of the SSH key is refused, so that nobody else's key is changed", async () => {
    const target = join(folder, "somebody's");
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "theirs", "-f", target]);
    const path = join(folder, "ssh_key");
    symlinkSync(target, path);
    const before = readFileSync(target, "utf8");
    const wanted = sshKey.inputs.parse({ machine: "cht", path, comment: "ours" }) as Inputs;
    await assert.rejects(sshKey.apply(machines, wanted, undefined), /ssh_key is no regular file; move it away/);
    assert.equal(readFileSync(target, "utf8"), before);
  });
});
