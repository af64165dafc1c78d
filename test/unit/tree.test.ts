import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { batchScript, parseBatch } from "../../provider/shell";
import { filesIn, observeTree, packed, tree } from "../../provider/tree";

describe("a tree of files", () => {
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-tree-"));
  const [source, path] = [join(folder, "source"), join(folder, "there")];
  const wanted = () => ({
    machine: "cht",
    path,
    source,
    validate: "",
    files: filesIn(source),
    owned: true,
    valid: true,
  });
  const call = (name: string, ...words: string[]) => ({ library: "tree", name, arguments: words });
  /** What is at `path`, by the script that a machine runs. */
  const look = (validate = "") => {
    const output = execFileSync("sh", { input: batchScript([call("tree_read", path, validate)]), encoding: "utf8" });
    return observeTree(parseBatch(output, 1)[0] as { output: string; exitCode: number }, wanted());
  };
  const apply = (validate = "") =>
    parseBatch(
      execFileSync("sh", {
        input: batchScript([call("tree_apply", path, packed(source), validate)]),
        encoding: "utf8",
      }),
      1,
    )[0];

  before(() => {
    mkdirSync(join(source, "inner", "__pycache__"), { recursive: true });
    writeFileSync(join(source, "a.py"), "print('ä')\n");
    writeFileSync(join(source, "inner", "b.py"), "");
    writeFileSync(join(source, "inner", "__pycache__", "b.pyc"), "compiled");
  });
  after(() => rmSync(folder, { recursive: true }));

  it("isn't there before it was made", () => assert.equal(look(), undefined));

  it("is what is in the folder, but for what an interpreter leaves there", () => {
    assert.deepEqual(Object.keys(filesIn(source)), ["a.py", "inner/b.py"]);
    assert.equal(apply()?.exitCode, 0);
    assert.equal(readFileSync(join(path, "a.py"), "utf8"), "print('ä')\n");
    assert.deepEqual(look()?.inputs, wanted());
  });

  it("names by its path what differs, is missing, or is too many", () => {
    writeFileSync(join(path, "a.py"), "changed");
    rmSync(join(path, "inner", "b.py"));
    writeFileSync(join(path, "c.py"), "");
    mkdirSync(join(path, "__pycache__"));
    writeFileSync(join(path, "__pycache__", "a.pyc"), "");
    const files = look()?.inputs.files ?? {};
    assert.deepEqual(Object.keys(files), ["a.py", "c.py"]);
    assert.notEqual(files["a.py"], wanted().files["a.py"]);
    assert.equal(apply()?.exitCode, 0);
    assert.deepEqual(look()?.inputs, wanted());
  });

  it("tells of what others than root can change, and of links", () => {
    execFileSync("chmod", ["g+w", join(path, "a.py")]);
    assert.equal(look()?.inputs.owned, false);
    assert.equal(apply()?.exitCode, 0);
    execFileSync("ln", ["-s", "a.py", join(path, "link.py")]);
    assert.equal(look()?.inputs.owned, false);
    assert.equal(apply()?.exitCode, 0);
    assert.deepEqual(look()?.inputs, wanted());
  });

  it("stays as it was where the machine refuses the new one, with the reason", () => {
    writeFileSync(join(source, "a.py"), "print(2)\n");
    const refused = apply("echo no such luck; false");
    assert.notEqual(refused?.exitCode, 0);
    assert.match(refused?.output ?? "", /there was not changed, because it was refused: no such luck/);
    assert.equal(readFileSync(join(path, "a.py"), "utf8"), "print('ä')\n");
    assert.deepEqual(execFileSync("ls", ["-A", folder], { encoding: "utf8" }).split("\n").sort(), [
      "",
      "source",
      "there",
    ]);
  });

  it("tells where what is there is valid no more", () => {
    const observed = look("echo a borg that nobody knows; false");
    assert.equal(observed?.inputs.valid, false);
    assert.equal(observed?.refusal, "a borg that nobody knows");
  });

  it("takes the place of what isn't a directory", () => {
    rmSync(path, { recursive: true });
    writeFileSync(path, "");
    assert.deepEqual(look()?.inputs.files, { "(not a directory)": "" });
    assert.equal(apply()?.exitCode, 0);
    assert.deepEqual(look()?.inputs, wanted());
  });

  it("needs a folder that can be read and holds files", () => {
    const problems = (of: string) => tree.verify?.({ source: of }, new Set()) ?? [];
    assert.deepEqual(problems(source), []);
    assert.match(problems(join(folder, "nowhere"))[0]?.reason ?? "", /nowhere can't be read \(ENOENT\)/);
    mkdirSync(join(folder, "empty"));
    assert.match(problems(join(folder, "empty"))[0]?.reason ?? "", /holds no files/);
  });
});
