/** What a CHT deployment gets, from top to bottom. */
import * as pulumi from "@pulumi/pulumi";
import { BorgRepository } from "./components/borg-repository";
import { ChtBackup } from "./components/cht-backup";
import { OffsiteServer } from "./components/offsite-server";
import { commandsToKnow, keptByDestroy } from "./components/outputs";
import { loadSettings } from "./config";

const settings = loadSettings();
const { machines } = settings;
export const { deployment, schedule } = settings;
const { dataDirectory, address, port, reserveMebibytes } = settings.server;

// A place on another machine that can only receive.
const server = new OffsiteServer("offsite-server", { machine: "server", deployment, dataDirectory, reserveMebibytes });

// An encrypted repository there, to which the CHT machine can only append.
const backups = new BorgRepository("backup-repository", {
  machine: "cht",
  deployment,
  server,
  dataDirectory,
  address,
  port,
  passphrase: settings.passphrase,
});

// Everything that a restore needs, every night, and an alarm when that fails.
new ChtBackup("cht-backup", {
  machine: "cht",
  deployment,
  repository: backups,
  dataDirectory,
  ...settings.cht,
  schedule,
  randomDelay: settings.randomDelay,
  compression: settings.compression,
  chunker: settings.chunker,
  uploadRate: settings.uploadRate,
  alerts: settings.alerts,
  firstBackup: settings.firstBackup ? machines.cht : undefined,
});

export const repository = backups.location;
export const repositoryId = backups.repositoryId;
export const commands = commandsToKnow(deployment, machines.cht);
/** Both are needed to read any archive. Keep them away from both machines. */
export const recovery = pulumi.secret({
  passphrase: backups.passphrase,
  key: backups.exportedKey,
  formerKeys: backups.formerKeys,
});
export const kept = keptByDestroy(deployment, dataDirectory);
