/** The Command plugin's remote command, by the system's ssh. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../../toolchain/command";
import { serve } from "./standin";

interface Connection {
  host: string;
  port: number;
  user: string;
  hostKey?: string;
  privateKey: string;
}

serve("1.2.1", {
  "command:remote:Command": {
    async create(inputs) {
      const { host, port, user, hostKey, privateKey } = inputs.connection as Connection;
      const folder = mkdtempSync(join(tmpdir(), "command-"));
      try {
        const [key, known] = [join(folder, "key"), join(folder, "known_hosts")];
        writeFileSync(key, privateKey, { mode: 0o600 });
        writeFileSync(known, hostKey === undefined ? "" : `machine ${hostKey}\n`);
        const check = hostKey === undefined ? "no" : "yes";
        const options = ["HostKeyAlias=machine", `UserKnownHostsFile=${known}`, `StrictHostKeyChecking=${check}`];
        const words = [...options, "BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=5", "ConnectionAttempts=30"];
        const result = await run(
          "ssh",
          [
            ...["-F", "none", "-i", key, "-p", String(port)],
            ...words.flatMap((word) => ["-o", word]),
            `${user}@${host}`,
            String(inputs.create),
          ],
          { stdin: String(inputs.stdin ?? ""), timeoutMs: 300_000 },
        );
        if (result.code !== 0) throw new Error(`exit code ${result.code}: ${result.stdout}${result.stderr}`);
        return { outputs: { stdout: result.stdout, stderr: result.stderr } };
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  },
});
