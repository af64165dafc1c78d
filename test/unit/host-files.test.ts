import assert from "node:assert/strict";
import { readHostFile, render, renderHostFile } from "../../components/host-files";

describe("render", () => {
  it("replaces every placeholder and nothing else", () => {
    const text = "user @NAME@, again @NAME@, mail a@b.org, filter @system-service, rate @RATE@";
    const expected = "user x, again x, mail a@b.org, filter @system-service, rate 0";
    assert.equal(render(text, { NAME: "x", RATE: 0 }), expected);
  });

  it("doesn't look at what it has put in", () => {
    assert.equal(render("@ONE@ @TWO@", { ONE: "@TWO@", TWO: "$&" }), "@TWO@ $&");
  });

  it("refuses a placeholder without a value", () => {
    assert.throws(() => render("@ONE@ @TWO@", { ONE: "x" }), /no value for the placeholder @TWO@/);
  });

  it("refuses a value without a placeholder", () => {
    assert.throws(() => render("@ONE@", { ONE: "x", TWO: "y" }), /no placeholder for the value of TWO/);
  });

  it("refuses a value of several lines", () => {
    assert.throws(() => render("@ONE@", { ONE: "x\nExecStart=reboot" }), /@ONE@ has several lines/);
  });

  it("names the file in an error", () => {
    assert.throws(() => renderHostFile("cht/ssh_config", {}), /^Error: hosts\/cht\/ssh_config: no value for/);
  });
});

describe("the files for machines", () => {
  it("pin every Python requirement with its hashes", () => {
    const requirements = readHostFile("cht/requirements.txt").replaceAll("\\\n", " ").split("\n");
    for (const line of requirements.filter((requirement) => /^[A-Za-z0-9]/.test(requirement))) {
      assert.match(line, /^[A-Za-z0-9_.-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}/);
    }
  });
});
