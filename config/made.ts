/** What only the stack knows, and settings with that put in its place. */
import { hasAddress, type Machine } from "../provider/connection";
import type { AccessKey } from "./bucket";
import type { Settings } from "./settings";

/** What only the stack knows, of what it has made itself. */
export interface Made {
  /** Where the server is. */
  serverAddress?: string | undefined;
  /** The key for reading the bucket. */
  bucketReader?: AccessKey | undefined;
}

/** Settings with what the stack has made put where it would be if it had existed already. Pure. */
export function withMade<
  P extends Pick<Settings, "machines" | "server"> & {
    bucket: { reader: { accessKeyId: string } | undefined } | undefined;
  },
>(settings: P, { serverAddress, bucketReader }: Made): P {
  const { machines, server, bucket } = settings;
  return {
    ...settings,
    machines: { ...machines, server: { ...machines.server, address: machines.server.address ?? serverAddress } },
    server: { ...server, address: server.address ?? serverAddress },
    bucket: bucket && { ...bucket, reader: bucket.reader ?? bucketReader },
  };
}

/** What it takes to know where every machine is. */
interface Everywhere {
  machines: Record<string, Machine> & { server: Machine };
  server: { address: string };
}

/** Settings of a stack of which that is known. */
export type Located = Settings & Everywhere;

/** False where the stack makes its server and hasn't done so, or hasn't said where. */
export function isLocated<P extends Pick<Settings, "machines" | "server">>(settings: P): settings is P & Everywhere {
  return Object.values(settings.machines).every(hasAddress) && settings.server.address !== undefined;
}
