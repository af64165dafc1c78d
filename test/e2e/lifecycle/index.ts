import * as host from "../../../provider";
import { cases } from "./cases";

if (process.env.LIFECYCLE === "refused") {
  new host.Packages("too-old", { machine: "server", packages: ["tree"], minimum: { tree: "99" } });
} else {
  for (const { declare } of cases) declare();
}
