/** What Pulumi runs: the machines are asked, all at once, before anything is made; index.ts says what is made. */
import { RunError } from "@pulumi/pulumi";
import { missingAwsCredential } from "./components/aws-credentials";
import { passOverEngineEnd } from "./components/engine-ended";
import { askMachines } from "./components/survey";
import { loadSettings } from "./config";

module.exports = async () => {
  passOverEngineEnd();
  const settings = loadSettings();
  // This computer knows it at once; machines may take a while to answer.
  const missing = missingAwsCredential(settings);
  if (missing !== undefined) throw new RunError(missing);
  const asked = askMachines(settings);
  // The program's files are loaded while the machines answer.
  require("./components/restore-drill");
  require("./components/cht-backup");
  await asked;
  return { ...require("./index") };
};
