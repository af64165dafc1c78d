"""Retention that is killed anywhere: the program, the borg that it runs, both, or the operator's side.

RETENTION_KILLS says how often (default 4, each way once), SEED which places; a failure names both."""

import os
import random
import time
from pathlib import Path

from parts import with_newest_borg

from removing import Removing, children_of, close, end, end_with_children, go_on


def only_the_program(process):
    end(process.pid)


def only_its_borg(process):
    for pid in children_of(process):
        end(pid)


def the_operators_side(process):
    process.stdin.close()


WAYS = (end_with_children, only_the_program, only_its_borg, the_operators_side)


@with_newest_borg
class RetentionKilled(Removing):
    def test_is_finished_by_the_next_one_wherever_it_was_killed(self):
        begin = time.monotonic()
        self.run_it()
        whole = time.monotonic() - begin
        seed = int(os.environ.get("SEED") or time.time())
        chosen = random.Random(seed)
        stages = []
        for number in range(int(os.environ.get("RETENTION_KILLS") or 4)):
            way, after = WAYS[number % len(WAYS)], chosen.uniform(0, whole)
            self.setUp()
            process = self.start("apply")
            time.sleep(after)
            stages.append(self.stage())
            with self.subTest(seed=seed, number=number, way=way.__name__, after=f"{after:.2f} of {whole:.2f} s"):
                way(process)
                process.wait()
                close(process)
                # A borg whose program was killed alone goes on, and the next run waits for it.
                self.finished_by_the_next()
        print(f"RETENTION_KILLS={len(stages)} SEED={seed}, killed at: {', '.join(stages)}")

    def test_leaves_no_finding_for_the_audit_where_its_borg_was_killed_while_it_compacted(self):
        process = self.stopped_at("compact")
        time.sleep(0.3)  # somewhere in it, or after it: its number stays taken until retention goes on
        only_its_borg(process)
        go_on(process)
        process.wait()
        close(process)
        self.finished_by_the_next()

    def stage(self):
        """What the journal says of where it is."""
        journal: Path = self.made.state / "retention.json"
        try:
            return journal.read_text().partition('"stage": "')[2].partition('"')[0] or "?"
        except FileNotFoundError:
            return "none"
