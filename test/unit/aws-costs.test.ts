import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { z } from "zod";
import { growths, month, monthlyCost, prices, restore, stays, stored } from "../../components/aws-costs";
import { settingsSchema } from "../../config";
import { core } from "../../provider/mistakes";
import { costsFile } from "../../toolchain/docs/costs-page";

describe("AWS' costs", () => {
  const [standard, infrequent] = prices.classes;

  it("reckons as one does by hand", () => {
    assert.ok(standard && infrequent);
    // 100 GB at 2.3 cents; 200 objects.
    const first = month(100, standard);
    assert.ok(Math.abs(first.storage - 2.3) < 1e-9);
    // 180 copies of 8 objects and some 4 requests, and 200 locks that are lengthened, at half a cent a thousand.
    assert.ok(Math.abs(first.requests - 0.0119) < 1e-3, `${first.requests}`);
    assert.equal(first.checks, 0);
    // 1 cent a GB, and 9 cents for each of the 600 GB that aren't free; 1,400 GETs.
    assert.ok(Math.abs(restore(700, infrequent) - (7 + 54 + 0.0014)) < 1e-9);
    assert.equal(stored(20, { name: "", plain: 0, compactions: 0 }, 12), 20);
    assert.ok(Math.abs(stored(100, { name: "", plain: 0.01, compactions: 0 }, 1) - 130) < 1e-9);
  });

  it("has what stays by the default policy near what a simulated year left", () => {
    const [quiet, busy] = growths;
    assert.ok(quiet && busy);
    // docs/measurements.md: 6.5 full copies on the server, at its fullest.
    const { server, bucket } = stays(1, busy);
    assert.ok(server > 5.5 && server < 7.5, `${server}`);
    assert.ok(bucket > server + 1 && bucket < stored(1, busy, 12), `${bucket}`);
    assert.ok(stays(1, quiet).server < server);
    assert.equal(Math.round(stays(100, busy).server), Math.round(100 * server));
  });

  it("has the sum that a stack's output names, part by part", () => {
    const { text, ...parts } = monthlyCost({
      instanceType: "t4g.small",
      dataGibibytes: 100,
      bucket: { storageClass: null },
    });
    // 730 hours at 1.84 cents; 108 GB at 8.8 cents; 730 hours at half a cent; 100 GB at 2.3 cents and some requests.
    assert.deepEqual(parts, { server: 13.43, volume: 9.5, address: 3.65, bucket: 2.31, total: 28.89 });
    assert.match(
      text,
      /^about 28\.89 US dollars a month \(t4g\.small 13\.43, .* bucket with 100 GB in Standard 2\.31\)/,
    );
    assert.ok(text.includes(`by the prices of ${prices.date} in eu-west-1 (Ireland)`), text);
    assert.match(readFileSync(costsFile, "utf8"), /^\| t4g\.small \| {2}\| 13\.43 \| 19\.54 \| 26\.58 \|/m);
  });

  it("leaves out what isn't made", () => {
    const copy = monthlyCost({ dataGibibytes: 100, bucket: { storageClass: "GLACIER_IR" } });
    assert.deepEqual(Object.keys(copy), ["bucket", "total", "text"]);
    assert.equal(copy.total, copy.bucket);
    assert.equal(monthlyCost({ instanceType: "t3.nano", dataGibibytes: 20 }).bucket, undefined);
  });

  it("invents no price that it doesn't have", () => {
    const { total, server, volume, text } = monthlyCost({ instanceType: "m9g.small", dataGibibytes: 20 });
    assert.deepEqual([total, server], [undefined, undefined]);
    assert.equal(volume, 2.46);
    assert.match(text, /m9g\.small, which components\/aws-costs\.ts has no price for: look at https:/);
    const cold = monthlyCost({ dataGibibytes: 20, bucket: { storageClass: "DEEP_ARCHIVE" } });
    assert.deepEqual([cold.total, cold.bucket], [undefined, undefined]);
  });

  it("knows every storage class that the settings allow", () => {
    const { storageClass } = (core(settingsSchema.shape["cht-backup:bucket"]) as z.ZodObject).shape;
    const { options } = core(storageClass) as z.ZodEnum;
    assert.deepEqual(
      prices.classes.map(({ id }) => id),
      [null, ...options],
    );
  });
});
