/** What a CHT deployment gets, from top to bottom. */
import * as pulumi from "@pulumi/pulumi";
import { warnWithoutAlerts } from "./components/alerts";
import { makeAtAws } from "./components/at-aws";
import { lookAtBackupsSoFar } from "./components/backups-so-far";
import { BorgRepository } from "./components/borg-repository";
import { BucketCopy, bucketWarning } from "./components/bucket-copy";
import { ChtBackup } from "./components/cht-backup";
import { DrillMachine } from "./components/drill-machine";
import { OffsiteServer } from "./components/offsite-server";
import { commandsToKnow, keptByDestroy } from "./components/outputs";
import { kitDigestOf, remindOfRecoveryKit } from "./components/recovery-kit-reminder";
import { RestoreDrill } from "./components/restore-drill";
import { ScheduledRetention } from "./components/scheduled-retention";
import { watchAll } from "./components/watch";
import { loadSettings } from "./config";

const settings = loadSettings();
const { machines, drill, alerts, retention } = settings;
export const { deployment, schedule } = settings;
const { dataDirectory, port } = settings.server;

// An alarm that nobody gets is none.
warnWithoutAlerts(alerts);

// What doesn't exist yet, where the settings say that the stack makes it: a server, a bucket.
const { serverAddress, bucket, before, made, volumeId, cost } = makeAtAws("server", settings);

// Nothing begins anew without a word, and nothing that others made is touched before it is sure that it can be taken over.
const after = lookAtBackupsSoFar("server", "cht", settings, bucket);

// A place on another machine that can only receive: a guard before borg, what is stored sealed, its log read.
const server = new OffsiteServer("offsite-server", {
  machine: "server",
  deployment,
  settings: settings.server,
  alerts,
  after,
});

// Restores are rehearsed on the CHT machine, unless another one is trusted with the archives.
const drillMachine =
  drill === undefined || drill.machine === "cht"
    ? undefined
    : new DrillMachine("drill-machine", {
        machine: drill.machine,
        deployment,
        server,
        dataDirectory,
        address: drill.server.address ?? serverAddress,
        port: drill.server.port,
        fromServer: drill.from !== "bucket",
        dockerUser: drill.docker?.user,
        alerts,
      });

// An encrypted repository there, to which the CHT machine can only append.
const backups = new BorgRepository("backup-repository", {
  machine: "cht",
  deployment,
  server,
  dataDirectory,
  address: serverAddress,
  port,
  otherKeys: drillMachine?.publicKeys ?? [],
  passphrase: settings.passphrase,
  after,
});

// Everything that a restore needs, every few hours, and an alarm when that fails.
const chtBackup = new ChtBackup("cht-backup", {
  machine: "cht",
  deployment,
  repository: backups,
  dataDirectory,
  cht: settings.cht,
  settings,
  alerts,
  firstBackup: settings.firstBackup ? machines.cht : undefined,
});

// A backup is proven when it was restored.
const drills: pulumi.Resource[] = [];
if (drill === undefined) {
  void pulumi.log.warn("cht-backup:drill is switched off: nothing proves that the backups can be restored.");
} else {
  const { programs } = drillMachine ?? chtBackup;
  const rehearsed = new RestoreDrill("restore-drill", {
    deployment,
    settings: drill,
    repository: backups,
    other: drillMachine,
    programs,
    bucket: bucket?.readerKey && { place: bucket, reader: bucket.readerKey },
  });
  drills.push(rehearsed);
}

// It stays small, where a machine is trusted to have the server remove what the policy no longer keeps.
if (retention.machine !== undefined && drill !== undefined && drillMachine !== undefined) {
  const scheduled = new ScheduledRetention("scheduled-retention", {
    deployment,
    settings: retention,
    drill,
    repository: backups,
    server,
    dataDirectory,
    drillMachine,
    address: drill.server.address ?? serverAddress,
  });
  drills.push(scheduled);
}

// A third copy, locked, that nobody can take away who takes over both machines.
const warning = bucketWarning(bucket);
if (warning !== undefined) void pulumi.log.warn(warning);
const onServer: pulumi.Resource[] = [server];
if (bucket !== undefined) {
  onServer.push(new BucketCopy("bucket-copy", { deployment, server, dataDirectory, bucket, before }));
}

// Whatever stops, somebody hears of it, told by another machine than the one that fell silent.
watchAll(settings, bucket, serverAddress, drillMachine?.publicKeys ?? [], {
  cht: [chtBackup, ...drills],
  server: onServer,
  drill: [...(drillMachine ? [drillMachine] : []), ...drills],
});

export const repository = backups.location;
export const repositoryId = backups.repositoryId;
export const commands = commandsToKnow(deployment, machines.cht);
/** Both are needed to read any archive. Keep them away from both machines. */
export const recovery = pulumi.secret({
  passphrase: backups.passphrase,
  key: backups.exportedKey,
  formerKeys: backups.formerKeys,
  hostKey: server.hostKey,
  ...made,
});
/** What a recovery kit must fit, as a digest, for `npm run status`. */
export const recoveryKitDigest = kitDigestOf(settings, backups.exportedKey, server.hostKey, made);
remindOfRecoveryKit(settings, recoveryKitDigest);
export const kept = keptByDestroy(deployment, dataDirectory, drillMachine && drill?.machine, bucket, volumeId);
export const monthlyCost = cost?.text ?? "nothing is made at AWS";
