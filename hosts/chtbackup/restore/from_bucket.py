"""A restore from the bucket: the repository is fetched first."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from typing import Any

from chtbackup.base.errors import RIGHT, Refused
from chtbackup.borg.client import Borg
from chtbackup.borg.errors import Damaged, Empty

# It imports boto3 when it asks a bucket, so a restore without one doesn't need it.
from chtbackup.bucket import fetch as bucket_fetch
from chtbackup.bucket.errors import BucketError
from chtbackup.restore.needs import require_docker


def from_bucket(
    action: Callable[[dict[str, Any], str], int],
    request: dict[str, Any],
    work: str,
    tell: Callable[[str], None],
    needs_docker: bool = False,
) -> int:
    """Fetch the repository from the bucket, and do what is asked with it. It stays for a next run, and goes when a
    restore has succeeded; where only the repository is asked for, that is all. Raises Refused."""
    place, directory = request["bucket"], request["repository"]
    dry_run, only_list = bool(request.get("dryRun")), "last" in request
    only_fetch = bool(request.get("repositoryOnly"))
    # Before hours of fetching. Which volumes there are is known only after them, but a CHT in Docker has some.
    Borg(request).check_version()
    if needs_docker and not only_fetch:
        require_docker(request)
    try:
        there = bucket_fetch.fetch(place, directory, tell, dry_run)
    except bucket_fetch.Refused as error:
        raise Refused(str(error)) from error
    except BucketError as error:
        raise Refused(f"{error}. What was fetched stays, and the next run goes on from there") from error
    if dry_run and (only_fetch or not there):
        known = "" if only_fetch else ". Which archive it is, and its size, is known once the repository is here"
        tell(f"dry run: nothing was fetched{known}")
        return RIGHT
    if only_fetch:
        # What borg writes there from now on must not be taken for something that another run may change.
        os.remove(f"{directory}.fetched.json")
        tell(f"the repository is in {directory}")
        return RIGHT
    done = False
    try:
        code = action(request, work)
        done = code == RIGHT and not dry_run and not only_list
        return code
    except (Damaged, Empty) as error:
        raise Refused(f"{error}. For an earlier copy in the bucket: --copy-as-of") from error
    finally:
        # The operator may be gone; what the action said or raised counts all the same.
        with contextlib.suppress(OSError):
            if done:
                remove_fetched(directory, tell)
            else:
                tell(f"the fetched repository stays in {directory}; a restore that succeeds removes it")


def remove_fetched(directory: str, tell: Callable[[str], None]) -> None:
    """Remove the repository that was fetched. What can't go stays and is named, as the restore has succeeded: a mount
    point is left empty."""
    try:
        for entry in list(os.scandir(directory)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.remove(entry.path)
        # Last, as it says that the directory is ours to change.
        os.remove(f"{directory}.fetched.json")
        os.rmdir(directory)
    except OSError as error:
        left = os.path.isdir(directory) and os.listdir(directory)
        what = "not all of it could be removed" if left else "it is empty and stays"
        tell(f"note: {directory}, where the repository was fetched to: {what} ({error.strerror})")
    else:
        tell(f"removed: {directory}, the repository that was fetched")
