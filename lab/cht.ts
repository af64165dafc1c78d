/** The CHT deployment on the lab's CHT machine. */
import { spawn } from "node:child_process";
import { drillNames } from "../components/names";
import type { Logged } from "../toolchain/command";
import type { Progress } from "../toolchain/progress";
import type { Images } from "./images";
import { type AnyMachine, containerOf, exec, output } from "./machines";

type ServiceImages = Pick<Images, "nginx" | "couchdb">;

/** The images of the deployment that is there with its images, or undefined. */
export async function deployedImages(): Promise<ServiceImages | undefined> {
  const found = await exec(
    "cht",
    `set -e
nginx=$(sed -n 's/^NGINX_IMAGE=//p' /home/ubuntu/cht/upgrade-service/.env)
couchdb=$(sed -n 's/^COUCHDB_IMAGE=//p' /home/ubuntu/cht/upgrade-service/.env)
docker image inspect "$nginx" "$couchdb" > /dev/null
echo "$nginx $couchdb"`,
    { timeoutMs: 60_000 },
  );
  const [nginx, couchdb] = found.stdout.trim().split(" ");
  return found.code === 0 && nginx && couchdb ? { nginx, couchdb } : undefined;
}

/** Copies images into a machine's engine. */
export async function load(machine: AnyMachine, images: readonly string[], logged: Logged): Promise<void> {
  const save = spawn("docker", ["save", ...images], { stdio: ["ignore", "pipe", "ignore"] });
  await logged.run("cht-images", "docker", ["exec", "-i", containerOf(machine), "docker", "load"], {
    stdin: save.stdout,
  });
}

/** Makes the network for a drill's database where it is missing. In a real stack that is the Docker plugin's work. */
export async function ensureDrillNetwork(machine: AnyMachine): Promise<void> {
  const { network } = drillNames("lab");
  await output(
    machine,
    `docker network inspect ${network} > /dev/null 2>&1 || docker network create --internal ${network}`,
  );
}

/** Deploys the CHT where it is missing, starts it, and waits until its database answers through nginx. */
export async function ensureCht(
  images: ServiceImages,
  present: boolean,
  progress: Progress,
  logged: Logged,
): Promise<void> {
  await progress.step(present ? "looking at the CHT" : "deploying the CHT", async () => {
    if (!present) await load("cht", [images.nginx, images.couchdb], logged);
    await logged.run("cht", "docker", ["exec", containerOf("cht"), "deploy-cht", images.nginx, images.couchdb], {
      timeoutMs: 180_000,
    });
    await ensureDrillNetwork("cht");
  });
}

/** What the CHT's database says it holds: documents by database. */
export async function documentCounts(machine: AnyMachine = "cht"): Promise<Record<string, number>> {
  const script = `
. /home/ubuntu/cht/upgrade-service/.env
# The password goes by standard input: a process list must not show it.
python3 - <<END
import base64, json, ssl, urllib.request
login = base64.b64encode(b"$COUCHDB_USER:$COUCHDB_PASSWORD").decode()
def get(path):
    request = urllib.request.Request("https://127.0.0.1/" + path, headers={"Authorization": "Basic " + login})
    return json.load(urllib.request.urlopen(request, context=ssl._create_unverified_context()))
print(json.dumps({name: get(name)["doc_count"] for name in get("_all_dbs")}))
END
`;
  return JSON.parse(await output(machine, script)) as Record<string, number>;
}
