"""Reads every archive of a repository with borg's own code, each chunk decrypted and authenticated, in one session.
Prints JSON: a SHA-256 for each file, by archives' names.

Much cheaper than `borg extract` for one archive after another, which other tests do."""

import hashlib
import json

from borg.archive import Archive
from borg.archiver import Archiver, Manifest, with_repository
from borg.logger import setup_logging


@with_repository(compatibility=(Manifest.Operation.READ,))
def read(_archiver, _args, repository, manifest, key):
    found = {}
    for name in manifest.archives:
        archive = Archive(repository, key, manifest, name)
        files = found[name] = {}
        for item in archive.iter_items():
            if "chunks" in item:
                digest = hashlib.sha256()
                for data in archive.pipeline.fetch_many([chunk.id for chunk in item.chunks]):
                    digest.update(data)
                files[item.path] = digest.hexdigest()
    print(json.dumps(found))
    return 0


def main(words):
    setup_logging(level="warning")
    archiver = Archiver()
    return read(archiver, archiver.parse_args(["--lock-wait", "20", "list", *words]))
