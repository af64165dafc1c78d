/** What a security group of AWS lets in. Pure. */

/**
 * What a security group lets in: SSH, from these networks and from nowhere else. A network that is named twice is let in
 * once, as the first: AWS refuses a second rule for it, whatever its description is.
 * @param networks in their canonical form
 */
export function sshFrom(networks: Record<string, readonly string[]>) {
  const all = Object.values(networks).flat();
  let before = 0;
  const once = Object.entries(networks).map(([description, blocks]) => {
    const first = blocks.filter((block, index) => all.indexOf(block) === before + index);
    before += blocks.length;
    return { description, blocks: first };
  });
  return once
    .filter(({ blocks }) => blocks.length > 0)
    .map(({ description, blocks }) => ({
      description: `SSH from ${description}`,
      protocol: "tcp",
      fromPort: 22,
      toPort: 22,
      cidrBlocks: blocks.filter((block) => !block.includes(":")),
      ipv6CidrBlocks: blocks.filter((block) => block.includes(":")),
    }));
}
