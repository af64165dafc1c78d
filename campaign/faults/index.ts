/** All faults of the campaign. */
import type { Fault } from "../fault";
import { buckets } from "./bucket";
import { disks } from "./disks";
import { files, indexes } from "./files";
import { networks } from "./network";
import { power } from "./power";
import { processes } from "./processes";
import { surroundings } from "./surroundings";
import { twice } from "./twice";

export const faults: readonly Fault[] = [
  ...processes,
  ...power,
  ...disks,
  ...files,
  ...indexes,
  ...networks,
  ...buckets,
  ...surroundings,
  ...twice,
];
