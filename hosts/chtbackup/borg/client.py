"""borg, run to read archives. What it says is bounded: an archive may be of somebody who means harm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import IO, Any

from chtbackup.base.errors import NoBackup, Refused
from chtbackup.base.process import end
from chtbackup.base.text import MAX_LINES, say
from chtbackup.borg import json_log, meaning, start
from chtbackup.borg.bounded import LONGEST_LINE, entries, parts, whole
from chtbackup.borg.errors import Damaged, Hostile, TooMuch
from chtbackup.borg.json_log import Message, texts
from chtbackup.borg.meaning import broken_cache, lacks_cause
from chtbackup.borg.start import ask_ssh, borg_version
from chtbackup.manifest.shape import MANIFEST, unreadable
from chtbackup.restore import confined
from chtbackup.restore.listing import hostile

NO_ARCHIVE = "the repository holds no archive"

OLDEST_BORG = (1, 2, 8)  # CVE-2023-36811 and borg's own advice
LONGEST_MANIFEST = 128 * 1024**2
MOST_WARNINGS = 1000
# What borg calls it that something stored isn't there or isn't what was stored.
DAMAGE = ("IntegrityError", "DecompressionError", "ObjectNotFound")
DAMAGE_WORDS = "Did not get expected metadata"  # a plain exception, which borg gives no id of its own


class Borg:
    """One repository, read only. The passphrase goes to borg through a pipe: it is in no argument list, in no
    environment and in no file."""

    lock_wait = 600
    """Seconds to wait for a lock that a backup holds."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.repository: str = request["repository"]
        self.passphrase: str = request["passphrase"]
        self.ssh_config: str | None = request.get("sshConfig")
        self.server: str = request.get("server", "")
        """Where the server is, for messages."""
        self.environment = start.environment(request["baseDirectory"], self.ssh_config)
        self.child: subprocess.Popen[str] | None = None
        self.cache_removed = False
        """Whether it was damaged, and once is enough."""
        self.repository_id = ""
        self.times: dict[str, str] = {}
        """When each archive was begun, UTC, as it says of itself."""
        self.ids: dict[str, str] = {}
        """What was behind each archive's name when it was seen first."""
        self.listed: tuple[str, list[dict[str, Any]]] = ("", [])
        """The archive that was listed last, and its items."""

    def check_version(self) -> None:
        try:
            version = borg_version()
        except NoBackup as error:
            raise Refused(str(error)) from error
        if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST_BORG:
            raise Refused(f"borg {version} is too old: 1.2.8 or newer is needed")

    def run(
        self,
        *arguments: str,
        directory: str = "/",
        writes: bool = False,
        progress: Any = None,
        take: Callable[[IO[str]], Any] = whole,
    ) -> Any:
        """Run borg in a directory and return what `take` makes of its output. Where it `writes` files, it can do so
        there and nowhere else. `progress` is called with the bytes done so far. Raises Refused with the reason in plain
        words. A warning (exit code 1, 100 to 127) is said, not fatal: what is missing is found by comparing with the
        manifest."""
        command = ["borg", "--log-json", "--lock-wait", str(self.lock_wait), *arguments]
        if writes:
            own = [self.environment["BORG_BASE_DIR"], *([self.repository] if self.repository.startswith("/") else [])]
            command = confined.command(command, directory, *own)
        self.child = start.start(
            command,
            self.environment,
            self.passphrase,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            errors="surrogateescape",
        )
        try:
            said: list[Message] = []
            watcher = threading.Thread(target=self._read, args=(self.child.stderr, said, progress))
            watcher.start()
            assert self.child.stdout is not None
            printed = take(self.child.stdout)
            watcher.join()
            code = self.child.wait()
        except BaseException:
            self.stop()
            raise
        if code == confined.IMPOSSIBLE:
            raise Refused(said[-1].text)
        if code == 1 or 100 <= code <= 127:
            for text in texts(said[:MAX_LINES]):
                say(f"note: borg warns: {text}")
        elif code != 0:
            broken = broken_cache(code, said)
            cache = f"{self.environment['BORG_BASE_DIR']}/.cache/borg"
            if broken is not None and not self.cache_removed:
                say(f"note: borg's cache {cache} is unusable, so it is removed and made anew ({broken})")
                shutil.rmtree(cache, ignore_errors=True)
                self.cache_removed = True
                return self.run(*arguments, directory=directory, writes=writes, progress=progress, take=take)
            if self.ssh_config is not None and lacks_cause(code, said):
                said += ask_ssh(self.ssh_config)
            archive = next((word.partition("::")[2] for word in arguments if "::" in word), "")
            raise explain(code, said, archive, self.server)
        return printed

    @staticmethod
    def _read(stream: Any, said: list[Message], progress: Any) -> None:
        for line in iter(lambda: stream.readline(LONGEST_LINE), ""):
            # An archive can make borg warn of each of its files.
            del said[MOST_WARNINGS:-1]
            said += json_log.read(line)
            if progress is not None and (done := json_log.done_so_far(line)) is not None:
                progress(done)

    def stop(self) -> None:
        """End borg and its ssh, gently first so that it gives its lock back."""
        if self.child is not None:
            end(self.child)

    def names(self) -> list[str]:
        return list(self._archives())

    def _archives(self) -> dict[str, str]:
        """The ids of all archives by their names."""
        self.repository_id, found = self.listing()
        self.ids = {**found, **self.ids}
        return found

    def listing(self, *options: str) -> tuple[str, dict[str, str]]:
        """The repository's id, and those of its archives by their names."""
        listed = json.loads(self.run("list", "--json", *options, self.repository))
        self.times = {of["name"]: str(of.get("time", "")) for of in listed["archives"]}
        return listed["repository"]["id"], {of["name"]: of["id"] for of in listed["archives"]}

    def changed(self) -> dict[str, str]:
        """Names that no longer stand for what they stood for when they were seen first, and what has happened."""
        now = self._archives()
        what = {name: "another one has got its name" if name in now else "it was deleted" for name in self.ids}
        return {name: what[name] for name, known in self.ids.items() if now.get(name) != known}

    def require_same(self, archive: str) -> None:
        """See to it that an archive's name still means what it did when it was chosen: borg finds archives by their
        names alone, each time anew. Raises Hostile."""
        if what := self.changed().get(archive):
            raise exchanged(archive, what)

    def extract(self, archive: str, options: list[str], *paths: str, directory: str, progress: Any) -> None:
        """Extract into a directory, and nowhere else. Raises Hostile where the archive is another one afterwards."""
        location = f"{self.repository}::{archive}"
        words = ["extract", "--numeric-ids", "--progress", *options, location, *paths]
        self.run(*words, directory=directory, writes=True, progress=progress)
        self.require_same(archive)

    def manifests(self, archive: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The two parts of an archive's manifest; a part that isn't there is None. Raises Refused, for an archive
        that is hostile, too."""
        kinds = {of["path"]: of["type"] for of in self.items(archive)}
        paths = [path for path, kind in kinds.items() if kind == "-" and MANIFEST.fullmatch(path)]
        if not paths:
            return None, None
        if len(paths) > 2:
            raise Hostile(f"{archive} may be hostile: it holds more than one manifest")
        # Nothing is written to this machine. (`pf:` would do, but borg 1.2 warns that it never matched.)
        exact = [f"re:^{re.escape(path[1:])}\\Z" for path in paths]
        location = f"{self.repository}::{archive}"
        try:
            found = parts(
                self.run("extract", "--stdout", location, *exact, take=lambda of: whole(of, LONGEST_MANIFEST))
            )
        except TooMuch as error:
            raise Hostile(f"{archive} may be hostile: its manifest holds {error}") from None
        except ValueError as error:
            raise Refused(f"{archive}: its manifest is not in order: {error}") from None
        before, after = found.get("before"), found.get("after")
        if before is None:
            return None, None
        if why := unreadable(before, after, kinds):
            raise Refused(f"{archive}: {why}")
        return before, after

    def items(self, archive: str) -> list[dict[str, Any]]:
        """Everything in an archive: `type`, `path` (absolute), `size` (bytes), `isomtime` (UTC). Raises Refused for
        an archive that must not be extracted."""
        if self.listed[0] == archive:
            return self.listed[1]
        form = "{type}{path}{size}{isomtime}{linktarget}"
        try:
            items = self.run(
                "list", "--json-lines", "--format", form, f"{self.repository}::{archive}", take=entries
            )  # fmt: skip
            why = hostile(items)
        except TooMuch as error:
            why = str(error)
        if why:
            raise Hostile(
                f"{archive} was not made by a backup of this program and may be hostile: it holds {why}. Don't extract"
                " it, not by hand either; take another archive, and find out who added this one"
            )
        self.listed = archive, [{**of, "path": f"/{of['path']}"} for of in items]
        return self.listed[1]


def exchanged(archive: str, what: str) -> Hostile:
    return Hostile(
        f"{archive} isn't the archive any more that was looked at: {what}. Nothing of it is put in place. Where no"
        " retention has just deleted it, somebody may mean harm: don't extract it by hand either, find out who did"
        " this, and take another archive or another copy of the repository"
    )


def explain(code: int, said: list[Message], archive: str = "", server: str = "") -> Refused:
    """Why borg can't read, in words for the operator, with borg's own after them."""
    damage = next((of.text for of in said if of.kind in DAMAGE or DAMAGE_WORDS in of.text), None)
    if damage is None:
        text = meaning.explain(code, said)
        if server and re.match("the backup server('s name)? can't be (reached|resolved)", text):
            text += f". This machine must reach the server's SSH at {server}: see the setting cht-backup:server.address"
        return Refused(text)
    return Damaged(
        f"the repository is damaged: a part of {f'the archive {archive}' if archive else 'it'} can't be read or isn't"
        f" what was stored ({damage}). Take another archive (`npm run archives`), or another copy of the repository"
    )
