"""What `python3 recover.pyz` runs: a copy of this file lies at the archive's root (see `base/pack.py`)."""

import sys

sys.dont_write_bytecode = True

from chtbackup.base import programs  # noqa: E402

programs.run(["recover", *sys.argv[1:]])
