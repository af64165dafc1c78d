/** Prints the documents of components/policies.ts as JSON, for the tests in Python: `{function: arguments}` in, by standard input. */
import { text } from "node:stream/consumers";
import * as policies from "../../components/policies";

const functions = policies as unknown as Record<string, (settings: object) => object>;

text(process.stdin).then((asked) => {
  const documents = Object.entries<object>(JSON.parse(asked)).map(([name, settings]) => [
    name,
    functions[name]?.(settings),
  ]);
  process.stdout.write(JSON.stringify(Object.fromEntries(documents)));
});
