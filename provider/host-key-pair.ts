import { generateKeyPairSync, randomBytes } from "node:crypto";
import { z } from "zod";
import { type Kind, machineName } from "./resource";

/** A length and the bytes (RFC 4251, 5). */
function framed(bytes: Buffer | string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(bytes));
  return Buffer.concat([length, Buffer.from(bytes)]);
}

/**
 * A new Ed25519 key pair in OpenSSH's form (its `PROTOCOL.key`, without a passphrase): sshd takes no other form for this kind
 * of key, and Node writes others only.
 */
export function newKeyPair(): { publicKey: string; privateKey: string } {
  const { d = "", x = "" } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const [seed, point] = [Buffer.from(d, "base64url"), Buffer.from(x, "base64url")];
  const type = "ssh-ed25519";
  const blob = Buffer.concat([framed(type), framed(point)]);
  const check = randomBytes(4);
  const secret = Buffer.concat([
    check,
    check,
    framed(type),
    framed(point),
    framed(Buffer.concat([seed, point])),
    framed(""),
  ]);
  const padding = Buffer.from(Array.from({ length: (8 - (secret.length % 8)) % 8 }, (_, index) => index + 1));
  const one = Buffer.from([0, 0, 0, 1]);
  const sealed = framed(Buffer.concat([secret, padding]));
  const key = Buffer.concat([
    Buffer.from("openssh-key-v1\0"),
    framed("none"),
    framed("none"),
    framed(""),
    one,
    framed(blob),
    sealed,
  ]);
  const lines = key.toString("base64").match(/.{1,70}/g) ?? [];
  return {
    publicKey: `${type} ${blob.toString("base64")}`,
    privateKey: ["-----BEGIN OPENSSH PRIVATE KEY-----", ...lines, "-----END OPENSSH PRIVATE KEY-----", ""].join("\n"),
  };
}

/** A host key that is made before its machine: see `HostKeyPair` in `index.ts`. */
export const hostKeyPair: Kind = {
  inputs: z.strictObject({ machine: machineName }),
  identity: ["machine"],
  secret: ["privateKey"],
  async read(_machines, inputs, outputs) {
    return { inputs, outputs };
  },
  async apply(_machines, _inputs, before) {
    return before?.outputs ?? newKeyPair();
  },
  async remove() {
    // It was nowhere but in the state, and on a machine that goes as well.
  },
  id: ({ machine }) => `${machine}:host-key-pair`,
};
