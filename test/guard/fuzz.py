"""Random sessions: calls of borg's protocol in any order, with honest, missing, extra and absurd arguments. A session
is made from its seed alone and the ids that are in the repository, so that it can be run again."""

import os
import random
import select

from parts import MANIFEST, Ended, Refused

# fmt: off
METHODS = ["open", "load_key", "save_key", "get", "list", "__len__", "get_free_nonce", "commit_nonce_reservation",
           "put", "delete", "rollback", "commit", "destroy", "break_lock", "check", "scan", "inject_exception",
           "negotiate"]
OTHER = ["close", "serve", "refuse", "put_down", "repository", "__init__", "_rollback", "get_many", "preload", "",
         "\0", "ö"]
EXTRA = {"append_only": False, "make_parent_dirs": True, "wait": False, "save_space": True, "compact": True,
         "repair": True, "threshold": 0.0, "cleanup_commits": True, "storage_quota": 1, "self": None, "create": True,
         "exclusive": None, "lock": False, "zzz": 1}
ABSURD = [None, True, False, 0, 1, -1, 2**31, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), b"",
          b"\0" * 31, b"\0" * 33, b"\xff" * 32, b"x" * 70_000, "text", "/", [], [None] * 5, {}, {"id": 1},
          {b"\xff": [[[]]]}]
# fmt: on


class Mind:
    """What a hostile client decides."""

    def __init__(self, seed, path, ids):
        self.random = random.Random(seed)
        self.path, self.ids = path, ids
        self.own = []
        self.free = None

    def honest(self, method):
        """Arguments as an honest client may have them."""
        of = self.random
        known = of.choice([*self.ids, MANIFEST]) if self.ids else MANIFEST
        if method == "open":
            exclusive = of.random() < 0.8
            return {"path": self.path, "create": False, "lock_wait": 5, "lock": True, "exclusive": exclusive}
        if method in ("get", "delete"):
            return {"id": of.choice(self.own) if self.own and of.random() < 0.5 else known}
        if method == "put":
            id = known if of.random() < 0.3 else of.randbytes(32)
            self.own.append(id)
            return {"id": id, "data": of.randbytes(int(of.expovariate(1 / 8000)) + 1)}
        if method == "list":
            return {"limit": of.choice([None, 1, 5, 100_000]), "marker": of.choice([None, None, known])}
        if method == "commit_nonce_reservation":
            free = self.free or 0
            return {
                "next_unreserved": free + of.choice([1, 1 << 20, 1 << 28, 1 << 40, 1 << 63]),
                "start_nonce": self.free,
            }
        if method == "save_key":
            return {"keydata": of.choice([b"QUJD" * 100, b"x\rid = 00", b"\n[repository]\nid = 00"])}
        if method == "negotiate":
            return {"client_data": {"client_version": (1, 4, 0, 0, 0)}}
        if method == "inject_exception":
            return {"kind": b"divide"}
        return {}

    def call(self):
        """The next call: its name and arguments."""
        of = self.random
        method = of.choice(METHODS) if of.random() < 0.95 else of.choice(OTHER)
        # Such calls are the more telling ones once something is open.
        if of.random() < 0.5:
            method = of.choice(["put", "put", "get", "delete", "commit", "rollback", "commit_nonce_reservation"])
        arguments = self.honest(method)
        if of.random() < 0.3:
            arguments[of.choice([*(arguments or ["x"])])] = of.choice(ABSURD)
        if arguments and of.random() < 0.1:
            del arguments[of.choice([*arguments])]
        if of.random() < 0.2:
            name = of.choice([*EXTRA])
            arguments[name] = EXTRA[name]
        return method, arguments


def play(made, seed, ids, over_sshd=False):
    """One session. Returns what it did, for a message, and the texts of what was refused."""
    mind = Mind(seed, str(made.repository), ids)
    of = mind.random
    done, refused = [], []
    session = made.session(negotiate=False, over_sshd=over_sshd)
    try:
        # Some calls are sent before the answers to others are read, as borg's own client does.
        waiting = 0
        if of.random() < 0.9:
            session.negotiate()
        if of.random() < 0.85:
            session.call("open", **mind.honest("open"))
            done.append("open")
        for _ in range(of.randrange(1, 30)):
            method, arguments = mind.call()
            if method == "commit_nonce_reservation" and waiting == 0 and of.random() < 0.7:
                mind.free = session.call("get_free_nonce")
                arguments["start_nonce"] = mind.free
            done.append(f"{method}({', '.join(f'{name}={str(value)[:40]}' for name, value in arguments.items())})")
            session.send(method, arguments)
            waiting += 1
            if of.random() < 0.7:
                while waiting:
                    waiting -= 1
                    try:
                        session.answer()
                    except Refused as error:
                        done.append(f"  -> {error}")
                        refused.append(error.text if error.kind == "Refused" else "")
        end = of.random()
        if end < 0.15:
            done.append("garbage")
            session.write(of.randbytes(of.randrange(1, 3000)))
        elif end < 0.3:
            done.append("half a call")
            session.write(b"\x83\xa1i\x05\xa1m\xa3put\xa1a\x82\xa2id\xda\x00\x20" + of.randbytes(of.randrange(32)))
        elif end < 0.45 and not over_sshd:
            done.append("kill -9")
            session.kill()
            return done, refused
    except (Ended, Refused) as error:
        done.append(f"  -> {error}")
    # Answers that nobody reads must not keep the server.
    os.close(session.to_server)
    session.to_server = None
    while select.select([session.from_server], [], [], 60)[0] and os.read(session.from_server, 1 << 20):
        pass
    done.append(f"exit code {session.close()}: {session.said().strip()}")
    return done, refused
