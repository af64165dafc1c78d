"""Run one of the programs: `python3 /opt/cht-backup/DEPLOYMENT/chtbackup PROGRAM ARGUMENTS`."""

import os
import sys

# Python puts this directory on the path, and the modules in it are imported by the package's name. What runs as root
# leaves no compiled files behind, which nobody would compare with their sources.
sys.path[0] = os.path.dirname(os.path.abspath(sys.path[0]))
sys.dont_write_bytecode = True

from chtbackup.base import programs  # noqa: E402

programs.run(sys.argv[1:])
