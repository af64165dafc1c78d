import * as pulumi from "@pulumi/pulumi";
import type { Drill, Settings } from "../config";
import { missedAfter } from "../config/calendar";
import { policyOf } from "../config/retention";
import { fileOf } from "../contract";
import * as host from "../provider";
import type { BorgRepository } from "./borg-repository";
import type { DrillMachine } from "./drill-machine";
import { renderHostFile } from "./host-files";
import { loginLimits } from "./login-limits";
import { chtNames, retentionNames, serverNames } from "./names";
import type { OffsiteServer } from "./offsite-server";
import { sshAccess } from "./ssh-access";

export interface ScheduledRetentionArgs {
  deployment: string;
  settings: Settings["retention"];
  drill: Drill;
  /** Whose archives are removed. */
  repository: BorgRepository;
  /** Where they are. */
  server: OffsiteServer;
  dataDirectory: string;
  /** The machine that starts it. */
  drillMachine: DrillMachine;
  /** Where that machine reaches the server. */
  address: pulumi.Input<string>;
}

/** What the server runs: the policy is in a file there, so that whoever starts it decides nothing. */
function commandOn(deployment: string, dataDirectory: string): string[] {
  const { package: programs, settings } = serverNames(deployment, dataDirectory);
  return ["/usr/bin/python3", "-I", "-B", programs, "retention", "scheduled", `${settings}/repository.json`];
}

/**
 * Retention on a schedule: the machine that drills has the passphrase, and a key of its own with which the server removes what
 * its policy no longer keeps. The key is of an account that may do this and nothing else.
 */
export class ScheduledRetention extends pulumi.ComponentResource {
  constructor(name: string, args: ScheduledRetentionArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:ScheduledRetention", name, {}, opts);
    const { deployment, settings, drill, repository, server, dataDirectory, drillMachine } = args;
    const { machine } = drill;
    const names = retentionNames(deployment);
    const own = commandOn(deployment, dataDirectory);
    const DEPLOYMENT = deployment;
    const child = { parent: this };
    const onServer = { ...child, dependsOn: server };
    const inside = { ...child, dependsOn: drillMachine.directory };

    const policy = new host.File(
      "retention-policy",
      {
        machine: server.machine,
        path: `${serverNames(deployment, dataDirectory).settings}/retention.json`,
        content: repository.repositoryId.apply((id) =>
          fileOf("retention", {
            repository: id,
            overdueAfterDays: drill.overdueAfterDays,
            policy: policyOf(settings),
          }),
        ),
      },
      onServer,
    );
    const { environment, package: programs, alerts } = drillMachine.programs;
    const needed: pulumi.Resource[] = [policy, environment, programs, alerts];
    let command: string[];
    if (machine === server.machine) {
      // Not inside this unit, which can change nothing.
      const outside = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"];
      command = [...outside, "--property=LimitCORE=0", ...own];
    } else {
      const { user, home } = names;
      const rename = (part: string) => `retention-${part.replace(/^cht-/, "")}`;
      const prefix = "retention_";
      const { key, knownHosts, sshConfig } = sshAccess(
        {
          machine,
          deployment,
          server,
          dataDirectory,
          address: args.address,
          port: drill.server.port,
          rename,
          account: user,
          prefix,
        },
        drillMachine.directory,
        child,
      );
      const asked = `sudo -n ${own.join(" ")}`;
      const account = new host.User("retention-user", { machine: server.machine, user, home }, onServer);
      const sudo = new host.Packages(
        "retention-sudo",
        { machine: server.machine, packages: ["sudo"], unless: "command -v sudo" },
        onServer,
      );
      const path = `/etc/sudoers.d/${user}`;
      const allowed = new host.File(
        "retention-sudoers",
        {
          machine: server.machine,
          path,
          mode: "0440",
          content: renderHostFile("retention/sudoers", { DEPLOYMENT, USER: user, COMMAND: own.join(" ") }),
          validate: `visudo -cqf ${path}`,
        },
        { ...child, dependsOn: [account, sudo, policy] },
      );
      const limits = loginLimits(
        "retention-login-limits",
        { machine: server.machine, deployment, user, command: asked },
        { ...child, dependsOn: account },
      );
      // The limits come first: the key must not work for a moment without them.
      const authorizedKey = new host.AuthorizedKey(
        "retention-authorized-key",
        { machine: server.machine, user, publicKey: key.publicKey, command: asked },
        { ...child, dependsOn: [allowed, limits] },
      );
      needed.push(knownHosts, sshConfig, authorizedKey);
      command = ["ssh", "-F", `${chtNames(deployment).settings}/${prefix}ssh_config`, "offsite", "retention"];
    }
    const content = repository.repositoryId.apply((id) =>
      fileOf("scheduled-retention", { deployment, repository: id, command }),
    );
    needed.push(new host.File("retention-settings", { machine, path: names.settings, content }, inside));

    const failure = new host.Unit(
      "retention-alert-service",
      {
        machine,
        unit: names.failedService,
        content: renderHostFile("retention/cht-retention-failed.service", { DEPLOYMENT }),
      },
      { ...child, dependsOn: needed },
    );
    const service = new host.Unit(
      "retention-service",
      { machine, unit: names.service, content: renderHostFile("retention/cht-retention.service", { DEPLOYMENT }) },
      { ...child, dependsOn: failure },
    );
    new host.Unit(
      "retention-timer",
      {
        machine,
        unit: names.timer,
        content: renderHostFile("retention/cht-retention.timer", {
          DEPLOYMENT,
          SCHEDULE: settings.schedule,
          RANDOM_DELAY: settings.randomDelay,
          MISSED_AFTER: missedAfter(settings.schedule, settings.randomDelay),
        }),
        enabled: true,
        active: true,
      },
      { ...child, dependsOn: service },
    );
    this.registerOutputs({ machine, timer: names.timer });
  }
}
