/** Networks in CIDR notation: which are right, and in which form AWS reads them back. */
import { isIP } from "node:net";

/**
 * Whether a text is a network in CIDR notation that isn't half of the internet: IPv4 from /8 on, IPv6 from /16 on, without
 * bits set beyond its length (AWS refuses those). No zone, and no IPv4 in IPv6's clothes (`::ffff:203.0.113.7`), which comes
 * in as IPv4.
 */
export function isNetwork(text: string): boolean {
  const [address = "", length = "", ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 0 || rest.length > 0 || !/^\d{1,3}$/.test(length)) return false;
  if (version === 6 && (address.includes("%") || /^0{80}1{16}/.test(bitsOf(address)))) return false;
  const bits = Number(length);
  if (version === 4 ? bits < 8 || bits > 32 : bits < 16 || bits > 128) return false;
  return /^0*$/.test(bitsOf(address).slice(bits));
}

/**
 * A network as AWS writes it: IPv6 shortened and in lower case (RFC 5952), the length without zeros before it. Another form
 * of the same would be drift for ever. What is no network stays as it is.
 */
export function canonicalNetwork(text: string): string {
  if (!isNetwork(text)) return text;
  const [address = "", length] = text.split("/");
  return `${isIP(address) === 6 ? shortened(address) : address}/${Number(length)}`;
}

/** An IPv6 address by RFC 5952, which the parser of URLs follows; it also turns an IPv4 address at the end into groups. */
function shortened(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

/** Networks that the internet doesn't route (RFC 1918, 6598, 3927, 4193, 4291). */
const privateNetworks = [
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "fc00::/7",
  "fe80::/10",
  "::1/128",
];

/** Whether a network (`isNetwork`) is inside one that the internet doesn't route. */
export function isPrivateNetwork(text: string): boolean {
  return privateNetworks.some((outer) => {
    const [[address = "", length = ""], [start = "", bits = ""]] = [text.split("/"), outer.split("/")];
    const same = isIP(address) === isIP(start) && Number(length) >= Number(bits);
    return same && bitsOf(address).startsWith(bitsOf(start).slice(0, Number(bits)));
  });
}

/** An IP address as zeros and ones. */
function bitsOf(address: string): string {
  if (isIP(address) === 4)
    return address
      .split(".")
      .map((byte) => Number(byte).toString(2).padStart(8, "0"))
      .join("");
  const [head = "", tail] = shortened(address).split("::");
  const groups = (text: string) => text.split(":").filter((group) => group !== "");
  const [first, last] = [groups(head), groups(tail ?? "")];
  return [...first, ...Array<string>(8 - first.length - last.length).fill("0"), ...last]
    .map((group) => Number.parseInt(group, 16).toString(2).padStart(16, "0"))
    .join("");
}
