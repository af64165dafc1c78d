/** `host:machines`: the machines and how they are reached. The setting itself is the plugin's, too: `provider/connection.ts`. */
import { type Machine, type MachineSettings, machinesSchema } from "../provider/connection";
import { SERVER_ADMIN } from "./aws-server";

export const machinesSetting = machinesSchema.meta({
  description:
    "The machines and how your computer reaches them over SSH. `cht` is the machine that runs the CHT, `server` " +
    "the one that keeps the backups: another machine, for whoever takes over the first must not reach both. With " +
    "`cht-backup:server.aws` the stack makes `server`; then it has at most `identityFile`.",
  allowed: "a mapping that has `cht` and `server`, each with at least `address`",
  example: "{ cht: { address: cht.example.org, user: ubuntu }, server: { address: backup.example.org } }",
});

/** Every machine of `host:machines`. Only the server may have no address: where the stack makes it. */
export type Machines = Record<string, MachineSettings> & { cht: Machine; server: MachineSettings };

/** @param given checked: the machine cht is there with its address, and so is the server that exists already */
export function machinesOf(given: Record<string, MachineSettings>, makesServer: boolean): Machines {
  const machines = given as Machines;
  return makesServer ? { ...machines, server: { ...machines.server, user: SERVER_ADMIN, sudo: true } } : machines;
}
