import type { StackBucket, StackSettings } from "../config";
import * as host from "../provider";
import { bucketPlace } from "../provider/backups-so-far-judgement";
import { bucketNames, chtNames, serverNames } from "./names";

/**
 * The look, before anything is touched, at what the deployment has so far: a setting by which its backups or copies would
 * begin anew is refused or announced, and so is a repository in its place that others made.
 */
export function lookAtBackupsSoFar(
  machine: string,
  client: string,
  settings: Pick<StackSettings, "deployment" | "server" | "cht" | "chunker" | "passphrase">,
  bucket: Pick<StackBucket, "name" | "prefix" | "endpoint"> | undefined,
): host.BackupsSoFar {
  const { deployment } = settings;
  const { user, repository, state } = serverNames(deployment, settings.server.dataDirectory);
  const names = chtNames(deployment);
  return new host.BackupsSoFar("backups-so-far", {
    machine,
    deployment,
    path: repository,
    account: user,
    note: `${state}/adopted.json`,
    client,
    clientSettings: names.settings,
    baseDirectory: `${names.state}/borg`,
    home: settings.cht.home,
    chunker: settings.chunker,
    bucket: bucket === undefined ? "" : bucketPlace(bucket),
    bucketFile: `${bucketNames(deployment).settings}/bucket.json`,
    passphrase: settings.passphrase,
  });
}
