/** What to say where Pulumi's state is in S3, and this computer has no credential to read it with. Pure. */

/** Commands of the CLI that work without a state. */
const stateless = new Set(["plugin", "logout", "version", "help"]);

/**
 * Where in S3 the CLI looked for the state, `s3://…`; undefined where it is elsewhere, or isn't needed.
 * @param login the address that the CLI has kept of the last login
 */
export function stateInS3(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  login: string | undefined,
): string | undefined {
  const [command = "", ...rest] = args;
  if (stateless.has(command) || args.some((arg) => arg === "--help" || arg === "-h")) return undefined;
  const given = rest.flatMap((arg) => /^(?:--cloud-url=|-c=?)?([a-z0-9]+:\/\/.*)$/.exec(arg)?.[1] ?? []);
  const local = rest.includes("--local") || rest.includes("-l") ? "file://" : undefined;
  const named = command === "login" ? (local ?? given[0]) : undefined;
  const address = named ?? (env.PULUMI_BACKEND_URL || login);
  return address?.startsWith("s3://") ? address : undefined;
}

/** The profile that an address of a state names, as in `s3://bucket?profile=NAME`; undefined where it names none. */
export function profileOf(address: string): string | undefined {
  return new URLSearchParams(address.split("?")[1]).get("profile") ?? undefined;
}

/** @param problem why there is no credential, as `awsCredentialProblem` says it */
export function credentialAdvice(address: string, problem: string): string {
  const [bucket] = address.split("?");
  return `
Pulumi's state is in ${bucket}, and can't be read: ${problem}.
The setting \`aws.profile\` doesn't count for the state, only what this computer's environment says.
`;
}
