"""Fetch a borg repository from its copy in a bucket, as one of the finished copies has it, or list the copies.

`npm run restore -- --from bucket` does this by way of the restore; this is a program for itself, too, which a drill
runs. What is asked for comes as one line of JSON on standard input, because it holds the key for reading:
`bucket`, `prefix`, `region`, `endpoint` (null: AWS), `pathStyle`, `accessKeyId`, `secretAccessKey`, perhaps
`sessionToken` (or, for these three, `credentials`: a file as the AWS command line tool has it); `asOf` (a time in UTC,
`2026-11-21T02:00:00Z`) or `copy` (a key that `list` shows, perhaps with the `version` of it that `newest` shows); and
perhaps `repositories`, borg's ids of those that it may be.

Every file is fetched by the version that the copy's index names and compared with its size and checksum, so what was
overwritten, deleted or half uploaded since doesn't matter. The bucket's clock says which copy is the newest: whoever
has the writer's key can add indexes, but can't date them back. borg then reads the directory as any repository; it
asks about one that has moved, so set BORG_RELOCATED_REPO_ACCESS_IS_OK=yes for that command.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from chtbackup.base import text as plain
from chtbackup.base.errors import Refused, Stopped
from chtbackup.base.process import stop_on_signals
from chtbackup.base.text import moment
from chtbackup.bucket.choose import choose, examine
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.copies import copies_in
from chtbackup.bucket.credentials import read_credentials
from chtbackup.bucket.download import Fetch
from chtbackup.bucket.errors import BucketError

FETCHED, REFUSED = 0, 2
DESCRIBED = 40  # an index of a large repository has some megabytes


def connect(request: dict[str, Any]) -> Bucket:
    """Raises Refused for a request that lacks something, BucketError for one that doesn't work."""
    place = {name: request.get(name) for name in ("bucket", "prefix", "region", "endpoint", "pathStyle")}
    file = request.get("credentials")
    keys = [file] if file else [request.get("accessKeyId"), request.get("secretAccessKey")]
    if not all(isinstance(of, str) and of for of in [place["bucket"], place["region"], *keys]):
        raise Refused("bucket, region, accessKeyId and secretAccessKey are needed to read a bucket")
    if file:
        credentials = read_credentials(file)
    else:
        credentials = {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1]}
    if request.get("sessionToken"):
        credentials["aws_session_token"] = request["sessionToken"]
    try:
        return Bucket({**place, "prefix": place["prefix"] or "", "pathStyle": bool(place["pathStyle"])}, credentials)
    except ImportError:
        raise Refused("boto3 is missing: apt-get install python3-boto3") from None


def fetch(request: dict[str, Any], directory: str, say: Callable[[str], None], dry_run: bool = False) -> bool:
    """Fetch what the request asks for into a directory, which is then a repository. Returns whether it is one now:
    after a dry run it may not be. Raises Refused, BucketError and OSError; a run after that goes on from there."""
    there = connect(request)
    of, index = choose(there, request, say)
    say(
        f"copy {index.number}, index/{of.path}, finished {moment(of.modified)}: deployment {index.deployment},"
        f" repository {index.repository}, transaction {index.transaction}"
    )
    return Fetch(there, index, os.path.abspath(directory), say).run(dry_run)


def newest(request: dict[str, Any]) -> dict[str, Any]:
    """The copy that `fetch` would take, and in `remarks` what there is to say against it or against newer ones, which
    are passed over. Raises Refused, BucketError."""
    remarks: list[str] = []
    try:
        of, index = choose(connect(request), request, remarks.append)
    except Refused as error:
        raise Refused("; ".join([str(error), *remarks[:1]])) from None
    return {
        "copy": f"index/{of.path}",
        "version": of.id,
        "finished": moment(of.modified),
        "finishedAt": of.modified,
        "number": index.number,
        "transaction": index.transaction,
        "files": len(index.objects),
        "size": index.size,
        "remarks": remarks,
    }


def list_copies(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every copy in the bucket, the newest first; what they hold only of the newest. Raises Refused, BucketError."""
    there = connect(request)
    copies = copies_in(there)
    lines = []
    for of, index, problem in examine(there, copies[:DESCRIBED]):
        line: dict[str, Any] = {"copy": f"index/{of.path}", "finished": moment(of.modified)}
        if index is not None:
            line |= {"number": index.number, "transaction": index.transaction}
            line |= {"files": len(index.objects), "size": index.size}
        lines.append({**line, "whole": problem is None, **({"problem": problem} if problem else {})})
    return lines + [{"copy": f"index/{of.path}", "finished": moment(of.modified)} for of in copies[DESCRIBED:]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Fetch a borg repository from a bucket, or list the copies in it. The request is read from standard"
        " input: a line of JSON with bucket, prefix, region, endpoint, pathStyle, accessKeyId, secretAccessKey, and"
        " asOf or copy.",
        epilog="Exit codes: 0 fetched, and every file is what the copy's index says; 2 refused or not possible, the"
        " reason is named; 143 stopped: run it again, it goes on from there.",
    )
    parser.add_argument(
        "action",
        choices=("fetch", "list", "newest"),
        help="newest: show which copy `fetch` would take, and fetch nothing",
    )
    parser.add_argument("directory", metavar="DIRECTORY", nargs="?", help="fetch: where the repository goes")
    options = parser.parse_args(arguments)
    if (options.action == "fetch") != (options.directory is not None):
        parser.error("fetch needs a DIRECTORY, the others have none")
    os.umask(0o077)
    stop_on_signals()
    try:
        request = json.loads(sys.stdin.readline())
        if not isinstance(request, dict):
            raise Refused("the request must be a JSON object")
        if options.action != "fetch":
            for line in list_copies(request) if options.action == "list" else [newest(request)]:
                print(json.dumps(line), flush=True)
            return FETCHED
        with only_one(os.path.abspath(options.directory)):
            fetch(request, options.directory, plain.say)
        return FETCHED
    except (Refused, BucketError) as error:
        plain.complain(error)
    except json.JSONDecodeError:
        plain.complain("the request on standard input is no JSON")
    except OSError as error:
        plain.complain(f"{error.filename}: {error.strerror}" if error.filename else error)
    except Stopped as error:
        plain.complain(f"stopped by {error}; the next run goes on from here")
        return 143
    return REFUSED


@contextlib.contextmanager
def only_one(directory: str) -> Any:
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    descriptor = os.open(f"{directory}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        os.remove(f"{directory}.lock")
    except BlockingIOError:
        raise Refused(f"another run is fetching into {directory}") from None
    finally:
        os.close(descriptor)
