import { createHash } from "node:crypto";

/** A public key's fingerprint as OpenSSH shows it: `SHA256:` and the digest in base64, see ssh-keygen(1). Pure. */
export function fingerprintOf(publicKey: string): string {
  const blob = Buffer.from(publicKey.split(" ")[1] ?? "", "base64");
  return `SHA256:${createHash("sha256").update(blob).digest("base64").replace(/=+$/, "")}`;
}
