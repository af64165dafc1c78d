"""Random sessions with the guard, of which none may lose anything. `GUARD_SESSIONS` says how many for each borg (of
which one in 15 goes over sshd), `GUARD_SEED` where the seeds begin."""

import os
import time

from fuzz import play
from parts import MANIFEST, Case, with_each_borg

from chtbackup.repository import segment_log

SESSIONS = int(os.environ.get("GUARD_SESSIONS", "40"))
SEED = int(os.environ.get("GUARD_SEED", "0") or time.time())
BATCH = 20
OVER_SSHD = 15
NOT_NOTED = ("nothing to commit", "no repository is open", "a reservation must begin", "check is refused",
             "scan is refused", "inject_exception is refused", "too old", "isn't sealed")  # fmt: skip


class Random(Case):
    sessions = SESSIONS

    def test_sessions_lose_nothing_and_hinder_no_backup(self):
        for seed in range(SEED, SEED + self.sessions):
            if (seed - SEED) % BATCH == 0:
                self.made.reset(sealed=self.sealed)
                noted = 0
            before = self.made.finished()
            done, refused = play(self.made, seed, sorted(self.made.log), over_sshd=seed % OVER_SSHD == 0)
            words = f"GUARD_SEED={seed} GUARD_SESSIONS=1, borg {self.version}:\n" + "\n".join(done)
            self.assertFalse([line for line in done if "Traceback" in line], words)
            # By the log, of which every segment is read, each archive's objects are where they were.
            self.assertEqual(self.made.lost(), [], words)
            noted += sum(not any(of in text for of in NOT_NOTED) for text in refused if text)
            if self.false_manifest(before):
                # It can't be told from a true one without the key; the operator takes it back.
                self.made.roll_back()
            self.made.mark(settled=True)
            if (seed - SEED) % BATCH == BATCH - 1 or seed == SEED + self.sessions - 1:
                with self.subTest(words):
                    found = "\n".join(self.made.audit())
                    self.assertEqual("refused a client" in found, noted > 0, f"{noted} refusals; {found}")
                    self.made.backup(f"after-{seed}", over_sshd=True)
                    self.extract_all()
                self.made.mark()

    def false_manifest(self, before):
        """Whether a list of archives was written since: only a hostile client has written here."""
        new = (path for number, path in self.made.finished().items() if number not in before)
        return any(entry.id == MANIFEST for path in new for entry in segment_log.entries(path))


@with_each_borg
class RandomSessions(Random):
    pass


@with_each_borg
class RandomSessionsWhereNothingIsSealed(Random):
    sealed = False
    sessions = (SESSIONS + 1) // 2
