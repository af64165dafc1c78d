/** What Pulumi's SDK throws when the engine has ended the connection, as it does when a resource fails. */
const ENDED = "Resource monitor is terminating";

const isEngineEnded = (error: unknown) => error instanceof Error && error.message === ENDED;

/**
 * A listener that passes on every error but the engine's end, which the engine has explained already.
 *
 * The SDK (3.248, `runtime/resource.js`) throws that, and nobody catches it, where a component's outputs were just being
 * registered: its own listener would take it for an error of the program and show a stack trace.
 */
export function unlessEngineEnded<Rest extends unknown[]>(
  listener: (error: unknown, ...rest: Rest) => void,
): (error: unknown, ...rest: Rest) => void {
  return (error, ...rest) => {
    if (!isEngineEnded(error)) listener(error, ...rest);
  };
}

/** What the SDK calls its own listener (`cmd/run/run.js`). */
const THEIRS = "uncaughtHandler";

/** Has the SDK's listener pass over the engine's end. Anybody else's stays as it is: a test runner's takes itself away by its name. */
export function passOverEngineEnd(of: Pick<NodeJS.Process, "listeners" | "removeListener" | "on"> = process): void {
  for (const listener of of.listeners("unhandledRejection")) {
    if (listener.name !== THEIRS) continue;
    of.removeListener("unhandledRejection", listener);
    of.on("unhandledRejection", unlessEngineEnded(listener));
  }
}
