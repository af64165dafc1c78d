/** Asks machines what they are like, before anything is made on them: see `survey` in `index.ts`. */
import { Refused, Unreachable } from "./refused";
import type { Machines } from "./resource";

/** What is asked of a machine. */
export interface Question {
  machine: string;
  /** Paths that are there where everything has been put in place before; then it isn't asked what matters only before. */
  known: string[];
  /** A project of Docker Compose; empty: containers aren't asked for. */
  project: string;
  /** A file whose `…COMPOSE_PROJECT_NAME` is told. */
  environment: string;
  /** Packages of the distribution, of which versions are told. */
  packages: string[];
  /** Paths whose kind and room are told. */
  paths: string[];
}

/** What it answered: lines (`scripts/survey.sh`), or why it couldn't be asked. */
export type Answer = { lines: string } | { failed: string };

/** Asks all at the same time, each once. */
export async function look(machines: Machines, questions: Question[]): Promise<Answer[]> {
  return Promise.all(
    questions.map(async ({ machine, known, project, packages, environment, paths }): Promise<Answer> => {
      try {
        const { output } = await machines(machine).read({
          library: "survey",
          name: "survey",
          arguments: [known.join(" "), project, packages.join(" "), environment, ...paths],
        });
        return { lines: output };
      } catch (error) {
        if (error instanceof Refused || error instanceof Unreachable) return { failed: error.message };
        throw error;
      }
    }),
  );
}
