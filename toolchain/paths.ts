/** Where things are. */
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/** The project's folder. */
export const project = dirname(__dirname);

/** What belongs to the lab of this clone: keys, passphrase, state, logs. Git ignores it, and `lab:down` removes it. */
export const labFolder = join(project, ".lab");

/** The user's cache: what took long to get and depends on nothing in this clone. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "cht-backup");
}
