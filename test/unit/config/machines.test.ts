import assert from "node:assert/strict";
import { sshCommandLine } from "../../../provider/connection";
import { hostKey, machines, made, mistakes, read, rsaKey, wrongSettings } from "./settings";

wrongSettings([
  [
    "no machines",
    { "host:machines": undefined },
    /^host:machines: missing; must be a mapping .* for instance \{ cht: /,
  ],
  ["machines that aren't JSON", { "host:machines": "{cht: x" }, /^host:machines: found "\{cht: x"; must be a mapping /],
  ["no server", { "host:machines": { cht: machines.cht } }, /^host:machines.server: missing; must be a mapping with /],
  [
    "no address",
    { "host:machines": { ...machines, cht: {} } },
    /^host:machines.cht.address: missing; must be a host name/,
  ],
  [
    "an address that ssh takes for an option",
    { "host:machines": { ...machines, cht: { address: "-oProxyCommand=reboot" } } },
    /^host:machines.cht.address: found "-oProxyCommand=reboot"; must be /,
  ],
  [
    "a user in the address",
    { "host:machines": { ...machines, cht: { address: "ubuntu@cht.example.org" } } },
    /^host:machines.cht.address: found "ubuntu@cht.example.org"; must be a host name/,
  ],
  [
    "a port out of range",
    { "host:machines": { ...machines, cht: { address: "a", port: 99999 } } },
    /^host:machines.cht.port: found 99999; must be a port, a number from 1 to 65535, for instance 2222$/,
  ],
  [
    "a misspelt setting of a machine",
    { "host:machines": { ...machines, cht: { adress: "cht.example.org" } } },
    /^host:machines.cht.adress: there is no such setting; did you mean host:machines.cht.address\?$/,
  ],
  [
    "a host key that was cut",
    { "host:machines": { ...machines, server: { address: "b", hostKey: `ssh-ed25519 ${hostKey.slice(0, -8)}` } } },
    /^host:machines.server.hostKey: found "ssh-ed25519 AAAA.*…"; must be a public key on one line/,
  ],
  [
    "a private key in place of a host key",
    {
      "host:machines": { ...machines, server: { address: "b", hostKey: "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl" } },
    },
    /^host:machines.server.hostKey: found a text that isn't shown; must be a public key/,
  ],
  [
    "a name of a machine with a capital",
    { "host:machines": { ...machines, Drill: { address: "c" } } },
    /^host:machines.Drill: the name must be lower-case letters/,
  ],
  [
    "one machine for both",
    { "host:machines": { cht: { address: "one" }, server: { address: "one", port: 22 } } },
    /^host:machines.server.address: found "one", which is the machine cht; must be another machine: /,
  ],
]);

describe("settings", () => {
  it("let a machine be reached over a jump host, by an ssh configuration, with a host key of RSA: the first backup, too, and a server's first boot", () => {
    const cht = { address: "a", jump: "bastion", configFile: "./ssh_config", hostKey: `ssh-rsa ${rsaKey}` };
    assert.deepEqual(mistakes({ "cht-backup:firstBackup": true, "host:machines": { ...machines, cht } }), []);
    const server = { jump: "bastion", configFile: "./ssh_config" };
    assert.deepEqual(mistakes(made({}, { "host:machines": { cht: machines.cht, server } })), []);
  });

  it("take what ssh takes", () => {
    const cht = {
      address: "2001:db8::1",
      user: "first.last",
      port: 2222,
      identityFile: "~/.ssh/id_ed25519",
      jump: "admin@bastion.example.org:2222,[2001:db8::2]",
      configFile: "./ssh config",
      hostKey: `ssh-ed25519 ${hostKey}`,
      sudo: false,
    };
    const settings = read({ "host:machines": { ...machines, cht } });
    assert.deepEqual(settings.machines.cht, cht);
    assert.equal(
      sshCommandLine(settings.machines.cht, "uptime"),
      "ssh -F './ssh config' -i ~/.ssh/id_ed25519 -J 'admin@bastion.example.org:2222,[2001:db8::2]' -p 2222 " +
        "first.last@2001:db8::1 uptime",
    );
  });
});
