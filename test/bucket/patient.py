"""Runs a program whose waits of a minute or more last until somebody says so: `python3 patient.py FOLDER PROGRAM WORD
...`. The seconds that it asks for go into the file `asked` in the folder; it goes on when there is a file `over`."""

import os
import runpy
import sys
import time
from pathlib import Path

folder, program, *words = sys.argv[1:]
asked, over = Path(folder, "asked"), Path(folder, "over")
sleep = time.sleep


def wait(seconds):
    if seconds < 60:
        return sleep(seconds)
    asked.with_suffix(".new").write_text(str(seconds))
    os.replace(asked.with_suffix(".new"), asked)
    while not over.exists():
        sleep(0.02)


time.sleep = wait
sys.argv = [program, *words]
runpy.run_path(program, run_name="__main__")
