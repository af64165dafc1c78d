/**
 * Whether this computer has a credential for AWS, looked for where AWS' own tools look. Without one the plugin would say so
 * only after a long wait, and in other words. Nothing is sent anywhere, so it can't tell whether a credential is good.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { StackSettings } from "../config";

/** What this computer has. */
export interface CredentialSources {
  environment: Record<string, string | undefined>;
  /** The text of `~/.aws/config`, or of the file that AWS_CONFIG_FILE names; empty where there is none. */
  config: string;
  /** The text of `~/.aws/credentials`, or of the file that AWS_SHARED_CREDENTIALS_FILE names; empty where there is none. */
  credentials: string;
  /** The text of a file in `~/.aws/sso/cache`, or undefined. */
  ssoCache(name: string): string | undefined;
  /** Whether this file exists. */
  exists(path: string): boolean;
  /** Whether this computer is a machine of EC2, which may have a role of its own. */
  ec2: boolean;
  now: Date;
}

type Profile = Record<string, string>;

/** Sections of a file in AWS' form, with their settings. What is indented belongs to a setting and is left out. Pure. */
function sections(text: string): Map<string, Profile> {
  const found = new Map<string, Profile>();
  let current: Profile = {};
  for (const line of text.split(/\r?\n/)) {
    const [, section] = /^\s*\[\s*(.*?)\s*\]/.exec(line) ?? [];
    const [, key, value] = /^([A-Za-z0-9_]+)\s*=\s*(.*?)(?:\s+[#;].*)?\s*$/.exec(line) ?? [];
    if (section !== undefined) {
      current = found.get(section) ?? {};
      found.set(section, current);
    } else if (key !== undefined && value !== undefined) current[key] = value;
  }
  return found;
}

/** All profiles of both files, and the sections `sso-session NAME`. */
function profiles({ config, credentials }: CredentialSources): Map<string, Profile> {
  const all = new Map<string, Profile>();
  for (const [section, settings] of sections(config)) {
    if (section === "default" || /^(?:profile|sso-session)\s/.test(section)) {
      all.set(section.replace(/^profile\s+/, "").replace(/^(sso-session)\s+/, "$1 "), settings);
    }
  }
  // Where both files have a profile, this one counts.
  for (const [section, settings] of sections(credentials)) all.set(section, { ...all.get(section), ...settings });
  return all;
}

const isProfile = (name: string) => !name.startsWith("sso-session ");

/** What keeps a profile from giving a credential; undefined: nothing that can be seen from here. */
function profileProblem(name: string, sources: CredentialSources, asked: readonly string[] = []): string | undefined {
  const all = profiles(sources);
  const profile = all.get(name);
  if (profile === undefined) {
    const there = [...all.keys()].filter(isProfile);
    const list = there.length === 0 ? "no profile at all" : `only ${there.join(", ")}`;
    return `there is no profile \`${name}\` in AWS' files of this computer (~/.aws/config and ~/.aws/credentials have ${list})`;
  }
  if (profile.aws_access_key_id && profile.aws_secret_access_key) return undefined;
  if (profile.role_arn) {
    const { source_profile: source, credential_source: kind, web_identity_token_file: token } = profile;
    if (token) return sources.exists(token) ? undefined : `profile \`${name}\`: ${token} doesn't exist`;
    if (kind) return undefined;
    if (source === undefined) {
      return `profile \`${name}\` has a role_arn but neither a source_profile nor a credential_source`;
    }
    // A profile may name itself: then its own keys are meant, and they aren't there.
    if (source === name || asked.includes(source)) return `profile \`${name}\`: its source_profile leads to itself`;
    return profileProblem(source, sources, [...asked, name]);
  }
  const session = profile.sso_session;
  if (session !== undefined || profile.sso_start_url !== undefined) {
    if (session !== undefined && !all.has(`sso-session ${session}`)) {
      return `profile \`${name}\` names the sso-session ${session}, which ~/.aws/config doesn't have`;
    }
    return ssoProblem(name, session ?? profile.sso_start_url ?? "", sources);
  }
  if (profile.credential_process || profile.login_session) return undefined;
  return `profile \`${name}\` in AWS' files of this computer holds no credential`;
}

/** AWS' tools keep a login under the digest of the session's name, or of the address for an old profile. */
function ssoProblem(profile: string, session: string, sources: CredentialSources): string | undefined {
  const login = `log in with \`aws sso login --profile ${profile}\``;
  const text = sources.ssoCache(`${createHash("sha1").update(session).digest("hex")}.json`);
  if (text === undefined) return `profile \`${profile}\` uses single sign-on, and nobody is logged in: ${login}`;
  try {
    const { expiresAt, refreshToken } = JSON.parse(text) as { expiresAt?: string; refreshToken?: string };
    const ended = expiresAt !== undefined && new Date(expiresAt.replace(/UTC$/, "Z")) < sources.now;
    if (ended && refreshToken === undefined) return `the login of profile \`${profile}\` has ended: ${login}`;
  } catch {
    return `the login of profile \`${profile}\` can't be read: ${login}`;
  }
  return undefined;
}

/**
 * Why no credential can be found, and what to do, in one line; undefined where there is one. Pure.
 * @param profile the profile that the settings name; undefined: what AWS' tools take
 */
export function credentialProblem(profile: string | undefined, sources: CredentialSources): string | undefined {
  const { environment } = sources;
  const remedy =
    "`aws configure` or `aws configure sso` makes a profile, AWS_PROFILE or the setting `aws.profile` names one; a " +
    "pipeline sets AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role by OpenID Connect (docs/production.md)";
  const withRemedy = (problem: string | undefined) => problem && `no credential for AWS: ${problem}. ${remedy}`;
  // The settings' profile counts before the environment's keys; AWS_PROFILE only after them.
  if (profile !== undefined) return withRemedy(profileProblem(profile, sources));

  const id = environment.AWS_ACCESS_KEY_ID || environment.AWS_ACCESS_KEY;
  const secret = environment.AWS_SECRET_ACCESS_KEY || environment.AWS_SECRET_KEY;
  if (id && secret) return undefined;
  const token = environment.AWS_WEB_IDENTITY_TOKEN_FILE;
  if (token) {
    if (!environment.AWS_ROLE_ARN) {
      return withRemedy("AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN, the role it is for, isn't");
    }
    if (!sources.exists(token)) return withRemedy(`AWS_WEB_IDENTITY_TOKEN_FILE names ${token}, which doesn't exist`);
    return undefined;
  }
  const named = environment.AWS_PROFILE || environment.AWS_DEFAULT_PROFILE;
  if (named) return withRemedy(profileProblem(named, sources));
  const problem = profileProblem("default", sources);
  if (problem === undefined) return undefined;
  if (environment.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI || environment.AWS_CONTAINER_CREDENTIALS_FULL_URI) {
    return undefined;
  }
  if (sources.ec2 && environment.AWS_EC2_METADATA_DISABLED?.toLowerCase() !== "true") return undefined;
  const half = id
    ? "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"
    : secret
      ? "AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID"
      : "AWS_ACCESS_KEY_ID and AWS_PROFILE aren't set";
  return withRemedy(`${half}, and ${problem}`);
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * `credentialProblem` of this computer.
 * @param profile the profile that the settings name; undefined: what AWS' tools take
 */
export function awsCredentialProblem(
  profile: string | undefined,
  environment: NodeJS.ProcessEnv = process.env,
): string | undefined {
  const aws = join(environment.HOME || homedir(), ".aws");
  return credentialProblem(profile, {
    environment,
    config: textOf(environment.AWS_CONFIG_FILE || join(aws, "config")) ?? "",
    credentials: textOf(environment.AWS_SHARED_CREDENTIALS_FILE || join(aws, "credentials")) ?? "",
    ssoCache: (name) => textOf(join(aws, "sso", "cache", name)),
    exists: existsSync,
    // Machines of today's types by their vendor, the first ones by their hypervisor's mark.
    ec2:
      textOf("/sys/devices/virtual/dmi/id/sys_vendor")?.trim() === "Amazon EC2" ||
      textOf("/sys/hypervisor/uuid")?.startsWith("ec2") === true,
    now: new Date(),
  });
}

/** Why a stack can't log in to AWS, for the first of its profiles that has no credential; undefined: it can, or needn't. */
export function missingAwsCredential({ server, bucket }: Pick<StackSettings, "server" | "bucket">): string | undefined {
  const profiles = [server.aws, bucket?.aws].filter((aws) => aws !== undefined).map(({ profile }) => profile);
  return [...new Set(profiles)]
    .map((profile) => awsCredentialProblem(profile))
    .find((problem) => problem !== undefined);
}
