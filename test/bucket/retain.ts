/** Does the bucket's part of `npm run retention` for the tests in Python: what it is given, as JSON, by standard input. */
import { text } from "node:stream/consumers";
import { bucketRetention } from "../../operations/bucket-retention";
import { command } from "../../operations/main";

void text(process.stdin).then((asked) =>
  command("retention", async (signal) => (await bucketRetention({ ...JSON.parse(asked), signal })).code),
);
