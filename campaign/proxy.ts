/** A bucket that has a bad day: it stands between the server and the lab's bucket, and answers as it is told to. */
import {
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from "node:http";
import { gateway } from "./alarms";

const PORT = 8333;

/** How it answers: for a share of all requests something else than the bucket, for the others what the bucket says. */
export interface Mood {
  /** The share of requests, from 0 to 1, that it is for. */
  share: number;
  act: "503" | "500" | "skewed" | "slow" | "cut" | "truncated" | "silent";
}

const errors: Record<string, [number, string]> = {
  "503": [503, "SlowDown"],
  "500": [500, "InternalError"],
  skewed: [403, "RequestTimeTooSkewed"],
};

/** Answers instead of the bucket. Returns false where the bucket shall answer. */
function instead(response: ServerResponse, { act }: Mood): boolean {
  const error = errors[act];
  if (error !== undefined) {
    const [status, code] = error;
    response.writeHead(status, { "Content-Type": "application/xml" });
    response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>a bad day</Message></Error>`);
    return true;
  }
  if (act === "cut") response.socket?.destroy();
  // Nothing is ever said.
  return act === "cut" || act === "silent";
}

function passOn(from: IncomingMessage, response: ServerResponse, host: string, truncated: boolean): ClientRequest {
  const { method, url: path, headers } = from;
  const onward = request({ host, port: PORT, method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    if (!truncated) answer.pipe(response);
    else
      answer.once("data", (part: Buffer) =>
        response.write(part.subarray(0, part.length / 2), () => response.socket?.destroy()),
      );
    answer.on("end", () => truncated && response.socket?.destroy());
  });
  onward.on("error", () => response.socket?.destroy());
  return from.pipe(onward);
}

/** Stands at the gateway's address, at the bucket's port. */
export class BadDay {
  private server: Server | undefined;

  /**
   * @param bucket the bucket's address
   * @param number chooses which requests the mood is for
   * @returns the address to take for the bucket's
   */
  async begin(bucket: string, mood: Mood, number: () => number): Promise<string> {
    const host = await gateway();
    const server = createServer((from, response) => {
      const chosen = number() < mood.share;
      if (chosen && instead(response, mood)) return void from.resume();
      const answer = () => passOn(from, response, bucket, chosen && mood.act === "truncated");
      if (chosen && mood.act === "slow") setTimeout(answer, 500 + 2500 * number());
      else answer();
    });
    this.server = server;
    await new Promise<void>((done, fail) => {
      server.on("error", fail);
      server.listen(PORT, host, done);
    });
    return host;
  }

  async end(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    server?.closeAllConnections();
    await new Promise<void>((done) => (server === undefined ? done() : server.close(() => done())));
  }
}
