/** What opens the archives when the stack is lost: `cht-backup:passphrase` and `cht-backup:recoveryKit`. */
import { z } from "zod";

export const passphraseSchema = z
  .string()
  .regex(/^\S([^\r\n]*\S)?$/)
  .optional()
  .meta({
    description:
      "The passphrase of the repository, a secret: `npm run pulumi -- config set --secret cht-backup:passphrase`. Without it " +
      "and the repository's key, no archive can be read. A shorter one is taken only for a repository that was made with it " +
      "by hand (docs/adopting.md).",
    allowed: "one line of 16 characters or more, without spaces at its ends",
    fallback: "a random one, made by the first `pulumi up` and kept encrypted in the stack",
  });

export const recoveryKitSchema = z
  .string()
  .regex(/^\d{4}-\d\d-\d\d [0-9a-f]{64}$/)
  .optional()
  .meta({
    description:
      "When the last recovery kit was made, and a digest of what it must agree with: the repository's key and the " +
      "server's place. `npm run recovery-kit` writes it; `pulumi up` reminds when a new kit is due.",
    allowed: "what `npm run recovery-kit` writes: a date and 64 hexadecimal digits",
    fallback: "none has been made",
  });
