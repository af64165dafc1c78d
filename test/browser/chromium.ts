/** Debian's Chromium, driven by the DevTools protocol over two pipes: a page as a phone or a desk shows it, light and dark. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";

/** Seconds for an answer. */
const PATIENCE = 30;

interface Message {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

export class Chromium {
  private readonly profile = mkdtempSync(join(tmpdir(), "cht-backup-chromium-"));
  private readonly browser: ChildProcess;
  private readonly waiting = new Map<
    number,
    { done: (result: Record<string, unknown>) => void; fail: (error: Error) => void }
  >();
  private readonly events: ((message: Message) => void)[] = [];
  private session: string | undefined;
  private calls = 0;
  private words = "";
  /** What pages have asked for, but for themselves. */
  readonly requests: string[] = [];

  private constructor() {
    const options = [
      "--headless",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-sync",
    ];
    // Root has no sandbox to go into.
    if (process.getuid?.() === 0) options.push("--no-sandbox");
    this.browser = spawn(
      "chromium",
      [...options, `--user-data-dir=${this.profile}`, "--remote-debugging-pipe", "about:blank"],
      {
        stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
      },
    );
    this.browser.stderr?.on("data", (data) => {
      this.words += data;
    });
    this.browser.on("error", (error) => this.end(error));
    this.browser.on("exit", (code) => this.end(new Error(`Chromium has ended (${code}): ${this.words.slice(-500)}`)));
    let text = "";
    (this.browser.stdio[4] as Readable).setEncoding("utf8").on("data", (data: string) => {
      const messages = `${text}${data}`.split("\0");
      text = messages.pop() as string;
      for (const message of messages) this.take(JSON.parse(message));
    });
  }

  /** Starts it, with one empty page. */
  static async start(): Promise<Chromium> {
    const chromium = new Chromium();
    const { targetId } = await chromium.call("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await chromium.call("Target.attachToTarget", { targetId, flatten: true });
    chromium.session = sessionId as string;
    await chromium.call("Page.enable");
    await chromium.call("Network.enable");
    chromium.events.push(({ method, params }) => {
      const { request, type } = (params ?? {}) as { request?: { url: string }; type?: string };
      if (method === "Network.requestWillBeSent" && type !== "Document") chromium.requests.push(request?.url ?? "");
    });
    return chromium;
  }

  private take(message: Message): void {
    const call = this.waiting.get(message.id ?? -1);
    if (call === undefined) {
      for (const listener of this.events) listener(message);
      return;
    }
    this.waiting.delete(message.id as number);
    if (message.error) call.fail(new Error(message.error.message));
    else call.done(message.result ?? {});
  }

  private end(error: Error): void {
    for (const { fail } of this.waiting.values()) fail(error);
    this.waiting.clear();
  }

  private call(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.calls;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer within ${PATIENCE} s`)), PATIENCE * 1000);
      const settled =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      this.waiting.set(id, { done: settled(resolve), fail: settled(reject) });
      (this.browser.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    });
  }

  /** Opens a file as a screen of this width shows it, without running a script of its own. */
  async open(file: string, { width, dark }: { width: number; dark: boolean }): Promise<void> {
    const screen = { width, height: 800, deviceScaleFactor: 1, mobile: width < 600 };
    await this.call("Emulation.setDeviceMetricsOverride", screen);
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.call("Emulation.setEmulatedMedia", { features });
    const loaded = new Promise<void>((done) => {
      this.events.push(({ method }) => method === "Page.loadEventFired" && done());
    });
    await this.call("Page.navigate", { url: `file://${file}` });
    await loaded;
  }

  /** What an expression comes to on the page; a promise's value. */
  async evaluate<T>(expression: string): Promise<T> {
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", options);
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  /** The whole page as a PNG. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.call("Page.captureScreenshot", { captureBeyondViewport: true });
    return Buffer.from(data as string, "base64");
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.browser.once("exit", done));
    if (this.browser.exitCode === null && this.browser.kill()) await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
