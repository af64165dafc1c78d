/**
 * For closed networks only: builds the Pulumi CLI where its official download can't be reached. It needs the Go module
 * proxy and Go, which Debian's and Ubuntu's packages have. `pulumi-cli.ts` is the normal path and comes here last.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Logged, run } from "../command";
import { aptInstall, distribution } from "../engine";
import { cacheFolder } from "../paths";
import { Problem, type Progress } from "../progress";
import { isAtLeast } from "../versions";

/** Of the CLI; `cli/go.mod` pins it, and `go.sum` all it is made of. */
const version = "3.274.1";
/** Go's oldest version that fetches the newer one for which `go.mod` asks. */
const minimumGo = "1.21";

const languageHost = "pulumi-language-nodejs";

/** Where a CLI that was built is kept. */
export function builtCliFolder(): string {
  return join(cacheFolder(), `pulumi-${version}`, "bin");
}

/** How Go is got, decided from what is there. */
export function goPlan(now: {
  /** What `go env GOVERSION` says, or undefined. */
  installed: string | undefined;
  root: boolean;
  debian: boolean;
  /** The version of the package golang-go that apt offers, or undefined. */
  offered: string | undefined;
}): "use" | "install" | { refuse: string } {
  if (now.installed !== undefined && isAtLeast(now.installed, minimumGo)) return "use";
  const offered = now.offered?.replace(/^\d+:/, "");
  if (now.root && now.debian && offered !== undefined && isAtLeast(offered, minimumGo)) return "install";
  const old = now.installed === undefined ? "" : ` (${now.installed} is too old)`;
  return {
    refuse:
      `the Pulumi CLI can neither be downloaded nor built. Install it (https://www.pulumi.com/docs/install/), ` +
      `or Go ${minimumGo} or newer to build it${old}.`,
  };
}

async function ensureGo(progress: Progress, logged: Logged): Promise<void> {
  const version = await run("go", ["env", "GOVERSION"], { env: { ...process.env, GOTOOLCHAIN: "local" } });
  const ids = existsSync("/etc/os-release") ? distribution(readFileSync("/etc/os-release", "utf8")) : [];
  const debian = ids.includes("debian") || ids.includes("ubuntu");
  const policy = debian
    ? await run("apt-cache", ["policy", "golang-go"], { env: { ...process.env, LC_ALL: "C" } })
    : undefined;
  const decision = goPlan({
    installed: version.code === 0 ? version.stdout.trim() : undefined,
    root: process.getuid?.() === 0,
    debian,
    offered: policy?.stdout.match(/Candidate: (\d\S*)/)?.[1],
  });
  if (decision === "use") return;
  if (decision !== "install") throw new Problem(decision.refuse);
  await progress.step("installing Go (apt-get install golang-go)", () =>
    aptInstall(logged, ["golang-go", "ca-certificates"]),
  );
}

/** Builds the CLI and its language host for Node, and returns their folder. */
export async function buildCli(progress: Progress, logged: Logged): Promise<string> {
  await ensureGo(progress, logged);
  const folder = builtCliFolder();
  const made = `${folder}.new`;
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { recursive: true });
  // `auto` fetches a newer Go as a module where the modules ask for one.
  const env = { ...process.env, GOTOOLCHAIN: "auto", GOFLAGS: "-buildvcs=false", GOWORK: "off", CGO_ENABLED: "0" };
  const flags = `-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v${version}`;
  const build = (modules: string, module: string, program: string) =>
    logged.run(
      "pulumi-cli",
      "go",
      ["build", "-trimpath", "-mod=readonly", "-ldflags", flags, "-o", join(made, program), module],
      { cwd: join(__dirname, modules), env },
    );
  await progress.step(`building the Pulumi CLI ${version} from Go modules`, async () => {
    await build("cli", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", "pulumi");
    await build("language-host", `github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/${languageHost}`, `${languageHost}-built`);
  });
  // Stands before the language host and gives it its options: see there.
  copyFileSync(join(__dirname, languageHost), join(made, languageHost));
  rmSync(folder, { recursive: true, force: true });
  renameSync(made, folder);
  return folder;
}
