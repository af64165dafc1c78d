/**
 * Words of machines, made safe to show: whoever took a machine over chooses the names of its files, what its programs
 * say and what its reports hold, and must not steer the operator's terminal by them. `hosts/chtbackup/base/text.py` is the same
 * for the programs on machines; `test/plain.json` holds both to one table. Pure.
 */

/**
 * What moves the cursor, changes colours, turns the direction of writing, begins a line, or can't be seen. Tabs do no
 * harm, and some languages and many emoji are written with the two joiners (U+200C, U+200D).
 */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e007f}]/gu;

/** As Python writes it (`unicode_escape`). */
function escaped(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\r") return "\\r";
  const code = (character.codePointAt(0) as number).toString(16);
  if (code.length <= 2) return `\\x${code.padStart(2, "0")}`;
  return code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
}

/** A text as one line that a terminal shows and does nothing else with: what would do more is escaped, visibly. */
export function plain(text: string): string {
  return text.replace(UNSAFE, escaped);
}

/** A text of several lines, each of them {@link plain}. They may end as Windows and ssh end them. */
export function plainLines(text: string): string {
  return text
    .split("\n")
    .map((line) => plain(line.replace(/\r$/, "")))
    .join("\n");
}

/** A value as JSON for people and programs: the same value is read from it, and a terminal only shows it. */
export function plainJson(value: unknown): string {
  const units = (character: string) =>
    character === "\n"
      ? character
      : [...Array(character.length).keys()]
          .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`)
          .join("");
  return `${JSON.stringify(value, null, 2).replace(UNSAFE, units)}\n`;
}

/** A text without the colours and cursor movements that programs put into their output. */
export function withoutColours(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what is looked for
  return text.replace(/\u001b\[[0-9;?]*[A-Za-z]/g, "");
}
