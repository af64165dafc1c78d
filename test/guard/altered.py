"""Runs a program with another clock, or less patience: `python3 altered.py JSON PROGRAM WORD ...`. Of {"ahead": seconds
that its clock is ahead, "lockWait": seconds for which borg waits for a lock}."""

import json
import os
import runpy
import sys
import time

altered, program, *words = sys.argv[1:]
altered = json.loads(altered)
clock = time.time
time.time = lambda: clock() + altered.get("ahead", 0)
if "lockWait" in altered:
    sys.path.insert(0, os.path.dirname(program))
    from chtbackup.retention import borg

    borg.LOCK_WAIT = altered["lockWait"]
sys.argv = [program, *words]
runpy.run_path(program, run_name="__main__")
