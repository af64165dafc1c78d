import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "mocha";
import { keptByDestroy } from "../../components/outputs";
import { lastLines } from "../../toolchain/command";
import { distribution, plan, type Situation } from "../../toolchain/engine";
import { keptText, withoutOutputs } from "../../toolchain/kept";
import { credentialAdvice, profileOf, stateInS3 } from "../../toolchain/missing-credential";
import { missingPlugins, pluginAdvice, withEvents } from "../../toolchain/missing-plugin";
import { goPlan } from "../../toolchain/offline/build-cli";
import { cacheFolder, project } from "../../toolchain/paths";
import { duration, Progress } from "../../toolchain/progress";
import { cliEnvironment, namedStack, swallowedOptions } from "../../toolchain/pulumi";
import { findCli, minimumVersion } from "../../toolchain/pulumi-cli";
import { bucketAdvice } from "../../toolchain/taken-bucket";
import { isAtLeast } from "../../toolchain/versions";

describe("the Docker engine", () => {
  const bare: Situation = {
    answers: false,
    elsewhere: false,
    root: true,
    client: false,
    dockerd: false,
    iptables: false,
    distribution: ["debian"],
    systemd: false,
  };
  const installed = { client: true, dockerd: true, iptables: true };

  it("that runs is used", () => {
    assert.deepEqual(plan({ ...bare, ...installed, answers: true, root: false }), { use: true });
  });

  it("is installed and started as root on Debian, Ubuntu and what is like them", () => {
    const expected = { install: ["docker.io", "iptables", "docker-cli?"], start: "dockerd" };
    assert.deepEqual(plan(bare), expected);
    assert.deepEqual(plan({ ...bare, distribution: ["linuxmint", "ubuntu"] }), expected);
  });

  it("is only started where it is installed, by systemd where that is the init", () => {
    assert.deepEqual(plan({ ...bare, ...installed }), { install: [], start: "dockerd" });
    assert.deepEqual(plan({ ...bare, ...installed, systemd: true }), { install: [], start: "systemd" });
  });

  it("is completed where only the client or only the engine is there", () => {
    assert.ok("install" in plan({ ...bare, client: true }));
    const onlyEngine = plan({ ...bare, dockerd: true, iptables: true, answers: true });
    assert.deepEqual("install" in onlyEngine && onlyEngine.install.length, 3);
  });

  it("is refused in one sentence that says what to do", () => {
    const refusals: [Partial<Situation>, RegExp][] = [
      [{ elsewhere: true }, /DOCKER_HOST names doesn't answer/],
      [{ root: false }, /Install one .* or run this as root/],
      [{ root: false, ...installed }, /isn't running, or this user may not use it/],
      [{ distribution: ["fedora"] }, /Install your distribution's/],
    ];
    for (const [change, words] of refusals) {
      const decision = plan({ ...bare, ...change });
      assert.ok("refuse" in decision);
      assert.match(decision.refuse, words);
    }
  });

  it("reads the distribution's names", () => {
    const text = 'PRETTY_NAME="Linux Mint 22"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n';
    assert.deepEqual(distribution(text), ["linuxmint", "ubuntu", "debian"]);
  });
});

describe("the Pulumi CLI", () => {
  it("compares versions by their numbers", () => {
    for (const [a, b, expected] of [
      ["v3.227.0", "3.227.0", true],
      ["v3.230.0", "3.227.0", true],
      ["v3.99.0", "3.227.0", false],
      ["4", "3.227.0", true],
      ["go1.26.8", "1.21", true],
      ["go1.19", "1.21", false],
      ["no version", "1.21", false],
    ] as const) {
      assert.equal(isAtLeast(a, b), expected, `${a} and ${b}`);
    }
  });

  it("that was too busy to say its version is asked again, and one that said it isn't", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-cli-"));
    const { PATH, XDG_CACHE_HOME } = process.env;
    try {
      const program = (name: string, text: string) =>
        writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      // It fails once, and answers once.
      program("pulumi", `mkdir ${folder}/failed && exit 1; mkdir ${folder}/answered && echo v${minimumVersion}`);
      program("pulumi-language-nodejs", "");
      process.env.PATH = `${folder}:${PATH}`;
      process.env.XDG_CACHE_HOME = join(folder, "cache");
      const isTaken = async () => (await findCli())?.folder === folder;
      assert.deepEqual([await isTaken(), await isTaken(), await isTaken()], [false, true, true]);
    } finally {
      Object.assign(process.env, { PATH, XDG_CACHE_HOME });
      if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
      rmSync(folder, { recursive: true });
    }
  });

  it("is built where Go is there or can be installed", () => {
    const none = { installed: undefined, root: true, debian: true, offered: "2:1.24~2" };
    assert.equal(goPlan({ ...none, installed: "go1.26.8" }), "use");
    assert.equal(goPlan(none), "install");
    assert.equal(goPlan({ ...none, installed: "go1.19" }), "install");
  });

  it("is refused in one sentence where neither is so", () => {
    const none = { installed: undefined, root: true, debian: true, offered: "2:1.19~1" };
    const cases = [none, { ...none, offered: "2:1.24~2", root: false }, { ...none, installed: "go1.19" }];
    for (const now of cases) {
      const decision = goPlan(now);
      assert.ok(typeof decision === "object");
      assert.match(decision.refuse, /Install it .*, or Go 1\.21 or newer/);
    }
    const old = goPlan({ ...none, installed: "go1.19" });
    assert.match(typeof old === "object" ? old.refuse : "", /go1\.19 is too old/);
  });

  it("knows the stack that is named", () => {
    for (const args of [
      ["up", "--stack", "lab"],
      ["-s", "lab", "up"],
      ["up", "--stack=lab"],
      ["up", "-slab"],
      ["up", "-s=lab"],
    ]) {
      assert.equal(namedStack(args, { PULUMI_STACK: "prod" }), "lab", args.join(" "));
    }
    assert.equal(namedStack(["up"], { PULUMI_STACK: "prod" }), "prod");
    assert.equal(namedStack(["up"], {}), undefined);
    assert.equal(namedStack(["config", "set", "x", "--", "--stack", "lab"], {}), undefined);
  });

  it("is refused what npm has kept for itself, with the way to write it", () => {
    for (const [args, env, options] of [
      [["preview", "prod"], { npm_config_stack: "true" }, "--stack"],
      [["preview"], { npm_config_stack: "prod" }, "--stack"],
      [["preview"], { npm_config_stack: "prod", npm_config_skip_preview: "true" }, "--stack and --skip-preview"],
    ] as const) {
      assert.equal(
        swallowedOptions(args, env),
        `npm has kept ${options} for itself, and nothing was done: it needs \`--\` before Pulumi's arguments, \`npm run pulumi -- preview --stack STACK\``,
      );
    }
    const secret = { npm_config_secret: "true" };
    assert.match(swallowedOptions(["config", "set", "a", "b"], secret) ?? "", /--secret .*-- config --stack STACK`$/);
    const npms = { npm_config_loglevel: "silent", npm_config_yes: "", npm_config_target: "29.0.0" };
    assert.equal(swallowedOptions(["preview", "--stack", "prod"], npms), undefined);
    assert.equal(swallowedOptions(["up", "--stack=lab"], { npm_config_stack: "prod" }), undefined);
  });

  it("gets the lab's state and passphrase for the stack lab alone", () => {
    const cli = { command: "/opt/p/bin/pulumi", folder: "/opt/p/bin" };
    const user = { PATH: "/bin", PULUMI_CONFIG_PASSPHRASE: "mine", PULUMI_BACKEND_URL: "s3://mine" };
    const prod = cliEnvironment("prod", cli, user, ["up"]);
    assert.equal(prod.PULUMI_CONFIG_PASSPHRASE, "mine");
    assert.equal(prod.PULUMI_BACKEND_URL, "s3://mine");
    assert.equal(prod.PATH, "/opt/p/bin:/bin");
    const lab = cliEnvironment("lab", cli, user, ["up"]);
    assert.equal(lab.PULUMI_CONFIG_PASSPHRASE, undefined);
    assert.match(lab.PULUMI_CONFIG_PASSPHRASE_FILE ?? "", /\/\.lab\/passphrase$/);
    assert.match(lab.PULUMI_BACKEND_URL ?? "", /^file:\/\/\/.*\/\.lab\/state$/);
  });

  it("looks at what is there by today's settings, not by those that the state has kept", () => {
    const cli = { command: "/opt/p/bin/pulumi", folder: "/opt/p/bin" };
    const mode = (args: string[], env = {}) => cliEnvironment("prod", cli, env, args).PULUMI_RUN_PROGRAM;
    for (const args of [["preview"], ["-s", "prod", "up", "--yes"], ["refresh"]]) assert.equal(mode(args), "true");
    // It looks by the state's whatever is asked for, and must not need more settings than before.
    assert.equal(mode(["--stack=prod", "destroy"]), "false");
    assert.equal(mode(["up"], { PULUMI_RUN_PROGRAM: "false" }), "false");
  });

  it("is kept in the user's cache", () => {
    assert.equal(cacheFolder({ XDG_CACHE_HOME: "/c" }), "/c/cht-backup");
    assert.match(cacheFolder({}), /\/\.cache\/cht-backup$/);
  });
});

describe("a plugin that is missing", () => {
  const event = (severity: string, message: string) => JSON.stringify({ diagnosticEvent: { severity, message } });

  it("is recognised by what Pulumi says of it, once", () => {
    const events = [
      JSON.stringify({ preludeEvent: {} }),
      event("warning", "error downloading provider: Get https://…/pulumi-resource-docker-v5.2.0-linux-amd64.tar.gz"),
      event(
        "error",
        "no resource plugin 'pulumi-resource-aws' found in the workspace at version v7.48.0 or on your $PATH",
      ),
      event(
        "error",
        "Could not automatically download and install resource plugin 'pulumi-resource-command' at version v1.2.1, …",
      ),
      event(
        "error",
        "Could not automatically download and install resource plugin 'pulumi-resource-aws' at version v7.48.0",
      ),
      '{"diagnosticEvent": {"severity": "err',
    ];
    assert.deepEqual(missingPlugins(events.join("\n")), ["aws", "command"]);
    const others = [
      event("error", "host:machines.cht: can't be reached"),
      event("error", "no resource plugin 'pulumi-resource-gcp' found in the workspace"),
      event("error", "the plugin pulumi-resource-aws exited"),
      "",
    ];
    assert.deepEqual(missingPlugins(others.join("\n")), []);
  });

  it("is looked for in commands that load plugins, whose arguments and output stay as they are", () => {
    const events = ["--event-log", "/tmp/e"];
    for (const [given, expected] of [
      [["preview"], ["preview", ...events]],
      [
        ["up", "--stack", "prod", "--yes"],
        ["up", ...events, "--stack", "prod", "--yes"],
      ],
      [
        ["--stack", "prod", "destroy"],
        ["--stack", "prod", "destroy", ...events],
      ],
      [
        ["-s=prod", "refresh"],
        ["-s=prod", "refresh", ...events],
      ],
      [["config", "set", "x", "up"], undefined],
      [["stack", "ls"], undefined],
      [["preview", "--event-log", "mine"], undefined],
      [["--help"], undefined],
      [[], undefined],
    ] as const) {
      assert.deepEqual(withEvents(given, "/tmp/e")?.args, expected, given.join(" "));
    }
  });

  it("is named with its version, what needs it, how it is installed, and how to do without", () => {
    const words = pluginAdvice("aws", "7.48.0", { os: "linux", arch: "x64" });
    assert.match(words, /`aws`, version 7\.48\.0/);
    assert.match(words, /`cht-backup:server\.aws` and `cht-backup:bucket\.aws`/);
    assert.match(words, /^ +- with .*: npm run pulumi -- plugin install resource aws 7\.48\.0\n.*HTTPS_PROXY/m);
    assert.match(words, /aws 7\.48\.0 --file pulumi-resource-aws-v7\.48\.0-linux-amd64\.tar\.gz$/m);
    assert.match(words, /without it: name a server and a bucket/);
    const mac = pluginAdvice("docker", "5.2.0", { os: "darwin", arch: "arm64" });
    assert.match(mac, /pulumi-resource-docker-v5\.2\.0-darwin-arm64\.tar\.gz/);
    assert.match(mac, /manageDocker: false/);
  });

  it("of every SDK in package.json that loads one is known", () => {
    const { dependencies } = JSON.parse(readFileSync(join(project, "package.json"), "utf8"));
    const names = Object.keys(dependencies).flatMap((name) => /^@pulumi\/(?!pulumi$)(.*)$/.exec(name)?.[1] ?? []);
    assert.ok(names.length > 0);
    for (const name of names) {
      const said = event("error", `no resource plugin 'pulumi-resource-${name}' found in the workspace`);
      assert.deepEqual(missingPlugins(said), [name]);
      // The engine asks for the version of the plugin that the SDK names.
      const sdk = require(`@pulumi/${name}/package.json`);
      assert.equal(sdk.pulumi.version, dependencies[`@pulumi/${name}`]);
    }
  });
});

describe("what a destroy keeps", () => {
  const event = (op: string, more: object = {}) => {
    const kept = { repository: "server: /srv/x, with all archives", account: "server: user y" };
    const old = { outputs: { kept, recovery: { ciphertext: "[secret]" } } };
    return JSON.stringify({ resOutputsEvent: { metadata: { op, type: "pulumi:pulumi:Stack", old }, ...more } });
  };

  it("is told as kept, and isn't in the CLI's own list of what goes", () => {
    assert.deepEqual(withoutOutputs(["destroy", "--stack", "prod"]), [
      "destroy",
      "--stack",
      "prod",
      "--suppress-outputs",
    ]);
    for (const args of [
      ["-s", "prod", "down"],
      ["--stack=prod", "dn"],
    ]) {
      assert.equal(withoutOutputs(args).at(-1), "--suppress-outputs");
    }
    for (const args of [["up"], ["stack", "output"], ["destroy", "--suppress-outputs=false"], []]) {
      assert.deepEqual(withoutOutputs(args), args);
    }
    const text = keptText(`${event("delete")}\n{"cut`) ?? "";
    assert.match(text, /^\nKept, on purpose; .*\n {2}server: \/srv\/x, with all archives\n {2}server: user y\n/);
    assert.doesNotMatch(text, /^ *-|secret/m);
  });

  it("isn't told where nothing was destroyed", () => {
    for (const events of ["", event("same"), event("delete", { planning: true }), "{}"]) {
      assert.equal(keptText(events), undefined);
    }
  });

  it("has no words in it that read like a fault", () => {
    const kept = keptByDestroy("moh", "/srv/cht-backup", undefined, undefined, undefined);
    assert.doesNotMatch(JSON.stringify(kept), /can't|any more|fail|lost/);
  });
});

describe("a bucket that exists already", () => {
  const failed = (message: string) => JSON.stringify({ diagnosticEvent: { severity: "error", message } });
  const s3 = (code: string) =>
    failed(
      `sdk-v2/provider2.go:572: creating S3 Bucket (moh-copy): operation error S3: CreateBucket, https response error ${code}: x`,
    );

  it("is told with the setting by which it is taken", () => {
    const mine = bucketAdvice([failed("another"), s3("BucketAlreadyOwnedByYou")].join("\n")) ?? "";
    assert.match(mine, /The bucket moh-copy is in your account already[\s\S]*`cht-backup:bucket\.aws\.adopt: true`/);
    assert.match(
      bucketAdvice(s3("BucketAlreadyExists")) ?? "",
      /moh-copy exists already, in your account or in another/,
    );
  });

  it("is nothing that is said of other errors", () => {
    assert.equal(bucketAdvice([failed("AccessDenied"), "{"].join("\n")), undefined);
  });
});

describe("a state in S3", () => {
  const address = "s3://moh-state?region=eu-west-1";

  it("is known by the login that is asked for, the environment, or the login before", () => {
    const backend = { PULUMI_BACKEND_URL: address };
    for (const [args, env, login] of [
      [["login", address], {}, undefined],
      [["login", "--cloud-url", address], {}, "file://~"],
      [["login", `--cloud-url=${address}`], { PULUMI_BACKEND_URL: "file://~" }, undefined],
      [["login"], backend, undefined],
      [["stack", "init", "prod"], {}, address],
      [["preview", "--stack", "prod"], backend, "file://~"],
      [["config", "set", "a", "file://x"], {}, address],
    ] as const) {
      assert.equal(stateInS3(args, env, login), address, args.join(" "));
    }
  });

  it("is no matter where it is elsewhere, or isn't needed", () => {
    for (const [args, env, login] of [
      [["login", "--local"], {}, address],
      [["login", "file://~"], { PULUMI_BACKEND_URL: address }, undefined],
      [["preview"], { PULUMI_BACKEND_URL: "file:///state" }, address],
      [["preview"], {}, "https://api.pulumi.com"],
      [["preview"], {}, undefined],
      [["plugin", "install"], {}, address],
      [["up", "--help"], {}, address],
      [[], {}, undefined],
    ] as const) {
      assert.equal(stateInS3(args, env, login), undefined, args.join(" "));
    }
  });

  it("that can't be read for want of a credential is told with the bucket, why, and what to do", () => {
    assert.deepEqual([profileOf(address), profileOf(`${address}&profile=moh`)], [undefined, "moh"]);
    assert.match(
      credentialAdvice(address, "no credential for AWS: nobody is logged in. Log in"),
      /^\nPulumi's state is in s3:\/\/moh-state, and can't be read: no credential for AWS: nobody is logged in\. Log in\.\n.*`aws\.profile` doesn't count/,
    );
  });
});

describe("progress", () => {
  it("writes times as people say them", () => {
    assert.equal(duration(0), "0.0 s");
    assert.equal(duration(9940), "9.9 s");
    assert.equal(duration(9960), "10 s");
    assert.equal(duration(59_600), "1 min 0 s");
    assert.equal(duration(65_000), "1 min 5 s");
  });

  it("writes one line for a step that worked, none for one that failed", async () => {
    const lines: string[] = [];
    const progress = new Progress((line) => lines.push(line));
    assert.equal(await progress.step("works", async () => 7), 7);
    await assert.rejects(
      progress.step("fails", async () => {
        throw new Error("no");
      }),
    );
    assert.deepEqual(lines, ["· works … 0.0 s"]);
    assert.deepEqual(
      progress.timings.map(({ step }) => step),
      ["works"],
    );
  });

  it("quotes the last lines that say something, without colours", () => {
    assert.equal(lastLines("a\n\n\u001b[31mb\u001b[0m  \nc\n", 2), "  b\n  c");
  });
});
