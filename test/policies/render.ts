/** Prints the documents of components/aws-policies.ts and aws-operator-rights.ts as JSON, for the tests in Python: `{name: arguments}` in, by standard input. */
import { text } from "node:stream/consumers";
import * as rights from "../../components/aws-operator-rights";
import * as policies from "../../components/aws-policies";

const all = { ...policies, ...rights } as unknown as Record<string, object | ((settings: object) => object)>;

text(process.stdin).then((asked) => {
  const documents = Object.entries<object>(JSON.parse(asked)).map(([name, settings]) => {
    const one = all[name];
    return [name, typeof one === "function" ? one(settings) : one];
  });
  process.stdout.write(JSON.stringify(Object.fromEntries(documents)));
});
