import assert from "node:assert/strict";
import { readHostFile } from "../../components/host-files";
import type { FirstBoot } from "../../components/user-data";
import { addressOf, exec, output, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import {
  attach,
  blankDisk,
  bootEnded,
  canGrow,
  type Disk,
  firstBoot,
  firstLogin,
  launch,
  login,
  onDisk,
  reboot,
  removeCloud,
} from "./cloud-machine";

const data = "/srv/cht-backup";
const unit = "cht-data-volume.service";

const now = () => output("cloud", "journalctl --show-cursor --lines=0 | sed -n 's/^-- cursor: //p'");
/** What the unit said, all of it or after some moment. */
const journal = (after?: string) =>
  output(
    "cloud",
    `journalctl --sync; journalctl --output=cat --unit=${unit} ${after === undefined ? "" : `--after-cursor='${after}'`}`,
  );
/** The file system on the data volume: when it was made, how it is mounted, and its size in MiB. */
const mounted = () => output("cloud", `findmnt --noheadings --output UUID,FSTYPE,OPTIONS --mountpoint ${data}`);
const mebibytes = async () => Number(await output("cloud", `df --output=size --block-size=1M ${data} | tail -n 1`));

describe("the first boot of a server at AWS", function () {
  this.timeout(180_000);

  let boot: FirstBoot;
  let disk: Disk;
  let waited: string;
  let refusals: string[];
  let ended: { status: string; errors: string[] };

  before(async () => {
    boot = await firstBoot();
    disk = await blankDisk(128);
    // As at AWS, the volume comes when the machine runs already.
    await launch(boot, disk, { id: "i-1", attached: false });
    refusals = await firstLogin(boot);
    const waits = await waitFor(
      async () => (await output("cloud", `systemctl show -p ActiveState --value ${unit}`)) === "activating",
      300_000,
    );
    assert.ok(waits, "the unit was never started");
    waited = await output("cloud", `systemctl show -p ActiveState --value ${unit}; ls -A ${data}; lsattr -d ${data}`);
    await attach(disk);
    ended = await bootEnded();
  });
  after(removeCloud);

  it("ends without an error, of cloud-init's or of any unit", async () => {
    assert.deepEqual(ended.errors, [], await journal());
    assert.equal(ended.status, "done");
    assert.equal(await output("cloud", "systemctl --failed --no-legend --plain"), "");
    assert.equal(
      await output("cloud", "bash -s", { stdin: readHostFile("aws/wait_for_boot.sh") }),
      "the first boot has ended",
    );
    await output("cloud", "cloud-init schema --config-file /var/lib/cloud/instance/cloud-config.txt");
    assert.equal(await output("cloud", `systemd-analyze verify ${unit} 2>&1 | grep -F cht-data || true`), "");
  });

  it("waits for a volume that comes late, and meanwhile nothing can be put into its place", () => {
    assert.match(waited, /^activating\n-+i-+/);
  });

  it("shows the stack's host key from the first connection on, and no other", async () => {
    for (const words of refusals) assert.match(words, /Connection (refused|reset|closed|timed out)|No route/, words);
    const scan = await run("ssh-keyscan", ["-T", "60", await addressOf("cloud")]);
    const offered = scan.stdout
      .trim()
      .split("\n")
      .map((line) => line.split(" ").slice(1).join(" "));
    assert.deepEqual(offered, [boot.hostKey.publicKey]);
  });

  it("lets the operator in by key, with sudo, and nobody as root or by a password", async () => {
    assert.equal((await login(boot, "sudo -n id -un")).stdout, "root\n");
    assert.match((await login(boot, "true", [], "root")).stderr, /Permission denied \(publickey\)/);
    const password = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "PubkeyAuthentication=no"];
    assert.match((await login(boot, "true", password)).stderr, /Permission denied \(publickey\)/);
    assert.equal(await output("cloud", "getent shadow | cut -d: -f2 | grep -v '^[!*]' || true"), "");
  });

  it("leaves the host's private key to root alone, and out of logs", async () => {
    const [, line = ""] = boot.hostKey.privateKey.split("\n");
    const found = await output(
      "cloud",
      `{ grep -rlsF '${line}' /etc /var /run /home /root /usr/local /tmp; journalctl --output=cat | grep -cF '${line}' || true; } | sort -u | while read -r file; do if [ -e "$file" ]; then stat -c '%a %U %n' "$file"; else echo "$file in the journal"; fi; done`,
    );
    const lines = found.split("\n");
    assert.ok(lines.includes("600 root /etc/ssh/ssh_host_ed25519_key"), found);
    assert.ok(lines.includes("0 in the journal"), found);
    for (const each of lines.filter((each) => !each.endsWith("in the journal"))) assert.match(each, /^[4-7]00 root /);
    assert.doesNotMatch(found, /\/var\/log\//);
  });

  it("makes a file system on a blank volume and mounts it by its UUID", async () => {
    const [uuid = "", type, options = ""] = (await mounted()).split(/ +/);
    assert.equal(type, "ext4");
    for (const option of ["rw", "nodev", "nosuid", "noexec"]) assert.ok(options.split(",").includes(option), options);
    const fstab = await output("cloud", `grep ${data} /etc/fstab`);
    assert.match(fstab, new RegExp(`^UUID=${uuid} ${data} ext4 \\S*nofail\\S*x-systemd.device-timeout=60s\\S* 0 2$`));
  });

  it("has security updates installed by themselves, with the reboot that they need", async () => {
    const settings = await output("cloud", "apt-config dump");
    assert.match(settings, /^APT::Periodic::Unattended-Upgrade "1";$/m);
    assert.match(settings, /^Unattended-Upgrade::Automatic-Reboot "true";$/m);
    await output("cloud", "systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service");
    assert.match(
      await output("cloud", "unattended-upgrade --dry-run --verbose 2>&1 | head -n 20"),
      /Allowed origins are: .*-security/i,
    );
  });

  it("is not repeated at the next boot: the data stay, and what a crash left of locks goes", async () => {
    await output("cloud", `mkdir -p ${data}/moh/repository/lock.exclusive && echo backup >${data}/moh/repository/data`);
    const [before, began] = await Promise.all([mounted(), now()]);
    await reboot();
    assert.equal(await mounted(), before);
    assert.equal(await output("cloud", `cd ${data}/moh/repository && ls && cat data`), "data\nbackup");
    assert.doesNotMatch(await journal(began), /making a file system/);
    // By fstab, before anything that could use it: not by the unit, which finds it mounted.
    const entered = "systemctl show --timestamp=us+utc -p ActiveEnterTimestampMonotonic --value";
    const order = await output("cloud", `${entered} srv-cht\\\\x2dbackup.mount systemd-tmpfiles-setup.service ${unit}`);
    const times = order.split(/\n+/).map(Number);
    assert.deepEqual(
      times,
      times.toSorted((one, other) => one - other),
      order,
    );
    assert.deepEqual(await firstLogin(boot), []);
    assert.equal((await bootEnded()).status, "done");
  });

  it("of a machine in the place of another brings the old volume back, under the same host key", async () => {
    const before = await mounted();
    await output("cloud", `mkdir ${data}/moh/repository/lock.exclusive && sync`);
    await launch(boot, disk, { id: "i-2", attached: true });
    for (const words of await firstLogin(boot)) assert.doesNotMatch(words, /IDENTIFICATION|host key/i);
    const { status, errors } = await bootEnded();
    assert.deepEqual(errors, [], await journal());
    assert.equal(status, "done");
    assert.equal(await mounted(), before);
    assert.doesNotMatch(await journal(), /making a file system/);
    // The other machine's lock: borg would wait for it for ever.
    assert.equal(await output("cloud", `cd ${data}/moh/repository && ls && cat data`), "data\nbackup");
  });

  it("grows the file system with its volume, while it is used", async () => {
    const [before, began] = await Promise.all([mebibytes(), now()]);
    await output("cloud", `mkdir ${data}/moh/repository/lock.exclusive`);
    await onDisk(disk, 'truncate -s 192M "$content" && losetup -c "$disk"');
    const restarted = await exec("cloud", `systemctl restart ${unit}`);
    if (await canGrow()) {
      assert.equal(restarted.code, 0, await journal());
      assert.ok((await mebibytes()) > before + 40, `${await mebibytes()} after ${before} MiB`);
    } else {
      // Then this is as far as a container comes: the kernel is asked, and refuses.
      const words = await journal(began);
      assert.match(words, /on-line resizing required/);
      assert.match(words, /Permission denied to resize filesystem/);
    }
    // Somebody may be at work.
    await output("cloud", `test -d ${data}/moh/repository/lock.exclusive`);
  });
});

describe("the first boot of a server at AWS, without its volume or with another", function () {
  this.timeout(180_000);

  let boot: FirstBoot;
  let disk: Disk;
  let ended: { status: string; errors: string[] };

  before(async () => {
    boot = await firstBoot({ waitSeconds: 3 });
    disk = await blankDisk(64);
    await launch(boot, disk, { id: "i-3", attached: false });
    await firstLogin(boot);
    ended = await bootEnded();
  });
  after(removeCloud);

  it("ends with an error and its reason when the volume never comes, and the operator can log in", async () => {
    assert.equal(ended.status, "error");
    assert.match(
      await journal(),
      /the data volume isn't attached: none of \/dev\/disk\/by-id\/\S+ .* appeared within 3 s/,
    );
    assert.equal((await login(boot, "sudo -n id -un")).stdout, "root\n");
    // That is what `up` waits by.
    const waited = await exec("cloud", "bash -s", { stdin: readHostFile("aws/wait_for_boot.sh") });
    assert.equal(waited.code, 1);
    assert.match(
      waited.stderr,
      /^the first boot failed:\n(.*\n)* {2}cht-data-volume.service: the data volume isn't attached/,
    );
  });

  it("lets nobody put anything where the volume belongs, not even root", async () => {
    const put = await exec("cloud", `mkdir ${data}/moh || touch ${data}/file`);
    assert.notEqual(put.code, 0);
    assert.match(put.stderr, /Operation not permitted/);
  });

  const wipe = 'dd if=/dev/zero of="$disk" bs=1M count=64 status=none conv=fsync';
  /** A table of one partition. */
  const partitioned = `import struct, sys
with open(sys.argv[1], "r+b") as disk:
    disk.seek(446)
    disk.write(struct.pack("<B3sB3sII", 0, b"\\0\\2\\0", 0x83, b"\\0\\2\\0", 2048, 65536))
    disk.seek(510)
    disk.write(b"\\x55\\xaa")`;
  const contents: [string, string, RegExp][] = [
    ["partitions", `python3 -c '${partitioned}' "$disk"`, /PTTYPE=dos/],
    ["another kind of file system", 'mkswap "$disk" >/dev/null', /TYPE=swap/],
    [
      "partitions and a file system",
      `mkfs.ext4 -q "$disk"; python3 -c '${partitioned}' "$disk"`,
      /TYPE=ext4 .*PTTYPE=dos/,
    ],
    // Two signatures, of ext4 and cramfs: of these, blkid says that it has found nothing.
    [
      "what may be one of two things",
      'mkfs.ext4 -q "$disk"; printf "\\105\\075\\315\\050" | dd of="$disk" conv=notrunc status=none',
      /CONTENT=/,
    ],
    [
      "encrypted data",
      'printf "LUKS\\272\\276\\000\\001" | dd of="$disk" conv=notrunc status=none',
      /crypto_LUKS|unknown/,
    ],
    [
      "data of no known kind at its beginning",
      'echo precious | dd of="$disk" bs=1M seek=3 conv=notrunc status=none',
      /unknown/,
    ],
    [
      "data of no known kind at its end",
      'echo precious | dd of="$disk" bs=512 seek=131071 conv=notrunc status=none',
      /unknown/,
    ],
  ];
  for (const [what, make, reason] of contents) {
    it(`refuses a volume that holds ${what}, and leaves every byte of it`, async () => {
      const digest = 'sync; blockdev --flushbufs "$disk"; sha256sum "$content"';
      const before = await onDisk(disk, `${wipe}\n${make}\n${digest}`);
      await attach(disk);
      await output("cloud", "udevadm settle");
      const began = await now();
      assert.notEqual((await exec("cloud", `systemctl restart ${unit}`)).code, 0);
      const words = await journal(began);
      assert.match(words, /is left as it is, because it holds something else than an ext4 file system: /);
      assert.match(words, reason);
      assert.equal(await onDisk(disk, digest), before);
      assert.equal((await exec("cloud", `mountpoint ${data}`)).code, 32);
    });
  }

  it("doesn't mount a damaged file system, which a person has to look at", async () => {
    const damage = (what: string) => `debugfs -w -R '${what}' "$disk" 2>/dev/null`;
    await onDisk(disk, `${wipe}\nmkfs.ext4 -q "$disk"; ${damage("clri <2>")}; ${damage("ssv state 2")}`);
    await attach(disk);
    const began = await now();
    assert.notEqual((await exec("cloud", `systemctl restart ${unit}`)).code, 0);
    assert.match(await journal(began), /^the file system on \/dev\/loop\d+ is damaged: see fsck.ext4 \/dev\/loop\d+$/m);
    assert.equal((await exec("cloud", `mountpoint ${data}`)).code, 32);
  });
});
