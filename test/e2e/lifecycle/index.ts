import { cases } from "./cases";

for (const { declare } of cases) declare();
