"""Bring a CHT back with a recovery kit on paper: from the backup server, the bucket, or a repository at hand.

`restore` does the work, as for `npm run restore`; this program gives it what the paper knows. Nothing of this project
is needed but this package in one file. See `--help`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys

from chtbackup.base.text import complain, plain, say
from chtbackup.recover import access, archives, key
from chtbackup.recover.archives import KIT, RIGHT, SHOWN, Refused, read_kit, work_of
from chtbackup.recover.paper import Mistyped, Paper

REFUSED, STOPPED = 2, 143
STEPS = """How a CHT is brought back with the recovery kit. RECOVER is `python3 recover-….pyz` here; run it as root.

1. Put the lines of the page's part A into /run/kit (in memory only):  (umask 077; cat > /run/kit)
   Paste or type them, then Enter and Ctrl-D.
2. RECOVER list            what the backup server holds. The first time it prints a line for root on the server.
   RECOVER list --from bucket        the same from the bucket, or --from DIRECTORY of a repository at hand
3. RECOVER restore         the newest archive, proven before it is put in its place; add --from as in 2
   RECOVER restore --archive NAME    another one; --as-of 2026-11-21 the newest of that day or before
   RECOVER restore --start           and start the containers; --dry-run only says what would be done
4. RECOVER tidy            removes passphrase and keys from this machine.

If the repository has lost its key:  RECOVER key DIRECTORY SUM  on the machine that holds it; the sum is on the page.
Each may be run again; what was interrupted goes on. RECOVER COMMAND --help tells more.
"""


def put_key(options: argparse.Namespace) -> int:
    if sys.stdin.isatty():
        say("Paste or type the key of part B, then Enter and Ctrl-D:")
    key.put(options.directory, sys.stdin.read(), options.sum)
    say(f"{options.directory} has its key again")
    return RIGHT


def tidy(options: argparse.Namespace) -> int:
    known = read_kit(options.kit) if os.path.exists(options.kit) else Paper()
    work = work_of(known)
    if os.path.exists(f"{work}/switch.json"):
        raise Refused("a restore was interrupted while it put things in place: run `restore` again first")
    for path in (f"{work}/recover", f"{work}/repository"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (f"{work}/repository.fetched.json", f"{work}/repository.lock", options.kit):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    say("removed: passphrase, keys, and a fetched repository")
    if "repository" in known.facts:
        say("Root on the backup server shuts this machine out by this line (else its week does):")
        say(access.shut_out(known.facts["repository"]))
    return RIGHT


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="recover.pyz", usage="%(prog)s [-h] {list,restore,key,tidy} ...",
        description=STEPS, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 done, and everything checked is right; 1 a check failed, which is named; 2 refused or not"
        "\npossible, the reason is named; 143 stopped: run it again, it goes on from there.",
    )  # fmt: skip
    actions = top.add_subparsers(dest="action", metavar="ACTION", required=True)
    kit = argparse.ArgumentParser(add_help=False)
    kit.add_argument("--kit", metavar="FILE", default=KIT, help=f"the lines of the page's part A; default {KIT}")
    source = argparse.ArgumentParser(add_help=False, parents=[kit])
    source.add_argument("--from", dest="source", metavar="SOURCE", default="server",
                        help="server (the default), bucket, or the directory of a repository at hand")  # fmt: skip
    source.add_argument("--server", metavar="ADDRESS[:PORT]", help="where the server is, seen from here")
    source.add_argument("--copy-as-of", metavar="TIME", help="bucket: the newest copy that was finished by then (UTC)")
    of = actions.add_parser("list", parents=[source], help="list the archives, the newest first")
    of.add_argument("--last", type=int, metavar="N", default=SHOWN, help=f"how many; 0: all; default {SHOWN}")
    of.set_defaults(run=archives.list_archives)
    of = actions.add_parser("restore", parents=[source], help="put the CHT back on this machine")
    of.add_argument("--archive", metavar="NAME", help="this archive. Default: the newest finished one")
    of.add_argument("--as-of", metavar="TIME", help="the newest one begun by then: 2026-11-21, 2026-11-21T14:00:00Z")
    of.add_argument("--start", action="store_true", help="start the containers, and ask CouchDB and nginx")
    of.add_argument("--dry-run", action="store_true", help="say what would be done, and put nothing in its place")
    of.add_argument("--replace", action="store_true", help="move aside what is there, instead of refusing")
    of.add_argument("--despite-problems", action="store_true",
                    help="put it in place although checks failed, when there is no better archive")  # fmt: skip
    of.set_defaults(run=archives.restore)
    of = actions.add_parser("key", help="put the key of part B back into a repository here that lost its own")
    of.add_argument("directory", metavar="DIRECTORY")
    of.add_argument("sum", metavar="SUM", help="what the page has of the key: 16 hexadecimal digits")
    of.set_defaults(run=put_key)
    of = actions.add_parser("tidy", parents=[kit], help="remove passphrase, keys and a fetched repository")
    of.set_defaults(run=tidy)
    return top


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        for line in STEPS.splitlines():
            say(line)
        return RIGHT
    options = parser().parse_args(arguments)
    os.umask(0o077)
    try:
        if options.action in ("list", "restore", "tidy") and os.getuid() != 0:
            raise Refused("run it as root (sudo -i)")
        return options.run(options)
    except (Refused, Mistyped, key.WrongKey) as error:
        complain(error)
    except access.NoWayIn as error:
        for line in str(error).splitlines():  # a command to copy is one of them
            complain(line)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error)
    except subprocess.CalledProcessError as error:
        complain(f"{error.cmd[0]} ended with {error.returncode}: {plain(str(error.stderr).strip()[-200:])}")
    except KeyboardInterrupt:
        complain("stopped; the next run goes on from here")
        return STOPPED
    return REFUSED
