/** A terminal on a machine, as an administrator has it: pastes into a login shell over SSH, and reads what it shows. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { withoutColours } from "../../toolchain/plain";
import { Problem } from "../../toolchain/progress";

export class Terminal {
  private readonly child: ChildProcessWithoutNullStreams;
  private shown = "";
  private changed = () => {};

  private constructor(words: readonly string[]) {
    // Without a terminal's abilities the shell neither colours nor asks for marks around what is pasted.
    this.child = spawn("ssh", ["-tt", ...words], { env: { ...process.env, TERM: "dumb" } });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.shown += text;
        this.changed();
      });
    }
    this.child.stdin.on("error", () => undefined);
    this.child.on("close", () => this.changed());
  }

  /** Logs in and becomes root. @param words options and destination for ssh */
  static async open(...words: string[]): Promise<Terminal> {
    const terminal = new Terminal([...words, "sudo -i || exec bash -l"]);
    terminal.child.stdin.write("PS1='ready[$?] '\n");
    await terminal.until(0, /ready\[\d+\] $/);
    return terminal;
  }

  /**
   * Pastes a text, types the answers when they are asked for, and waits until the shell is ready again.
   * @param answers prompts at which the text stops, with what is typed there
   * @returns the exit code of the last command, and what was shown after the text itself
   */
  async paste(text: string, ...answers: [RegExp, string][]): Promise<{ code: number; shown: string }> {
    let from = this.shown.length;
    this.child.stdin.write(`${text}\n`);
    for (const [prompt, answer] of answers) {
      await this.until(from, prompt);
      from = this.shown.length;
      this.child.stdin.write(answer);
    }
    const shown = await this.until(from, /ready\[(\d+)\] $/);
    const [, code] = /ready\[(\d+)\] $/.exec(shown) ?? [];
    // The shell repeats each line of the text after its prompt.
    return { code: Number(code), shown: shown.slice(shown.lastIndexOf("\n> )\n") + 1) };
  }

  close(): void {
    this.child.kill();
  }

  private async until(from: number, pattern: RegExp): Promise<string> {
    // A borg may be built meanwhile.
    const end = Date.now() + 900_000;
    for (;;) {
      // A lone carriage return goes back over the line, as a progress bar does.
      const shown = withoutColours(this.shown.slice(from)).replace(/\r+\n/g, "\n").replaceAll("\r", "\n");
      if (pattern.test(shown)) return shown;
      if (this.child.exitCode !== null || Date.now() > end) {
        throw new Problem(`the terminal doesn't show ${pattern}:\n${shown.slice(-2000)}`);
      }
      await new Promise<void>((wake) => {
        const timer = setTimeout(wake, 500);
        this.changed = () => {
          clearTimeout(timer);
          wake();
        };
      });
    }
  }
}
