/**
 * What ssh starts on a machine, and which of its words are ours. Whatever a login's shell, `sudo` or PAM print comes before
 * a mark that nobody can guess; what the login's environment holds ends there, too. Pure but for the mark's random bits.
 */
import { randomBytes } from "node:crypto";
import { quote } from "./shell";

/** A line that separates what was printed before our program from what it prints. */
export const newMark = () => `cht-backup-${randomBytes(16).toString("hex")}`;

/** All that a program gets from a login's environment: how to reach the network. */
const kept = [
  ...["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"].flatMap((name) => [name, name.toUpperCase()]),
  // Where a closed network has its packages, and whom it trusts.
  ...["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"],
];

/** What a system has, before anything that a login adds. */
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Prints the mark, its first argument, and becomes the program in the others. One line: csh takes no other. */
const begin = [
  "umask 022",
  'echo "$1"',
  'echo "$1" >&2',
  "shift",
  `exec env -i PATH="${PATH}:$PATH" HOME="$HOME" LANG=C.UTF-8 ${kept.map((name) => `\${${name}+"${name}=$${name}"}`).join(" ")} "$@"`,
].join("; ");

/**
 * The text for a login's shell, of whatever kind, that runs a program.
 * @param sudo whether to become root by it
 * @param words the program and its arguments
 */
export function remoteCommand(mark: string, sudo: boolean, words: readonly string[]): string {
  return ["exec", ...(sudo ? ["sudo", "-n"] : []), "sh", "-c", quote(begin), "sh", mark, ...words.map(quote)].join(" ");
}

/** Divides what comes from a machine at the mark. */
export class AfterMark {
  /** What was printed before our program began. */
  before = "";
  /** Whether our program began. */
  seen = false;

  constructor(private readonly mark: string) {}

  /** @returns what of the text is our program's */
  take(text: string): string {
    if (this.seen) return text;
    this.before += text;
    const line = `${this.mark}\n`;
    const at = this.before.indexOf(line);
    if (at < 0) return "";
    this.seen = true;
    const own = this.before.slice(at + line.length);
    this.before = this.before.slice(0, at);
    return own;
  }
}
