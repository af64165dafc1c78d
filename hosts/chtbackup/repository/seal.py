"""Seal what a backup has written: it becomes root's, so that nothing that runs as the account which receives backups,
borg included, can change or remove it again, whatever a client makes it do.

- A committed segment belongs to root, mode 0440; so does `config`, which holds the key (0640).
- Directories belong to root, mode 1770: the account can add files, and with the sticky bit it can remove only its own.
- What isn't committed, borg's index and its locks stay the account's.

For the stack it also keeps this package beside the repository (recover_program.py).

Run as root by `cht-repository-seal-DEPLOYMENT.service` after each transaction, and by the stack. See `--help`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from chtbackup.base.text import complain, say
from chtbackup.repository import recover_program
from chtbackup.repository.files import read, write
from chtbackup.repository.seals import CannotSeal, Repository, Seals, named
from chtbackup.repository.tryout import try_out

FINISHING = 300  # seconds that borg may take from a transaction's COMMIT to its index


def seal_all(repository: Repository) -> Seals:
    """Seal until nothing is finished that isn't sealed. What borg is about to finish is waited for: it starts this
    program before it writes its index, and nothing does after that."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{repository.state}/spool/seal")  # the guard's wish, which is met from here on
    seals = repository.seal()
    end = time.monotonic() + FINISHING
    while repository.exists() and time.monotonic() < end:
        finishes = repository.finishes()  # asked first: what is finished in between is seen as finished
        if repository.finished() != seals.transaction:
            seals = repository.seal()
        elif finishes:
            time.sleep(0.2)
        else:
            break
    return seals


def problem(repository: Repository, seals: Seals) -> str | None:
    """What an operator must do about what couldn't be sealed; None where there is nothing."""
    if seals.strangers:
        return (
            f"{repository.path}: {named(seals.strangers)} belongs to an account that this machine doesn't know for this"
            " deployment (a disk from another machine?). `pulumi up` takes it over"
        )
    if seals.unsealed:
        return f"{repository.path}: {named(seals.unsealed)} can't be sealed"
    return None


def seen(seals: Seals, recover: list[str]) -> dict[str, Any]:
    """What `look` prints: the newest transaction; what isn't sealed, in words for a preview, empty where all is; and
    the SHA-256 of each program for a recovery beside the repository."""
    missing = [*seals.unsealed, *seals.strangers]
    return {"transaction": seals.transaction, "unsealed": named(missing), "recover": recover}


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotSeal(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


def act(action: str, settings: dict[str, Any]) -> int:
    repository = Repository(settings)
    if action == "look":
        say(json.dumps(seen(repository.look(), recover_program.look(repository.path))))
        return 0
    repository.prepare()
    with open(f"{repository.state}/seal.lock", "a") as lock:
        # One after another: a walk that seals would go on among what `open` has just given to the account.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return change(action, repository, settings["user"])


def change(action: str, repository: Repository, user: str) -> int:
    if action == "open":
        # First: a transaction of the maintenance must not have all sealed in its middle.
        write(repository.maintenance, time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()), 0o600, 0)
        repository.open()
        say(f"{repository.path} is open: the account {user} can change and delete what is in it")
        return 0
    if action in ("close", "adopt"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(repository.maintenance)
    elif os.path.exists(repository.maintenance):
        say(f"open for maintenance since {read(repository.maintenance).strip()}: nothing is sealed until it is closed")
        return 0
    if action == "adopt":
        try_out(repository)
        repository.seal(adopt=True)
        recover_program.keep(repository.path)
    seals = seal_all(repository)
    # Its change starts the audit, which starts this program.
    if seals.transaction is not None and repository.sealed() != seals.transaction:
        write(repository.marker, f"{seals.transaction}\n", 0o644, 0)
    why = problem(repository, seals)
    if why is not None:
        raise CannotSeal(why)
    say("nothing to seal yet" if seals.transaction is None else f"sealed up to transaction {seals.transaction}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Make what backups have written into a borg repository root's, for good. `seal` seals what is"
        " finished; `adopt` first tries whether seals hold on this file system, takes over what belongs to an"
        " account of another machine, and puts the program for a recovery beside the repository; `look` prints as JSON"
        " what isn't sealed; `open` breaks all seals, for maintenance"
        " as the account, and none is made until `close`.",
        epilog="Exit codes: 0 done, 2 not done or not all, the reason is named.",
    )
    parser.add_argument("action", choices=("seal", "adopt", "look", "open", "close"), metavar="ACTION",
                        help="seal, adopt, look, open or close")  # fmt: skip
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-server/DEPLOYMENT/repository.json")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        with plain_errors():
            with open(options.settings, encoding="utf-8") as file:
                settings = json.load(file)
            return act(options.action, settings)
    except CannotSeal as error:
        complain(error)
        return 2
