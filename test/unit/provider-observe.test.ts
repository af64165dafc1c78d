import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { formatLine, observeKeys, parseLine } from "../../provider/authorized-key";
import { readBorgConfig } from "../../provider/borg-config";
import { counterWarning } from "../../provider/borg-counter";
import { observeRepository } from "../../provider/borg-repository";
import { observeProtection, protectionProblems } from "../../provider/bucket-protection";
import { parseFile } from "../../provider/file";
import { newPassphrase } from "../../provider/passphrase";
import { unlockedRequirements } from "../../provider/python-environment";
import { encode } from "../../provider/shell";
import { observeUnit } from "../../provider/unit";

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabc cht";
const COMMAND = "borg serve --append-only --restrict-to-repository /srv/a";

describe("what the plugin sees on a machine", () => {
  describe("a user's authorized keys", () => {
    const wanted = { publicKey: KEY, otherKeys: [] as string[], command: COMMAND, restrictions: "restrict" };
    const line = formatLine(wanted);

    it("is as wanted when the file holds just our line", () => {
      assert.deepEqual(observeKeys(line, wanted), wanted);
    });

    it("shows a second key", () => {
      assert.deepEqual(observeKeys(`${line}ssh-rsa BBBB intruder\n`, wanted).otherKeys, ["ssh-rsa BBBB intruder"]);
    });

    it("shows a second key that hides behind options", () => {
      const sly = 'from="10.0.0.0/8",command="echo ssh-rsa AAAA, yes" ssh-rsa BBBB intruder';
      assert.deepEqual(observeKeys(`${line}${sly}\n`, wanted).otherKeys, [sly]);
    });

    it("takes a second key that was asked for, with the same limits, and shows it without them", () => {
      const other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIdef third";
      const both = { ...wanted, otherKeys: [other] };
      assert.deepEqual(observeKeys(line + formatLine({ ...wanted, publicKey: other }), both), both);
      assert.deepEqual(observeKeys(line, both).otherKeys, []);
      for (const weak of [other, `restrict ${other}`, `restrict,pty,command="${COMMAND}" ${other}`]) {
        assert.deepEqual(observeKeys(`${line}${weak}\n`, both).otherKeys, [weak]);
      }
    });

    it("shows that the command is gone, and that the restrictions are", () => {
      const observed = observeKeys(`${KEY}\n`, wanted);
      assert.equal(observed.command, "(any)");
      assert.equal(observed.restrictions, "(none)");
    });

    it("shows a weakened restriction", () => {
      const weak = line.replace("restrict,", "restrict,pty,port-forwarding,");
      assert.equal(observeKeys(weak, wanted).restrictions, "restrict,pty,port-forwarding");
    });

    it("shows that our key is gone, whatever else is there", () => {
      const observed = observeKeys("# a note\n\nssh-rsa BBBB intruder\n", wanted);
      assert.equal(observed.publicKey, "(removed)");
      assert.deepEqual(observed.otherKeys, ["ssh-rsa BBBB intruder"]);
    });

    it("keeps commas and quotes inside a command", () => {
      const command = 'a "b", c\\d';
      const written = formatLine({ ...wanted, command });
      assert.equal(observeKeys(written, wanted).command, command);
      assert.equal(parseLine(written.trim()).options.length, 2);
    });
  });

  describe("a bucket's protection", () => {
    const wanted = {
      machine: "server",
      bucket: "copies",
      programs: "/opt/x",
      program: "/opt/y/chtbackup",
      settings: "/etc/x.json",
      mode: "COMPLIANCE",
      days: 60,
      answer: "as asked",
      versioning: true,
      publicAccess: "blocked",
    };
    const good = { versioning: true, lock: { mode: "COMPLIANCE", days: 60 }, publicAccessBlock: { A: true, B: true } };
    const observe = (found: object, before = "") =>
      observeProtection({ output: `${before}${JSON.stringify({ ...good, ...found })}\n`, exitCode: 0 }, wanted);
    const problems = (found: object) => protectionProblems(observe(found), wanted);

    it("is as wanted where everything is, and where more is", () => {
      assert.deepEqual(observe({}), wanted);
      assert.deepEqual(observe({ lock: { mode: "COMPLIANCE", days: 400 } }), wanted);
      const less = { ...wanted, mode: "GOVERNANCE" };
      assert.deepEqual(observeProtection({ output: JSON.stringify(good), exitCode: 0 }, less), less);
      assert.deepEqual(problems({}), []);
    });

    it("is as wanted where the storage has no switches for public access", () => {
      assert.deepEqual(observe({ publicAccessBlock: null }), wanted);
    });

    it("isn't distracted by what a library says before it", () => {
      assert.deepEqual(observe({}, "x.py:1: PythonDeprecationWarning: soon\n"), wanted);
    });

    it("shows that versioning is off", () => {
      assert.equal(observe({ versioning: false }).versioning, false);
      assert.match(problems({ versioning: false }).join(), /^its versioning is off; switch it on$/);
    });

    it("shows a lock that is gone, weaker or shorter", () => {
      assert.equal(observe({ lock: null }).mode, "(no object lock)");
      assert.equal(observe({ lock: { mode: null, days: null } }).mode, "(no default retention)");
      assert.equal(observe({ lock: { mode: "GOVERNANCE", days: 60 } }).mode, "GOVERNANCE");
      assert.equal(observe({ lock: { mode: "COMPLIANCE", days: 59 } }).days, 59);
      assert.match(
        problems({ lock: { mode: "GOVERNANCE", days: 7 } }).join(),
        /^its default retention is GOVERNANCE, 7 days; must be COMPLIANCE, 60 days or more$/,
      );
    });

    it("shows which switches are off", () => {
      assert.equal(observe({ publicAccessBlock: { A: true, B: false, C: false } }).publicAccess, "B, C off");
      assert.match(problems({ publicAccessBlock: { A: false } }).join(), /public access isn't blocked \(A off\)/);
    });

    it("shows why it can't be asked", () => {
      const failed = { output: "the bucket copies at AWS x: it can't be reached\n", exitCode: 2 };
      const observed = observeProtection(failed, wanted);
      assert.equal(observed.answer, "the bucket copies at AWS x: it can't be reached");
      assert.deepEqual(protectionProblems(observed, wanted), [observed.answer]);
      assert.equal(observeProtection({ output: "", exitCode: 124 }, wanted).answer, "no answer in time");
    });
  });

  describe("a file", () => {
    it("is undefined when it is missing", () => {
      assert.equal(parseFile({ output: "missing - - -\n", exitCode: 0 }, "x"), undefined);
    });
    it("comes with its text, mode and owner", () => {
      const answer = { output: `file 0640 root adm\n${encode("grüezi\n")}`, exitCode: 0 };
      assert.deepEqual(parseFile(answer, "x"), {
        content: "grüezi\n",
        mode: "0640",
        owner: "root",
        group: "adm",
        valid: true,
      });
    });
    it("is told apart from a link to one", () => {
      assert.deepEqual(parseFile({ output: `link - - -\n${encode("/etc/passwd\n")}`, exitCode: 0 }, "x"), {
        content: "(a link to /etc/passwd)",
      });
    });
    it("that can't be looked at is an error, not drift", () => {
      assert.throws(
        () => parseFile({ output: "stat: Permission denied", exitCode: 1 }, "cht: /x"),
        /cht: \/x can't be read/,
      );
    });
  });

  describe("a unit", () => {
    const wanted = {
      machine: "cht",
      unit: "a.timer",
      content: "[Timer]\n",
      enabled: true,
      active: true,
      restartOn: [],
      overrides: [],
      reloaded: true,
    };
    const answer = (facts: string, content = encode("[Timer]\n")) => ({ output: `${facts}\n${content}`, exitCode: 0 });

    it("is as wanted when it runs and starts at boot", () => {
      const facts = "ActiveState=active;NeedDaemonReload=no;UnitFileState=enabled;DropInPaths=;";
      assert.deepEqual(observeUnit(answer(facts), wanted), wanted);
    });
    it("shows that it is stopped, disabled and overridden", () => {
      const facts =
        "ActiveState=inactive;NeedDaemonReload=yes;UnitFileState=disabled;DropInPaths=/etc/systemd/system/a.timer.d/x.conf /run/systemd/system/timer.d/all.conf;";
      const observed = observeUnit(answer(facts), wanted);
      assert.deepEqual(
        [observed?.active, observed?.enabled, observed?.reloaded, observed?.overrides],
        [false, false, false, ["/etc/systemd/system/a.timer.d/x.conf"]],
      );
    });
    it("shows the word for a state that is neither yes nor no", () => {
      const observed = observeUnit(answer("ActiveState=failed;UnitFileState=masked;DropInPaths=;"), wanted);
      assert.deepEqual([observed?.active, observed?.enabled], ["failed", "masked"]);
    });
    it("is missing when it has no file", () => {
      assert.equal(observeUnit(answer("ActiveState=inactive;", ""), wanted), undefined);
    });
  });

  describe("a repository", () => {
    const id = "a".repeat(64);
    const wanted = {
      machine: "cht",
      server: "server",
      location: "ssh://offsite/r",
      path: "/r",
      rsh: "ssh",
      baseDirectory: "/b",
      passphrase: "p",
      encryption: "repokey-blake2",
      appendOnly: true,
      additionalFreeSpace: "500M",
      identity: "as initialised",
      key: "as exported",
    };
    const blob = Buffer.alloc(90, "k").toString("base64");
    const text =
      "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 1\n" +
      `storage_quota = 0\nadditional_free_space = 500M\nid = ${id}\nkey = ${blob.slice(0, 70)}\n\t${blob.slice(70)}\n\n`;
    const { storedKey } = readBorgConfig(text);
    const known = `${id} 5 0000000010000123`;
    const observe = (config: string | undefined, client = known, before: object = { repositoryId: id, storedKey }) =>
      observeRepository(config === undefined ? undefined : readBorgConfig(config), client, before, wanted);

    it("is as wanted when both machines know it so", () => {
      assert.deepEqual(observe(text), wanted);
    });
    it("that was moved away is missing", () => {
      assert.equal(observe(undefined).identity, "missing");
    });
    it("that was exchanged is another one", () => {
      assert.match(observe(text.replace(id, "b".repeat(64))).identity, /^another repository/);
    });
    it("whose key was exchanged says so, and one whose key was removed, too", () => {
      assert.equal(observe(text.replace(blob.slice(0, 9), "AAAAAAAAA")).key, "exchanged");
      const without = observe(text.replace(/key = [\s\S]*/, ""), "");
      assert.deepEqual([without.key, without.encryption], ["exchanged", "repokey-blake2"]);
    });
    it("that isn't encrypted as wanted says how it is", () => {
      assert.equal(observe(text, `${id} 2`).encryption, "none");
      assert.equal(observe(text.replace(/key = [\s\S]*/, ""), "", {}).encryption, "none");
    });
    it("whose own lock was taken off says so", () => {
      assert.equal(observe(text.replace("append_only = 1", "append_only = 0")).appendOnly, false);
    });
    it("to which the client has never written, as it was made anew, says so until it was told from where to count", () => {
      assert.equal(observe(text, "").identity, "new to cht");
      assert.equal(observe(text, `${id} 5 -`).identity, "new to cht");
      assert.equal(observe(text, "", {}).identity, "as initialised", "not before the stack knows it");
    });
    const hexadecimal = (counter: bigint) => counter.toString(16).padStart(16, "0");
    const now = 1_796_000_000;
    const fromTime = BigInt(now) << 31n;
    const counters: [what: string, stored: string | undefined, client: string | undefined, expected: RegExp][] = [
      ["both have counted as far", "0000000010000123", "0000000010000123", /^$/],
      ["another client has written since", "0000000020000123", "0000000010000123", /^$/],
      ["neither has begun", undefined, "-", /^$/],
      ["the client was made anew, and told from where to count", "0000000010000123", hexadecimal(fromTime), /^$/],
      [
        "a client that counts from the time has written",
        hexadecimal(fromTime + 99n),
        hexadecimal(fromTime + 99n),
        /^$/,
      ],
      ["the server was set back", "0000000010000123", "0000000020000123", /was set back to an older state/],
      ["the server's counter is gone", undefined, "0000000020000123", /was set back to an older state/],
      ["the counter was driven to its end", "fffffffff0000000", "0000000010000123", /nobody can back up/],
    ];
    for (const [what, stored, client, expected] of counters) {
      it(`is ${expected.source === "^$" ? "right" : "reported"} when ${what}`, () => {
        assert.match(counterWarning(stored, client, now) ?? "", expected);
      });
    }
    it("keeps the digest of its key as earlier versions have written it into the state", () => {
      const lines = `key = ${blob.slice(0, 70)}\n\t${blob.slice(70)}`;
      assert.equal(storedKey, createHash("sha256").update(lines).digest("hex"));
    });

    const damages: [what: string, config: string][] = [
      ["by a carriage return in the key", text.replace(/key = [\s\S]*/, `key = x\rid = ${"0".repeat(64)}\n\n`)],
      ["as it is cut off in its id", text.slice(0, text.indexOf(id) + 10)],
      ["as it is cut off in its key", text.slice(0, text.indexOf(blob.slice(0, 9)) + 30)],
      ["as it is empty", ""],
      ["as its section's name is missing", text.slice("[repository]\n".length)],
      ["as it says its id twice", text.replace("storage_quota = 0", `id = ${id}`)],
      ["as it is full of zeros", "\0".repeat(600)],
      ["as it says no size of segments", text.replace(/max_segment_size.*\n/, "")],
    ];
    for (const [what, config] of damages) {
      it(`whose configuration is damaged, ${what}, is the same one, and says so`, () => {
        const { identity, encryption, key } = observe(config, known);
        assert.deepEqual([identity, encryption, key], ["as initialised", "repokey-blake2", "damaged"]);
      });
    }
    it("whose configuration an operator has written by hand, as borg reads it, is no damage", () => {
      const byHand = text.replace("version = 1", "# checked\nversion=1").replace("storage_quota = ", "storage_quota: ");
      assert.equal(observe(byHand).key, "as exported");
    });
  });

  describe("requirements", () => {
    const locked = `a==1 \\\n    --hash=sha256:${"0".repeat(64)} \\\n    --hash=sha256:${"1".repeat(64)}\n    # via b\n`;
    it("that are pinned and hashed are right", () => {
      assert.deepEqual(unlockedRequirements(`# made by a tool\n${locked}`), []);
    });
    it("without a hash or a version are named", () => {
      assert.deepEqual(unlockedRequirements(`${locked}b==2\nc>=3\n`), ["b", "c>"]);
    });
  });

  describe("a new passphrase", () => {
    it("holds 160 bits in characters that are told apart on paper", () => {
      assert.match(newPassphrase(), /^([a-z0-9]{4}-){7}[a-z0-9]{4}$/);
      assert.doesNotMatch(newPassphrase(), /[iol1]/);
    });
    it("differs each time, and with every byte", () => {
      assert.notEqual(newPassphrase(), newPassphrase());
      const bytes = new Uint8Array(20);
      const all = new Set([newPassphrase(bytes)]);
      for (let i = 0; i < 20; i++) all.add(newPassphrase(bytes.map((_, at) => (at === i ? 1 : 0))));
      assert.equal(all.size, 21);
    });
  });
});
