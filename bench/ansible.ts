/** The lab's state as an Ansible playbook, made from the stack's own resources, and a run of it in check mode. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { serverNames } from "../components/names";
import { stackFile } from "../lab/stack";
import { formatLine } from "../provider/authorized-key";
import { lastLines, run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";
import { pythonEnvironment } from "../toolchain/python";
import { benchFolder, mustRun } from "./stack";

interface Resource {
  type: string;
  urn: string;
  inputs: Record<string, unknown>;
  outputs: Record<string, unknown>;
}

type Task = Record<string, unknown>;

/** Puts a text where a playbook can copy it from; inside the playbook, Ansible would look for templates in it. */
function localFile(content: string): string {
  const folder = join(benchFolder, "files");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, createHash("sha256").update(content).digest("hex"));
  writeFileSync(file, content);
  return file;
}

/**
 * The tasks that describe the same as a resource: one, or two where a module does only a part. Where Ansible's own
 * module is slow or needs more on the machine (apt, pip), a single command that only looks stands in, in its favour.
 */
function tasksFor({ type, inputs, outputs }: Resource): Task[] {
  const { path, mode = "0644", owner = "root", group = "root" } = inputs as Record<string, string>;
  const look = (command: string): Task[] => [
    { "ansible.builtin.command": command, changed_when: false, check_mode: false },
  ];
  const copy = (dest: string, content: unknown): Task[] =>
    // What is secret stays out of the playbook; then only mode and owner are looked at.
    typeof content === "string"
      ? [{ "ansible.builtin.copy": { dest, src: localFile(content), mode, owner, group } }]
      : [{ "ansible.builtin.file": { path: dest, state: "file", mode: inputs.mode ?? mode, owner, group } }];
  switch (type.split(":")[2]) {
    case "File":
      return copy(path as string, inputs.content);
    case "Directory":
      return [{ "ansible.builtin.file": { path, state: "directory", mode: inputs.mode, owner, group } }];
    case "Packages":
      return look(`dpkg-query -W ${(inputs.packages as string[]).join(" ")}`);
    case "User": {
      const { user, home, shell } = inputs;
      return [{ "ansible.builtin.user": { name: user, home, shell, system: true, create_home: false } }];
    }
    case "SshKey":
    case "Passphrase":
      return [{ "ansible.builtin.file": { path, state: "file", mode: "0600", owner: "root", group: "root" } }];
    case "SpaceReserve":
      return [{ "ansible.builtin.stat": { path, get_checksum: false } }];
    case "SshHostKey":
      return [{ "ansible.builtin.slurp": { src: "/etc/ssh/ssh_host_ed25519_key.pub" } }];
    case "AuthorizedKey": {
      const { publicKey, command, restrictions } = outputs as Record<string, string>;
      const line = formatLine({ publicKey, command, restrictions } as Parameters<typeof formatLine>[0]);
      return [
        { "ansible.builtin.user": { name: inputs.user }, register: "account" },
        ...copy("{{ account.home }}/.ssh/authorized_keys", line),
      ];
    }
    case "Unit": {
      const { unit, content, enabled, active } = inputs;
      const state = active === true ? { state: "started" } : {};
      const service = { name: unit, ...(enabled === true ? { enabled: true } : {}), ...state };
      return [
        ...copy(`/etc/systemd/system/${unit}`, content),
        ...(enabled === true || active === true ? [{ "ansible.builtin.systemd_service": service }] : []),
      ];
    }
    case "PythonEnvironment":
      return copy(`${path}/requirements.txt`, inputs.requirements);
    case "BorgRepository":
      return look(`grep -q "^append_only = 1" ${path}/config`);
    case "BucketProtection": {
      const { programs, settings } = inputs as Record<string, string>;
      return look(`${programs}/venv/bin/python -B ${serverNames("lab", "").package} bucket describe ${settings}`);
    }
    default:
      throw new Problem(`bench/ansible.ts doesn't know what ${type} is in Ansible`);
  }
}

/** Sums of a play's recap over all hosts. */
function recap(output: string): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [, line = ""] of output.matchAll(/^\S+\s+: (ok=.*)$/gm)) {
    for (const [, name = "", count] of line.matchAll(/(\w+)=(\d+)/g)) sums[name] = (sums[name] ?? 0) + Number(count);
  }
  return sums;
}

/** Writes inventory and playbook, and returns how to run them. */
export async function checkMode() {
  const environment = await pythonEnvironment("ansible", "bench/requirements.txt");
  const exported = JSON.parse((await mustRun("lab", ["stack", "export"])).stdout);
  const resources = (exported.deployment.resources as Resource[]).filter(({ type }) => type.startsWith("host:index:"));
  const machines = parse(readFileSync(stackFile, "utf8")).config["host:machines"] as Record<
    string,
    Record<string, string>
  >;

  const hosts = Object.fromEntries(
    Object.entries(machines).map(([name, machine]) => [
      name,
      {
        ansible_host: machine.address,
        ansible_user: machine.user,
        ansible_ssh_private_key_file: join(project, machine.identityFile ?? ""),
        ansible_become: machine.user !== "root",
        ansible_python_interpreter: "/usr/bin/python3",
      },
    ]),
  );
  const inventory = join(benchFolder, "inventory.yml");
  const knownHosts = join(benchFolder, "known_hosts");
  const playbook = join(benchFolder, "playbook.yml");
  // Without one, the operator's own would have a say.
  const configuration = join(benchFolder, "ansible.cfg");
  writeFileSync(configuration, "");
  writeFileSync(inventory, JSON.stringify({ all: { hosts } }));
  writeFileSync(
    knownHosts,
    Object.values(machines)
      .map(({ address, hostKey }) => `${address} ${hostKey}\n`)
      .join(""),
  );
  const plays = Object.keys(machines).map((machine) => ({
    hosts: machine,
    tasks: resources
      // The borg repository is looked at where it is stored.
      .filter(({ inputs }) => (inputs.server ?? inputs.machine) === machine)
      .flatMap((resource) =>
        tasksFor(resource).map((task) => ({ name: resource.urn.split("::").at(-1) as string, ...task })),
      ),
  }));
  // One play with free strategy lets both machines work at once; each takes its own tasks.
  const all = [
    {
      hosts: "all",
      gather_facts: false,
      strategy: "free",
      tasks: [{ "ansible.builtin.include_tasks": "tasks-{{ inventory_hostname }}.yml" }],
    },
  ];
  for (const { hosts: machine, tasks } of plays) {
    writeFileSync(join(benchFolder, `tasks-${machine}.yml`), JSON.stringify(tasks));
  }
  writeFileSync(playbook, JSON.stringify(all));

  const tasks = plays.reduce((sum, play) => sum + play.tasks.length, 0);
  const env = {
    ...process.env,
    ANSIBLE_CONFIG: configuration,
    LC_ALL: "C.UTF-8",
    ANSIBLE_PIPELINING: "True",
    ANSIBLE_FORKS: "8",
    ANSIBLE_NOCOLOR: "1",
    ANSIBLE_LOCAL_TEMP: join(benchFolder, "ansible-tmp"),
    ANSIBLE_SSH_ARGS: `-F none -o ControlMaster=auto -o ControlPersist=120s -o UserKnownHostsFile=${knownHosts} -o StrictHostKeyChecking=yes`,
  };
  const run_ = async () => {
    const result = await run(join(environment, "bin", "ansible-playbook"), ["--check", "-i", inventory, playbook], {
      env,
    });
    const sums = recap(result.stdout);
    const right = result.code === 0 && sums.changed === 0 && sums.failed === 0 && sums.unreachable === 0;
    // Each machine has one more: what includes its tasks.
    if (!right || sums.ok !== tasks + plays.length) {
      throw new Problem(
        `Ansible's check mode didn't find the lab as it is (exit code ${result.code}, ${JSON.stringify(sums)}, ${tasks} tasks):\n${lastLines(result.stdout + result.stderr, 20)}`,
      );
    }
  };
  return { run: run_, tasks };
}
