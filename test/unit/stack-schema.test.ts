import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import Ajv2020 from "ajv/dist/2020";
import { describe, it } from "mocha";
import { parse } from "yaml";
import { stackSchema, stackSchemaFile } from "../../toolchain/docs/stack-schema";
import { project } from "../../toolchain/paths";

describe("an editor that knows docs/stack.schema.json", () => {
  const check = new Ajv2020({ allErrors: true, allowUnionTypes: true }).compile(JSON.parse(stackSchema()));

  /** Where it marks something in a stack file, and why. */
  function marked(config: Record<string, unknown>): string[] {
    check({ config, encryptionsalt: "v1:x" });
    return (check.errors ?? []).map(({ instancePath, message, params }) =>
      `${instancePath.replace("/config/", "")} ${message} ${params.additionalProperty ?? ""}`.trim(),
    );
  }

  const machines = { cht: { address: "cht.example.org" }, server: { address: "backup.example.org" } };

  it("knows it as `npm run docs` writes it", () => {
    assert.equal(readFileSync(stackSchemaFile, "utf8"), stackSchema(), "stale: npm run docs");
  });

  it("is told of it in each example's first line", () => {
    for (const name of ["prod", "staging"]) {
      const [first] = readFileSync(join(project, `Pulumi.${name}.yaml`), "utf8").split("\n");
      assert.equal(first, "# yaml-language-server: $schema=docs/stack.schema.json");
    }
  });

  it("marks nothing in a right stack file, also what Pulumi has encrypted and what belongs to its plugins", () => {
    const secure = { secure: "v1:abc:def" };
    const right = { "host:machines": machines, "cht-backup:alerts": [secure], "aws:region": "eu-west-1" };
    assert.deepEqual(marked({ ...right, "cht-backup:passphrase": secure }), []);
  });

  it("marks nothing in the examples but what has to be filled in", () => {
    for (const name of ["prod", "staging"]) {
      const { config } = parse(readFileSync(join(project, `Pulumi.${name}.yaml`), "utf8"));
      const filled = JSON.stringify(config).replaceAll(/"<[^"]*>(\/32)?"/g, '"10.0.0.1$1"');
      assert.deepEqual(
        marked(JSON.parse(filled)).filter((mark) => !/operatorKeys|hostKey/.test(mark)),
        [],
      );
    }
  });

  it("marks a setting that isn't there and a wrong value, by their paths", () => {
    const wrong = { cht: { address: "cht.example.org", adress: "x" }, server: { user: 7 } };
    assert.deepEqual(marked({ "host:machines": wrong, "cht-backup:drils": {} }).sort(), [
      "/config must NOT have additional properties cht-backup:drils",
      "host:machines/cht must NOT have additional properties adress",
      "host:machines/server/user must be object",
      "host:machines/server/user must be string",
      "host:machines/server/user must match a schema in anyOf",
    ]);
  });
});
