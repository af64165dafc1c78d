import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newKeyPair } from "../../provider/host-key-pair";
import { kinds } from "../../provider/kinds";
import { connectionTo, readMachines } from "../../provider/machines";
import { scrub, unwrap, wrap } from "../../provider/properties";
import { changedProperties, checkInputs, type Kind } from "../../provider/resource";
import { actionScript, batchScript, parseBatch, quote } from "../../provider/shell";
import { explainConnectionFailure } from "../../provider/ssh-failure";
import { connectionArguments } from "../../provider/ssh-options";

const SECRET = { "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270" };
const UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
const MACHINE = { address: "192.0.2.7", user: "root", sudo: false };

describe("the plugin and the engine", () => {
  it("a secret stays one on its way through", () => {
    const wire = { path: "/a", content: { ...SECRET, value: "hush" }, list: [{ ...SECRET, value: "deep" }] };
    const properties = unwrap(wire);
    assert.deepEqual(properties.values, { path: "/a", content: "hush", list: ["deep"] });
    assert.deepEqual([...properties.secret], ["content", "list"]);
    assert.deepEqual(wrap(properties.values, properties.secret).content, wire.content);
  });

  it("no secret is left in what an operator reads, not even one line of it", () => {
    const properties = unwrap({ content: { ...SECRET, value: "first-line\nsecond-line" } });
    assert.equal(scrub("borg said second-line is wrong", properties), "borg said [secret] is wrong");
  });

  it("what only an update will know is no mistake", () => {
    const kind = kinds.AuthorizedKey as Kind;
    const given = { machine: "server", user: "u", command: "c", publicKey: UNKNOWN };
    const { inputs, failures } = checkInputs(kind, given, new Set(["publicKey"]));
    assert.deepEqual(failures, []);
    assert.equal(inputs.publicKey, UNKNOWN);
    assert.deepEqual(changedProperties(inputs, inputs, new Set(["publicKey"])), ["publicKey"]);
  });

  const wrong: [string, string, Record<string, unknown>, string][] = [
    ["a relative path", "File", { path: "etc/a", content: "" }, "path"],
    ["a path with ..", "File", { path: "/etc/../a", content: "" }, "path"],
    ["a mode of three digits", "File", { path: "/a", content: "", mode: "644" }, "mode"],
    ["neither text nor file", "File", { path: "/a" }, "content"],
    ["both text and file", "File", { path: "/a", content: "", source: "b" }, "content"],
    ["a source that isn't there", "File", { path: "/a", source: "no-such-file" }, "source"],
    ["a property that doesn't exist", "File", { path: "/a", content: "", owned: "root" }, "owned"],
    ["an owner with a space", "Directory", { path: "/a", owner: "a b" }, "owner"],
    ["no packages", "Packages", { packages: [] }, "packages"],
    ["a package that is an option", "Packages", { packages: ["--yes"] }, "packages.0"],
    ["a choice of packages without what they are for", "Packages", { packages: ["a1|b1"] }, "packages"],
    ["a user that is an option", "User", { user: "-r", home: "/h" }, "user"],
    [
      "two keys in one",
      "AuthorizedKey",
      { user: "u", command: "c", publicKey: "ssh-ed25519 AA\nssh-rsa BB" },
      "publicKey",
    ],
    [
      "a further key of two lines",
      "AuthorizedKey",
      { user: "u", command: "c", publicKey: "ssh-ed25519 AA", otherKeys: ["ssh-ed25519 AA\nssh-rsa BB"] },
      "otherKeys.0",
    ],
    ["a command of two lines", "AuthorizedKey", { user: "u", command: "a\nb", publicKey: "ssh-ed25519 AA" }, "command"],
    ["a unit without its type", "Unit", { unit: "backup", content: "[Unit]" }, "unit"],
    ["a unit in another place", "Unit", { unit: "../a.service", content: "[Unit]" }, "unit"],
    ["a passphrase of two lines", "Passphrase", { path: "/p", value: "one\ntwo" }, "value"],
    ["a reserve of nothing", "SpaceReserve", { path: "/p", mebibytes: 0 }, "mebibytes"],
    ["requirements without hashes", "PythonEnvironment", { path: "/p", requirements: "a==1" }, "requirements"],
    [
      "no encryption",
      "BorgRepository",
      { server: "s", location: "l", path: "/p", rsh: "ssh", baseDirectory: "/b", passphrase: "p", encryption: "none" },
      "encryption",
    ],
  ];
  for (const [what, kind, inputs, property] of wrong) {
    it(`${kind}: ${what} is refused, naming ${property}`, () => {
      const { failures } = checkInputs(kinds[kind] as Kind, { machine: "cht", ...inputs }, new Set());
      assert.deepEqual(
        failures.map((failure) => failure.property),
        [property],
      );
    });
  }
});

describe("the plugin and a machine's shell", () => {
  it("every character of an argument arrives", () => {
    const text = "a 'b' \"c\" $d `e` \\f\n;g é";
    assert.equal(spawnSync("sh", ["-c", `printf %s ${quote(text)}`], { encoding: "utf8" }).stdout, text);
  });

  it("a read that fails leaves the others their answers", () => {
    const read = (path: string) => ({ library: "directory", name: "directory_read", arguments: [path] });
    const calls = [read("/"), { library: "directory", name: "no_such_function", arguments: [] }, read("/no-such")];
    const result = spawnSync("sh", ["-s"], { input: batchScript(calls), encoding: "utf8" });
    const [root, failed, missing] = parseBatch(result.stdout, 3);
    assert.match(root?.output ?? "", /^directory 0755 root root/);
    assert.notEqual(failed?.exitCode, 0);
    assert.match(missing?.output ?? "", /^missing/);
  });

  it("a script that is cut off in the middle does nothing at all", () => {
    const script = actionScript({
      library: "directory",
      name: "directory_apply",
      arguments: ["/tmp/x", "0755", "root", "root"],
    });
    for (const part of [0.5, 0.9, 0.99]) {
      const cut = `echo started\n${script.slice(0, Math.floor(script.length * part))}`.replace(
        "set -eu",
        "echo ran; set -eu",
      );
      assert.doesNotMatch(spawnSync("sh", ["-s"], { input: cut, encoding: "utf8" }).stdout, /ran/);
    }
  });
});

describe("the way to a machine", () => {
  it("checks a pinned host key against nothing else", () => {
    const args = connectionArguments({ ...MACHINE, hostKey: "ssh-ed25519 AA" }, "/tmp/k").join(" ");
    assert.match(args, /StrictHostKeyChecking=yes/);
    assert.match(args, /GlobalKnownHostsFile=\/dev\/null/);
  });
  it("takes a first host key and keeps it where none is pinned", () => {
    assert.match(connectionArguments(MACHINE, undefined).join(" "), /StrictHostKeyChecking=accept-new/);
  });
  it("never asks, and forwards nothing", () => {
    assert.match(connectionArguments(MACHINE, undefined).join(" "), /BatchMode=yes.*ForwardAgent=no/);
  });
  const failures: [string, string, RegExp][] = [
    ["a changed key", "@@@\nHost key verification failed.", /not the one known from earlier/],
    ["a refused login", "ubuntu@x: Permission denied (publickey).", /login refused.*host:machines\.cht\.user/],
    ["an unknown name", "ssh: Could not resolve hostname x", /Check host:machines\.cht\.address/],
    ["a machine that is down", "ssh: connect to host x port 22: No route to host", /can't be reached over SSH/],
  ];
  for (const [what, words, expected] of failures) {
    it(`says what ${what} means and names the machine`, () => {
      const text = explainConnectionFailure("cht", MACHINE, words);
      assert.match(text, expected);
      assert.match(text, /^cht \(192\.0\.2\.7\): /);
      assert.equal(text.split("\n").length, 1);
    });
  }
});

describe("the way to a machine that an option names", () => {
  it("is explained by that option, not by a setting that isn't there", () => {
    for (const words of ["Permission denied (publickey).", "Could not resolve hostname x", "No route to host"]) {
      const text = explainConnectionFailure("root@new.example.org", MACHINE, words, "--to");
      assert.match(text, /Check (the user in )?--to\b/);
      assert.doesNotMatch(text, /host:machines/);
    }
  });
});

describe("the machines in the plugin's settings", () => {
  const read = (machines: unknown) => readMachines(JSON.stringify({ machines }));
  it("are those of today's stack file", () => {
    assert.equal(read(JSON.stringify({ cht: { address: "192.0.2.7" } })).cht?.user, "root");
  });
  it("with a mistake are refused with its path, as the program would", () => {
    assert.throws(
      () => read(JSON.stringify({ cht: { address: "192.0.2.7", port: 70000 } })),
      /host:machines\.cht\.port/,
    );
    assert.throws(() => read("not a mapping"), /^Error: host:machines/);
    assert.throws(() => readMachines(undefined), /host:machines/);
  });
});

describe("a machine that the stack makes", () => {
  const hostKey = `ssh-ed25519 ${Buffer.concat([Buffer.from("\0\0\0\x0bssh-ed25519\0\0\0 "), Buffer.alloc(32)]).toString("base64")}`;
  const place = { machine: "server", address: "192.0.2.9", user: "cht-admin", hostKey, instance: "i-1" };

  it("is reached where its resource says, by the pinned key, with the login's file from the settings", () => {
    const settings = { user: "root", sudo: false, identityFile: "~/.ssh/backup" };
    assert.deepEqual(connectionTo("server", settings, place), {
      address: "192.0.2.9",
      user: "cht-admin",
      sudo: true,
      hostKey,
      identityFile: "~/.ssh/backup",
    });
    assert.equal(connectionTo("server", undefined, place).address, "192.0.2.9");
  });

  it("is not asked for in the name of another one", () => {
    assert.deepEqual(connectionTo("cht", MACHINE, place), MACHINE);
    assert.throws(() => connectionTo("cht", undefined, place), /host:machines\.cht is not set/);
    assert.throws(
      () => connectionTo("server", { ...MACHINE, address: undefined }, undefined),
      /server\.address is not set/,
    );
  });

  it("has a host key of its own each time, which OpenSSH reads", () => {
    const [one, other] = [newKeyPair(), newKeyPair()];
    assert.notEqual(one.publicKey, other.publicKey);
    const directory = mkdtempSync(join(tmpdir(), "host-key-"));
    try {
      const file = join(directory, "key");
      writeFileSync(file, one.privateKey, { mode: 0o600 });
      const { stdout } = spawnSync("ssh-keygen", ["-y", "-f", file], { encoding: "utf8" });
      assert.equal(stdout.trim(), one.publicKey);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it("keeps its host key for as long as the stack knows it", async () => {
    const known = newKeyPair();
    const kind = kinds.HostKeyPair as Kind;
    const nobody = () => assert.fail("no machine is asked");
    const inputs = { machine: "server" };
    assert.deepEqual(await kind.apply(nobody, inputs, { inputs, outputs: { ...known } }), known);
    assert.deepEqual(await kind.read(nobody, inputs, { ...known }), { inputs, outputs: known });
    assert.deepEqual(kind.secret, ["privateKey"]);
  });
});
