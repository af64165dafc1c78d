"""What the tests of the host scripts share: the package on the path, and files of a real CouchDB."""

import json
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "hosts"))
sys.path.insert(0, str(ROOT / "provider" / "scripts"))
sys.dont_write_bytecode = True

SERVER = json.loads((ROOT / "test" / "fixtures" / "couchdb-small.json").read_text())
"""What the CouchDB that wrote the files said of them."""


def couchdb() -> tuple[tempfile.TemporaryDirectory, Path]:
    """A fresh copy of the data directory; the first value removes it (`cleanup`)."""
    scratch = tempfile.TemporaryDirectory(prefix="cht-backup-test-")
    with tarfile.open(ROOT / "test" / "fixtures" / "couchdb-small.tar.gz") as archive:
        for member in archive.getmembers():  # no owner: the tests may run as anybody
            archive.extract(member, scratch.name, set_attrs=False)
    return scratch, Path(scratch.name) / "couchdb"
