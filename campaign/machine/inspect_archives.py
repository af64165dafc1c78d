"""Look at the archives of the lab's repository with eyes of our own, on the CHT machine.

Argument: the deployment. Reads {"known": [ids], "open": [names], "newest": number or null} from standard input: of
those that aren't known the newest ones are opened (null: all), and those that are named. Prints as JSON: `archives`,
name by id of all that are listed; `opened`, by name {"digest": of every file's path, mode and content, "problems":
what the manifest says is wrong}.

borg gets a directory of its own, so that what is broken in the deployment's caches breaks nothing here.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys

DEPLOYMENT = sys.argv[1]
PROGRAMS, SETTINGS = f"/opt/cht-backup/{DEPLOYMENT}", f"/etc/cht-backup/{DEPLOYMENT}"
SCRATCH = "/var/tmp/cht-campaign"
COLLECT = f"run/cht-backup/{DEPLOYMENT}/collect"
sys.path.insert(0, PROGRAMS)
sys.dont_write_bytecode = True

from chtbackup.manifest.copy import Copy  # noqa: E402
from chtbackup.manifest.verify import verify  # noqa: E402

with open(f"{SETTINGS}/settings.json", encoding="utf-8") as file:
    REPOSITORY = json.load(file)["repository"]
ENVIRONMENT = {
    **os.environ,
    "BORG_BASE_DIR": f"{SCRATCH}/borg",
    "BORG_PASSCOMMAND": f"cat {SETTINGS}/passphrase",
    "BORG_RSH": f"ssh -F {SETTINGS}/ssh_config",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "PATH": f"{PROGRAMS}/borg/bin:{os.environ['PATH']}",
}


def borg(*words: str, cwd: str = "/") -> str:
    done = subprocess.run(
        ["borg", "--lock-wait", "240", *words], env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    if done.returncode not in (0, 1) and not 100 <= done.returncode < 128:
        raise OSError(f"borg {words[0]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def digest_of(root: str) -> str:
    whole = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            of = os.lstat(path)
            whole.update(f"{os.path.relpath(path, root)}\0{of.st_mode:o}\0{of.st_size}\0".encode())
            if stat.S_ISREG(of.st_mode):
                with open(path, "rb") as file:
                    whole.update(hashlib.sha256(file.read()).digest())
    return whole.hexdigest()


def opened(name: str) -> dict:
    place = f"{SCRATCH}/place"
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place, mode=0o700)
    try:
        borg("extract", f"{REPOSITORY}::{name}", cwd=place)
        manifests = []
        for part in ("before", "after"):
            with open(f"{place}/{COLLECT}/manifest-{part}.json", encoding="utf-8") as file:
                manifests.append(json.load(file))
        verdict = verify(*manifests, Copy({"": place}), [])
        return {"digest": digest_of(place), "problems": verdict.problems}
    except (OSError, ValueError, KeyError) as error:
        return {"digest": None, "problems": [f"{type(error).__name__}: {error}"]}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    os.makedirs(SCRATCH, mode=0o700, exist_ok=True)
    wanted = json.load(sys.stdin)
    archives = {of["id"]: of["name"] for of in json.loads(borg("list", "--json", REPOSITORY))["archives"]}
    fresh = [name for id, name in archives.items() if id not in wanted["known"]]
    names = {*fresh[-(wanted["newest"] or len(archives) + 1) :], *wanted["open"]} & set(archives.values())
    json.dump({"archives": archives, "opened": {name: opened(name) for name in names}}, sys.stdout)


main()
