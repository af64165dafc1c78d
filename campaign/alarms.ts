/** Where the lab's machines send their alarms during a campaign: to this process. */
import { createServer, type IncomingMessage, type Server } from "node:http";
import { network } from "../lab/machines";
import { run } from "../toolchain/command";
import { Problem } from "../toolchain/progress";

export interface Alarm {
  title: string;
  message: string;
}

/** Of the address; nobody may show it. */
export const alarmSecret = "not-to-be-shown-by-anyone";

const largest = 1 << 20;

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > largest) break;
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString();
}

/** The address at which machines in the lab's network reach this computer. */
export async function gateway(): Promise<string> {
  const format = "{{(index .IPAM.Config 0).Gateway}}";
  const result = await run("docker", ["network", "inspect", "--format", format, network]);
  if (result.code !== 0) throw new Problem(`the lab's network ${network} isn't there: \`npm run lab\` makes it.`);
  return result.stdout.trim();
}

/** Takes alarms in, beside the machines: none of them is lost with a machine. */
export class AlarmReceiver {
  private readonly received: Alarm[] = [];
  private server: Server | undefined;

  /** Begins to listen. @returns the address for the machines' files `alerts` */
  async listen(): Promise<string> {
    const host = await gateway();
    const server = createServer((request, response) => {
      void bodyOf(request).then((text) => {
        try {
          this.received.push(JSON.parse(text));
        } catch {
          this.received.push({ title: "an alarm that is no JSON", message: text.slice(0, 200) });
        }
        response.writeHead(204).end();
      });
    });
    this.server = server;
    await new Promise<void>((done, fail) => {
      server.on("error", fail);
      server.listen(0, host, done);
    });
    const address = server.address();
    if (address === null || typeof address === "string") throw new Problem("nobody can listen for alarms here");
    return `json://campaign:${alarmSecret}@${host}:${address.port}/alarms`;
  }

  /** What came since the last call. */
  take(): Alarm[] {
    return this.received.splice(0);
  }

  /** Whether one came with this title, which stays. */
  has(title: RegExp): boolean {
    return this.received.some((alarm) => title.test(alarm.title));
  }

  close(): void {
    this.server?.closeAllConnections();
    this.server?.close();
  }
}
