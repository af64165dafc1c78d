import assert from "node:assert/strict";
import { observeSeal, repositorySeal, unsuitable } from "../../provider/repository-seal";
import type { Machine } from "../../provider/ssh";

const wanted = {
  ...{ machine: "server", path: "/srv/r", program: "/opt/seal.py", settings: "/etc/r.json" },
  ...{ recover: "5a5a", unsealed: "" },
};

describe("the seals of a repository", () => {
  it("are made where the program isn't there yet", () => {
    assert.equal(observeSeal({ output: "missing\n", exitCode: 0 }, wanted), undefined);
  });

  it("are right where nothing is unsealed", () => {
    const output = '{"transaction": 8, "unsealed": "", "recover": ["01", "5a5a"]}';
    assert.deepEqual(observeSeal({ output, exitCode: 0 }, wanted), wanted);
  });

  it("are drift where the program for a recovery isn't beside the repository, by the word of an older package, too", () => {
    for (const output of [
      '{"transaction": 8, "unsealed": "", "recover": ["01"]}',
      '{"transaction": 8, "unsealed": ""}',
    ])
      assert.deepEqual(observeSeal({ output, exitCode: 0 }, wanted), { ...wanted, recover: "" });
  });

  it("are right whatever is beside the repository where no program is asked for", () => {
    const output = '{"transaction": 8, "unsealed": "", "recover": ["01", "5a5a"]}';
    assert.deepEqual(observeSeal({ output, exitCode: 0 }, { ...wanted, recover: "" }), { ...wanted, recover: "" });
  });

  it("are drift that names what isn't sealed", () => {
    const answer = { output: '{"transaction": 8, "unsealed": "data/0/7 and 3 more"}', exitCode: 0 };
    assert.equal(observeSeal(answer, wanted)?.unsealed, "data/0/7 and 3 more");
  });

  it("are drift with the program's words where it can't look", () => {
    const answer = { output: "there is no account cht-backup-moh", exitCode: 2 };
    assert.equal(observeSeal(answer, wanted)?.unsealed, "there is no account cht-backup-moh");
    assert.equal(observeSeal({ output: "", exitCode: 124 }, wanted)?.unsealed, "exit code 124");
  });

  for (const type of ["ext2/ext3", "xfs", "btrfs", "zfs", "tmpfs", "overlayfs"]) {
    it(`are tried out on ${type}`, () => assert.equal(unsuitable(type), undefined));
  }

  for (const type of ["msdos", "exfat", "fuseblk", "cifs", "smb2", "v9fs"]) {
    it(`are refused on ${type} by a preview, before anything is made, with what would be right`, async () => {
      const machine = { read: async () => ({ output: `${type}\n`, exitCode: 0 }) } as unknown as Machine;
      const [mistake] = (await repositorySeal.survey?.(() => machine, wanted, undefined)) ?? [];
      assert.equal(mistake?.property, "path");
      assert.match(mistake?.reason ?? "", /server: \/srv\/r is on a file system \(.*\) .* use a disk with ext4/);
    });
  }
});
