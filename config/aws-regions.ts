/** The regions of AWS, without its SDK, which takes too long to load for a look at a setting. */

import { distance } from "../provider/mistakes";

/** Names of all regions, as `@pulumi/aws` knows them: a unit test compares them. */
export const awsRegions: readonly string[] = [
  "af-south-1",
  "ap-east-1",
  "ap-east-2",
  "ap-northeast-1",
  "ap-northeast-2",
  "ap-northeast-3",
  "ap-south-1",
  "ap-south-2",
  "ap-southeast-1",
  "ap-southeast-2",
  "ap-southeast-3",
  "ap-southeast-4",
  "ap-southeast-5",
  "ap-southeast-6",
  "ap-southeast-7",
  "ca-central-1",
  "ca-west-1",
  "cn-north-1",
  "cn-northwest-1",
  "eu-central-1",
  "eu-central-2",
  "eu-isoe-west-1",
  "eu-north-1",
  "eu-south-1",
  "eu-south-2",
  "eu-west-1",
  "eu-west-2",
  "eu-west-3",
  "eusc-de-east-1",
  "il-central-1",
  "me-central-1",
  "me-south-1",
  "mx-central-1",
  "sa-east-1",
  "us-east-1",
  "us-east-2",
  "us-gov-east-1",
  "us-gov-west-1",
  "us-iso-east-1",
  "us-iso-west-1",
  "us-isob-east-1",
  "us-isob-west-1",
  "us-isof-east-1",
  "us-isof-south-1",
  "us-west-1",
  "us-west-2",
];

/**
 * What is wrong with a region's name, in words that follow the setting's name: `is no region of AWS; …`. Undefined where
 * there is such a region. Pure.
 */
export function regionMistake(name: string): string | undefined {
  if (awsRegions.includes(name)) return undefined;
  // `eu-west-1a` is a zone of the region, and the commonest mistake.
  const zoneOf = awsRegions.find((region) => new RegExp(`^${region}[a-z]$`).test(name));
  if (zoneOf !== undefined) return `is an availability zone; its region is ${zoneOf}`;
  const measured = awsRegions.map((region) => ({ region, apart: distance(name.toLowerCase(), region) }));
  const least = Math.min(...measured.map(({ apart }) => apart));
  const near = measured.filter(({ apart }) => apart === least).map(({ region }) => region);
  // What is nothing like a region has no nearest one.
  const meant = least <= 3 ? `the nearest: ${near.join(", ")}` : "for instance eu-west-1 or af-south-1";
  return `is no region of AWS; ${meant}`;
}
