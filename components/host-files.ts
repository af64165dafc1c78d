/** The files of `hosts/`, which land on machines, and the few values that are put into them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Absolute path of a file or folder in `hosts/`, on this computer. */
export const hostFile = (name: string): string => join(__dirname, "..", "hosts", name);

/**
 * Text of a file in `hosts/`.
 *
 * @param name path inside `hosts/`, for instance `cht/ssh_config`
 */
export function readHostFile(name: string): string {
  return readFileSync(hostFile(name), "utf8");
}

/**
 * A text with its placeholders, such as `@DEPLOYMENT@`, replaced. What is put in is not looked at again.
 *
 * @param text the text, with a placeholder for every value
 * @param values the values by the placeholder's name, each on one line
 * @param options `severalLines` allows values of several lines
 * @throws Error for a placeholder without a value, a value without a placeholder, a value of several lines
 */
export function render(
  text: string,
  values: Readonly<Record<string, string | number>>,
  { severalLines = false } = {},
): string {
  const used = new Set<string>();
  const rendered = text.replace(/@([A-Z][A-Z0-9_]*)@/g, (placeholder, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`no value for the placeholder ${placeholder}`);
    if (!severalLines && /[\r\n\0]/.test(String(value)))
      throw new Error(`the value for the placeholder ${placeholder} has several lines`);
    used.add(name);
    return String(value);
  });
  const unused = Object.keys(values).filter((name) => !used.has(name));
  if (unused.length > 0) throw new Error(`no placeholder for the value of ${unused.join(", ")}`);
  return rendered;
}

/** A file of `hosts/` with its placeholders replaced; an error names the file. */
export function renderHostFile(name: string, values: Readonly<Record<string, string | number>>): string {
  try {
    return render(readHostFile(name), values);
  } catch (error) {
    throw new Error(`hosts/${name}: ${(error as Error).message}`);
  }
}
