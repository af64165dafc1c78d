import assert from "node:assert/strict";
import { machines, read, wrongSettings } from "./settings";

wrongSettings([
  [
    "a path with ..",
    { "cht-backup:server": { dataDirectory: "/srv/../etc" } },
    /^cht-backup:server.dataDirectory: found "\/srv\/..\/etc"; must be an absolute path without/,
  ],
  [
    "a text in place of a mapping",
    { "cht-backup:server": "backup.example.org" },
    /^cht-backup:server: found "backup.example.org"; must be a mapping of `dataDirectory`/,
  ],
]);

describe("settings", () => {
  it("take the server's address and port from its machine, unless the CHT machine has another way", () => {
    const server = { address: "a", port: 2222 };
    const taken = read({ "host:machines": { ...machines, server } }).server;
    assert.deepEqual([taken.address, taken.port], ["a", 2222]);
    const own = { address: "10.0.0.2", port: 23 };
    const given = read({ "host:machines": { ...machines, server }, "cht-backup:server": own }).server;
    assert.deepEqual([given.address, given.port], ["10.0.0.2", 23]);
  });
});
