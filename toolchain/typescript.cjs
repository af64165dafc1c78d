/**
 * Lets Node load TypeScript: `node --require ./toolchain/typescript.cjs FILE.ts`. Types are taken off and not checked.
 *
 * A command is short, so its start counts. Unlike tsx, this leaves JavaScript files alone: most of the time that tsx
 * takes goes into files of packages, which are JavaScript already. What was translated once is kept
 * in `node_modules/.cache`, under the digest of the text it was made from.
 */
const { createHash } = require("node:crypto");
const { mkdirSync, readFileSync, renameSync, writeFileSync } = require("node:fs");
const Module = require("node:module");
const { dirname, join } = require("node:path");

const cache = join(dirname(__dirname), "node_modules", ".cache", "cht-backup-typescript");
const sdk = join("node_modules", "@pulumi", "pulumi");
/** Part of the digest: another way to translate is another result. */
const options = { loader: "ts", format: "cjs", target: "node20", sourcemap: "inline" };

function translate(text, file) {
  const digest = createHash("sha256").update(JSON.stringify(options)).update(file).update(text).digest("hex");
  const kept = join(cache, `${digest}.js`);
  try {
    return readFileSync(kept, "utf8");
  } catch {
    // Not translated yet.
  }
  const { code } = require("esbuild").transformSync(text, { ...options, sourcefile: file });
  try {
    mkdirSync(cache, { recursive: true });
    writeFileSync(`${kept}.${process.pid}`, code);
    renameSync(`${kept}.${process.pid}`, kept);
  } catch {
    // A folder that can't be written to costs time, nothing else.
  }
  return code;
}

/** Translated texts by file, for their source maps. */
const translated = new Map();

Module._extensions[".ts"] = (module, file) => {
  const code = translate(readFileSync(file, "utf8"), file);
  translated.set(file, code);
  module._compile(code, file);
};

// Stack traces then name lines of the TypeScript files. Pulumi's SDK asks for a stack trace with each promise, hundreds of times
// in a preview, and shows it only when somebody looks for one that never ends: for those no line is looked up, and for none the
// maps of packages are read. Both together took a tenth of a preview's processor time.
require("source-map-support").install({
  retrieveFile: (file) => translated.get(file) ?? null,
  overrideRetrieveFile: true,
});
const withLines = Error.prepareStackTrace;
Error.prepareStackTrace = (error, calls) =>
  calls[0]?.getFunctionName() === "debuggablePromise" ? [error, ...calls].join("\n    at ") : withLines(error, calls);

/** A module that is loaded when something in it is used. */
function later(load) {
  let loaded;
  // `__esModule` is what TypeScript's `import * as` asks for first; without it, it would copy everything.
  const get = (_, name) => {
    if (name === "__esModule") return true;
    loaded ??= load();
    return loaded[name];
  };
  return new Proxy({}, { get });
}

// Pulumi's SDK loads these two when it starts, and uses them to turn functions into text, which nothing here asks for.
// They take two thirds of the SDK's start.
const seldomUsed = new Set(["@npmcli/arborist", "typescript"]);
const load = Module._load;
Module._load = (request, parent, isMain) =>
  seldomUsed.has(request) && parent?.filename.includes(sdk)
    ? later(() => load(request, parent, isMain))
    : load(request, parent, isMain);

// Keeps what V8 makes of every file, those of packages too. Node 22 and newer have it.
Module.enableCompileCache?.(join(cache, "v8"));
