/** The Docker plugin: networks of engines that are a file, STANDIN_DOCKER: by the engine's address, ids by name. */
import { readFileSync, writeFileSync } from "node:fs";
import { configuration, serve } from "./standin";

const file = process.env.STANDIN_DOCKER ?? "";
type Networks = Record<string, string>;

function engines(): Record<string, Networks> {
  return JSON.parse(readFileSync(file, "utf8"));
}

/** The networks of the engine that this plugin was told of. @throws Error where nothing answers there */
function networks(): Networks {
  const host = String(configuration.host);
  const found = engines()[host];
  if (found === undefined)
    throw new Error(
      `failed to create Docker client: Error pinging Docker server, please make sure that ${host} is reachable`,
    );
  return found;
}

function change(changes: Record<string, string | undefined>): void {
  const all = engines();
  const host = String(configuration.host);
  writeFileSync(file, JSON.stringify({ ...all, [host]: { ...all[host], ...changes } }));
}

const nameOf = (id: string) => Object.entries(networks()).find(([, of]) => of === id)?.[0];

serve(
  "5.2.0",
  {
    "docker:index/network:Network": {
      replaces: ["name", "internal"],
      async create({ name }) {
        const id = `made-${name}`;
        if (networks()[String(name)] !== undefined) throw new Error(`network with name ${name} already exists`);
        change({ [String(name)]: id });
        return { id };
      },
      exists: async (id) => nameOf(id) !== undefined,
      read: (id, inputs) => (Object.keys(inputs).length > 0 ? inputs : { name: nameOf(id), internal: true }),
      async remove(id) {
        change({ [String(nameOf(id))]: undefined });
      },
    },
  },
  {
    "docker:index/getNetwork:getNetwork": ({ name }) => {
      const id = networks()[String(name)];
      if (id === undefined) throw new Error(`Could not find docker network: network ${name} not found`);
      return { id, internal: true };
    },
  },
);
