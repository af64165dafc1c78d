import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { project } from "../../toolchain/paths";

/** Runs its arguments on a terminal; types what comes on standard input. */
const TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";

describe("a command that needs the stack's passphrase", function () {
  this.timeout(60_000);
  let folder = "";

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-unlock-"));
    const program = (name: string, lines: string[]) => {
      writeFileSync(join(folder, name), ["#!/bin/sh", ...lines, ""].join("\n"));
      chmodSync(join(folder, name), 0o755);
    };
    program("pulumi-language-nodejs", []);
    program("pulumi", [
      '[ "$1" != version ] || { echo v999.0.0; exit 0; }',
      'set -- "$@" "$(printenv PULUMI_CONFIG_PASSPHRASE || echo none)"',
      'for given; do :; done; case "$given" in',
      "none) echo 'error: passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE' >&2; exit 255 ;;",
      "'the right one') ;;",
      "*) echo 'error: incorrect passphrase' >&2; exit 255 ;;",
      "esac",
      'case "$1" in',
      `config) echo '{"host:machines":{"value":"{\\"cht\\":{\\"address\\":\\"192.0.2.1\\"},\\"server\\":{\\"address\\":\\"192.0.2.2\\"}}"}}' ;;`,
      `*) echo '{"passphrase":"p","key":"k"}' ;;`,
      "esac",
    ]);
    // What every other program gets to see.
    program("ssh", [`printf '%s' "\${PULUMI_CONFIG_PASSPHRASE-not there}" >'${folder}/seen'`, "exit 255"]);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  interface Shown {
    code: number | null;
    text: string;
  }

  /** @param answers what is typed, each when the passphrase is asked for; undefined: there is no terminal */
  function run(name: string, answers: string[] | undefined): Promise<Shown> {
    const { PULUMI_CONFIG_PASSPHRASE: _, PULUMI_CONFIG_PASSPHRASE_FILE: __, ...clean } = process.env;
    const env = { ...clean, PATH: [folder, process.env.PATH].join(delimiter), XDG_CACHE_HOME: folder };
    const words = ["--require", "./toolchain/typescript.cjs", `operations/${name}.ts`, "--stack", "prod"];
    const program = answers === undefined ? process.execPath : "python3";
    const before = answers === undefined ? [] : ["-c", TERMINAL, process.execPath];
    const child = spawn(program, [...before, ...words], { cwd: project, env, stdio: ["pipe", "pipe", "pipe"] });
    const left = [...(answers ?? [])];
    const shown = { text: "" };
    let from = 0;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        shown.text += text;
        const at = shown.text.indexOf("spares the question): ", from);
        if (at < 0) return;
        from = at + 1;
        child.stdin.write(`${left.shift() ?? ""}\r`);
      });
    }
    if (answers === undefined) child.stdin.end();
    return new Promise((done) => child.on("close", (code) => done({ code, ...shown })));
  }

  for (const name of ["archives", "drill", "recovery-kit"]) {
    it(`${name} asks for it as \`up\` does, shows nothing of what is typed, and gives it to the CLI alone`, async () => {
      const { text } = await run(name, ["the right one"]);
      assert.equal(text.match(/Passphrase of the stack's secrets/g)?.length, 1, text);
      assert.doesNotMatch(text, /the right one|passphrase must be set|incorrect/);
      assert.match(text, name === "recovery-kit" ? /doesn't know the server's host key yet/ : /192\.0\.2\.|cht: /);
      if (name !== "recovery-kit") assert.equal(readFileSync(join(folder, "seen"), "utf8"), "not there");
    });
  }

  it("asks again after a wrong one, and gives up after three", async () => {
    const second = await run("archives", ["wrong", "the right one"]);
    assert.match(second.text, /That isn't it\. Passphrase/);
    assert.doesNotMatch(second.text, /that isn't the passphrase/);
    const { code, text } = await run("archives", ["a", "b", "c", "d"]);
    assert.equal(text.match(/Passphrase of the stack's secrets/g)?.length, 3, text);
    assert.match(text, /that isn't the passphrase of the stack prod/);
    assert.equal(code, 2);
  });

  it("says without a terminal by which variable it gets it", async () => {
    const { code, text } = await run("drill", undefined);
    assert.match(text, /^drill: the passphrase of the stack prod, .* set PULUMI_CONFIG_PASSPHRASE_FILE to the path/m);
    assert.equal(code, 2);
  });
});
