/** Seconds by which a client may be ahead of the time without being remarkable: clocks differ. */
const AHEAD = 7 * 86_400;

const PER_SECOND = 2n ** 31n;

const counterOf = (text: string | undefined) => (/^[0-9a-f]{16}$/.test(text ?? "") ? BigInt(`0x${text}`) : undefined);

/**
 * What the counters of the repository's encryption say that an operator has to hear; undefined: nothing. Clients count up to
 * 2^64 and no further, and borg notes on both sides how far, on the server first (borg 1.x's `crypto/nonces.py`).
 * @param stored the server's, in hexadecimal; undefined where it has none
 * @param client the client's
 * @param now seconds since 1970
 */
export function counterWarning(
  stored: string | undefined,
  client: string | undefined,
  now: number,
): string | undefined {
  const [there, here] = [counterOf(stored) ?? 0n, counterOf(client) ?? 0n];
  if (there > BigInt(Math.floor(now) + AHEAD) * PER_SECOND) {
    return (
      "clients have counted far ahead of the time in their encryption, which no honest one does; at the end of the counter " +
      "nobody can back up into this repository any more"
    );
  }
  // A client that has only been told from where to count has written nothing yet.
  if (here > there && here % PER_SECOND !== 0n) {
    return "it knows less of what was stored than the client: it was set back to an older state, or somebody changed it";
  }
  return undefined;
}
