"""Whether a borg that runs still does anything."""

from __future__ import annotations

from chtbackup.base.process import name_of, open_files, work_done

IDLE_LIMIT = 900  # seconds in which nothing at all happens, after which borg isn't waited for any more
# The same for borg itself while its ssh lives: a server may be busy for hours with an index that it lost.
STUCK_LIMIT = 6 * 3600


class Idle:
    """Whether anything still happens in the processes of a run."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, float]] = {}
        """What had been done, and since when it is no more."""

    def look(self, processes: list[int], now: float) -> str | None:
        """Look at what the processes have done by `now` (seconds). Returns in one line what is wrong when it
        is too long that they did anything."""
        work = {process: (name_of(process), work_done(process)) for process in processes}
        # ssh asks the server now and then whether it lives, whatever borg does.
        for who, limit, each in (
            ("borg and its ssh did", IDLE_LIMIT, [done for _name, done in work.values()]),
            ("borg did", STUCK_LIMIT, [done for name, done in work.values() if name != "ssh"]),
        ):
            done, since = sum(of or 0 for of in each), self.seen.get(who)
            if since is None or since[0] != done or not each or None in each:
                self.seen[who] = (done, now)
            elif now - since[1] > limit:
                opened = [path for process in processes for path in open_files(process) if path[0] == "/"]
                opened = [path for path in opened if not path.startswith(("/dev/", "/proc/"))]
                where = f" (the last file it has open is {opened[-1]})" if opened else ""
                return f"{who} nothing for {limit // 60} minutes, so they were stopped{where}"
        return None
