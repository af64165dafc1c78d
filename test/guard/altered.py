"""Runs a program with another clock, less patience, or a stop: `python3 altered.py JSON PROGRAM WORD ...`. Of {"ahead":
seconds that its clock is ahead, "lockWait": seconds for which borg waits for a lock, "stopAt": where retention stands
still until it gets SIGCONT: a stage that it has noted, or a command of borg's that it has started}."""

import json
import os
import runpy
import signal
import sys
import time

altered, program, *words = sys.argv[1:]
altered = json.loads(altered)
clock = time.time
time.time = lambda: clock() + altered.get("ahead", 0)
if "lockWait" in altered or "stopAt" in altered:
    sys.path.insert(0, os.path.dirname(program))
    from chtbackup.retention import borg, journal
if "lockWait" in altered:
    borg.LOCK_WAIT = altered["lockWait"]


def came_to(place):
    if altered.get("stopAt") == place:
        del altered["stopAt"]  # once
        os.kill(os.getpid(), signal.SIGSTOP)


if "stopAt" in altered:
    note = journal.Journal.note

    def noted(self, stage, *more):
        note(self, stage, *more)
        came_to(stage)

    def started(self, child):
        self.__dict__["child"] = child
        if child is not None:
            came_to(child.args[3])  # after `borg --lock-wait SECONDS`

    journal.Journal.note = noted
    borg.Borg.child = property(lambda self: self.__dict__["child"], started)
sys.argv = [program, *words]
runpy.run_path(program, run_name="__main__")
