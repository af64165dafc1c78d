import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { awsCredentialProblem, type CredentialSources, credentialProblem } from "../../components/aws-credentials";

describe("AWS credentials", () => {
  const none: CredentialSources = {
    environment: {},
    config: "",
    credentials: "",
    ssoCache: () => undefined,
    exists: () => false,
    ec2: false,
    now: new Date("2026-11-22T06:00:00Z"),
  };
  const config = `
[default]
region = eu-west-1
[profile moh]
sso_session = moh
sso_account_id = 111122223333
[sso-session moh]
sso_start_url = https://moh.awsapps.com/start
[profile old-sso]
sso_start_url = https://old.awsapps.com/start
[profile role]
role_arn = arn:aws:iam::111122223333:role/backup
source_profile = keys   # the operator's own
[profile loop]
role_arn = arn:aws:iam::111122223333:role/backup
source_profile = other
[profile other]
role_arn = arn:aws:iam::111122223333:role/other
source_profile = loop
[profile half]
role_arn = arn:aws:iam::111122223333:role/backup
[profile machine]
role_arn = arn:aws:iam::111122223333:role/backup
credential_source = Ec2InstanceMetadata
[profile process]
credential_process = /opt/vault aws
[profile lost]
sso_session = nowhere
`;
  const credentials = "[keys]\naws_access_key_id=AKIAIOSFODNN7EXAMPLE\naws_secret_access_key=hunter2\n";
  const files = { ...none, config, credentials };
  const login = (name: string, content: unknown) => (file: string) =>
    file === `${createHash("sha1").update(name).digest("hex")}.json` ? JSON.stringify(content) : undefined;

  it("are found where AWS' own tools find them", () => {
    const found: [string, string | undefined, Partial<CredentialSources>][] = [
      ["keys", undefined, { environment: { AWS_ACCESS_KEY_ID: "A", AWS_SECRET_ACCESS_KEY: "s" } }],
      ["a profile in the environment", undefined, { environment: { AWS_PROFILE: "keys" } }],
      ["a profile in the settings", "keys", {}],
      ["a role of another profile", "role", {}],
      ["a role of the machine", "machine", {}],
      ["a program", "process", {}],
      ["the default profile", undefined, { credentials: credentials.replace("keys", "default") }],
      [
        "a pipeline's token",
        undefined,
        {
          environment: { AWS_WEB_IDENTITY_TOKEN_FILE: "/token", AWS_ROLE_ARN: "arn" },
          exists: (path) => path === "/token",
        },
      ],
      ["a container's role", undefined, { environment: { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/v2" } }],
      ["a machine's role", undefined, { ec2: true }],
      ["a login that holds", "moh", { ssoCache: login("moh", { expiresAt: "2026-11-22T07:00:00Z" }) }],
      [
        "a login that is renewed by itself",
        "moh",
        { ssoCache: login("moh", { expiresAt: "2026-11-22T05:00:00Z", refreshToken: "r" }) },
      ],
      [
        "a login of an old profile",
        "old-sso",
        { ssoCache: login("https://old.awsapps.com/start", { expiresAt: "2026-11-22T07:00:00UTC" }) },
      ],
    ];
    for (const [what, profile, change] of found) {
      assert.equal(credentialProblem(profile, { ...files, ...change }), undefined, what);
    }
  });

  it("that are missing are one line that says where they were looked for and what to do", () => {
    const missing: [string | undefined, CredentialSources, RegExp][] = [
      [
        undefined,
        none,
        /AWS_ACCESS_KEY_ID and AWS_PROFILE aren't set, and there is no profile `default` .* no profile at all/,
      ],
      [undefined, files, /profile `default` in AWS' files of this computer holds no credential/],
      [undefined, { ...none, environment: { AWS_ACCESS_KEY_ID: "A" } }, /is set without AWS_SECRET_ACCESS_KEY/],
      [undefined, { ...none, environment: { AWS_SECRET_ACCESS_KEY: "s" } }, /is set without AWS_ACCESS_KEY_ID/],
      [undefined, { ...none, ec2: true, environment: { AWS_EC2_METADATA_DISABLED: "true" } }, /no profile `default`/],
      [
        undefined,
        { ...none, environment: { AWS_WEB_IDENTITY_TOKEN_FILE: "/t" } },
        /AWS_ROLE_ARN, the role it is for, isn't/,
      ],
      [
        undefined,
        { ...none, environment: { AWS_WEB_IDENTITY_TOKEN_FILE: "/t", AWS_ROLE_ARN: "arn" } },
        /names \/t, which doesn't exist/,
      ],
      [
        undefined,
        { ...files, environment: { AWS_PROFILE: "mho" } },
        /no profile `mho` .* only default, moh, old-sso, role/,
      ],
      // The settings' profile is asked for, whatever the environment has.
      ["mho", { ...files, environment: { AWS_ACCESS_KEY_ID: "A", AWS_SECRET_ACCESS_KEY: "s" } }, /no profile `mho`/],
      ["loop", files, /source_profile leads to itself/],
      ["half", files, /neither a source_profile nor a credential_source/],
      ["lost", files, /names the sso-session nowhere, which ~\/\.aws\/config doesn't have/],
      ["moh", files, /nobody is logged in: log in with `aws sso login --profile moh`/],
      ["moh", { ...files, ssoCache: login("moh", { expiresAt: "2026-11-22T05:00:00Z" }) }, /has ended: log in with/],
      ["moh", { ...files, ssoCache: () => "{" }, /can't be read: log in with/],
    ];
    for (const [profile, sources, words] of missing) {
      const problem = credentialProblem(profile, sources);
      assert.match(problem ?? "", /^no credential for AWS: .*\. `aws configure` or .*\(docs\/production\.md\)$/);
      assert.match(problem ?? "", words);
    }
  });

  it("are read from the files that the environment names, and are never shown", () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-aws-"));
    try {
      const file = join(folder, "credentials");
      const environment = { HOME: folder, AWS_SHARED_CREDENTIALS_FILE: file, AWS_EC2_METADATA_DISABLED: "true" };
      assert.match(awsCredentialProblem("keys", environment) ?? "", /no profile `keys`/);
      writeFileSync(file, credentials);
      assert.equal(awsCredentialProblem("keys", environment), undefined);
      writeFileSync(file, credentials.replace(/aws_access_key_id.*\n/, ""));
      const problem = awsCredentialProblem("keys", environment) ?? "";
      assert.match(problem, /holds no credential/);
      assert.doesNotMatch(problem, /hunter2/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
