/** Comparing versions. Pure. */

/** Whether dotted version `a` is `b` or newer. Only the numbers count; a leading `v` or `go` doesn't. */
export function isAtLeast(a: string, b: string): boolean {
  const numbers = (text: string) => (text.match(/\d+(\.\d+)*/)?.[0] ?? "0").split(".").map(Number);
  const [left, right] = [numbers(a), numbers(b)];
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
