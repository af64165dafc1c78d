import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { borgPackage } from "../../components/borg";
import { packages, packagesCall } from "../../provider/packages";
import { actionScript } from "../../provider/shell";
import { run } from "../../toolchain/command";

/** What a machine's package sources hold, and what is installed: versions of borgbackup. */
interface System {
  installed?: string;
  candidate: string;
  backports?: string;
}

const systems: [name: string, system: System, from: string][] = [
  ["Ubuntu 22.04", { candidate: "1.2.0-1" }, "build"],
  ["Ubuntu 24.04", { candidate: "1.2.8-1build1" }, "install borgbackup"],
  ["Debian 12", { candidate: "1.2.4-1" }, "build"],
  ["Debian 12 that has its own borg already", { installed: "1.2.4-1", candidate: "1.2.4-1" }, "build"],
  [
    "Debian 12 with backports",
    { candidate: "1.2.4-1", backports: "1.4.0-4~bpo12+1" },
    "install borgbackup=1.4.0-4~bpo12+1",
  ],
  ["Debian 13", { candidate: "1.4.0-4" }, "install borgbackup"],
  ["a machine that has one", { installed: "1.4.0-4", candidate: "(none)" }, ""],
];

describe("borg", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-packages-"));
    mkdirSync(join(folder, "bin"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function program(name: string, text: string) {
    writeFileSync(join(folder, "bin", name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(folder, "bin", name), 0o755);
  }

  /** Runs the call with a machine's package tools made up, and with `more` in place of what changes the machine. */
  async function ran(script: string) {
    return run("sh", ["-s"], { stdin: script, env: { PATH: `${join(folder, "bin")}:/usr/bin:/bin:/usr/sbin:/sbin` } });
  }

  /** The script of an action, with other functions in place of some. */
  function replacing(script: string, functions: string) {
    const end = script.lastIndexOf("\npackages_");
    return `${script.slice(0, end)}\n${functions}${script.slice(end)}`;
  }

  function packageTools({ installed, candidate, backports }: System) {
    const line = (version: string, suite: string) =>
      `borgbackup | ${version} | http://mirror.example.org/debian ${suite}/main amd64 Packages`;
    program("apt-get", ":");
    program("dpkg-query", installed === undefined ? "exit 1" : `echo 'installed borgbackup ${installed}'`);
    program(
      "apt-cache",
      `case $1 in
policy) printf 'borgbackup:\\n  Installed: (none)\\n  Candidate: ${candidate}\\n' ;;
madison) cat <<'END'
${backports === undefined ? "" : line(backports, "bookworm-backports")}
${line(candidate, "bookworm")}
END
esac`,
    );
  }

  for (const [name, system, from] of systems) {
    it(`is, on ${name}, ${from === "" ? "left as it is" : from === "build" ? "built from PyPI's" : `taken: ${from}`}`, async () => {
      packageTools(system);
      const script = replacing(
        actionScript(packagesCall(borgPackage(folder))),
        'packages_lock() { :; }\npackages_build() { echo build; }\npackages_install() { echo install "$@"; }\n',
      );
      const { code, stdout, stderr } = await ran(script);
      assert.deepEqual({ code, stdout: stdout.trim(), stderr }, { code: 0, stdout: from, stderr: "" });
    });
  }

  it("that was built isn't built again while it is as it was, and works", async () => {
    const place = join(folder, "borg");
    const { build } = borgPackage(folder);
    mkdirSync(join(place, "bin"), { recursive: true });
    writeFileSync(join(place, "requirements.txt"), build.requirements);
    writeFileSync(join(place, "bin", "python3"), "#!/bin/sh\nexit 0\n");
    chmodSync(join(place, "bin", "python3"), 0o755);
    packageTools({ candidate: "1.2.4-1" });
    const changes = "packages_lock() { :; }\npackages_build() { echo build; }\n";
    const again = async (digest: string) =>
      (await ran(replacing(actionScript(packagesCall(borgPackage(folder), digest)), changes))).stdout.trim();
    const read = actionScript({ library: "packages", name: "packages_built", arguments: [place, build.check] });
    const [, digest = ""] = (await ran(read)).stdout.split(" ");
    assert.match(digest, /^[0-9a-f]{64}$/);
    assert.equal(await again(digest), "");
    writeFileSync(join(place, "bin", "other"), "");
    assert.equal(await again(digest), "build", "something in it was changed");
    rmSync(join(place, "bin", "other"));
    assert.equal(await again(""), "build", "made by nobody known");
    writeFileSync(join(place, "bin", "python3"), "#!/bin/sh\nexit 1\n");
    assert.equal((await ran(read)).stdout, "built broken\n");
  });

  it("takes with it the compilers that it brought, and neither what was there before nor what it is linked with", async () => {
    program("dpkg-query", 'shift 3; for name; do echo "installed $name 1"; done');
    program("apt-get", `case $2 in remove) shift 2; for name; do echo "Remv $name [1]"; done ;; esac`);
    const tidy = (added: string, apt = "") =>
      replacing(
        actionScript({ library: "packages", name: "packages_tidy", arguments: [] }),
        `packages_work=${folder}/work packages_place=${folder}/borg packages_added='${added}'
packages_linked() { echo 'libc6 libxxhash0 '; }
packages_apt() { echo "$@"; }
${apt}`,
      );
    const { stdout, stderr } = await ran(tidy("gcc libxxhash-dev libxxhash0 python3-dev"));
    assert.equal(stdout, "remove -y gcc libxxhash-dev python3-dev\n", stderr);
    assert.equal((await ran(tidy(""))).stdout, "", "there were all");
    assert.equal((await ran(tidy("libxxhash0"))).stdout, "");
    program("apt-get", 'case $2 in remove) echo "Remv gcc [1]"; echo "Remv the-administrators-own [1]" ;; esac');
    assert.equal((await ran(tidy("gcc"))).stdout, "", "something else has come to need it");
  });

  it("that was built goes without a trace, and alone", async () => {
    const place = join(folder, "programs", "borg");
    const remove = actionScript({ library: "packages", name: "packages_remove_built", arguments: [place] });
    for (const [beside, left] of [
      ["", false],
      ["other", true],
    ] as const) {
      mkdirSync(place, { recursive: true });
      writeFileSync(join(place, "pyvenv.cfg"), "");
      if (beside !== "") writeFileSync(join(folder, "programs", beside), "");
      assert.deepEqual(await ran(remove).then(({ code, stderr }) => [code, stderr]), [0, ""]);
      assert.deepEqual([existsSync(place), existsSync(join(folder, "programs"))], [false, left]);
    }
  });

  it("is locked to its hashes, as is what builds it, and is one that the guard knows", () => {
    const { build, packages: names, minimum } = borgPackage("/opt/x");
    assert.deepEqual(packages.verify?.({ packages: names, minimum, build }, new Set()), []);
    const version = /^borgbackup==(\S+)/m.exec(build.requirements)?.[1] ?? "";
    const guard = readFileSync(join(__dirname, "../../hosts/chtbackup/repository/guard.py"), "utf8");
    assert.ok(/^VERSIONS = \((.*)\)$/m.exec(guard)?.[1]?.includes(`"${version}"`), version);
  });
});
