"""Run a program that can write into a few directories and nowhere else, whatever it is led to.

`borg extract` goes through links that it has made itself, and believes paths that lead upwards, so who can add an
archive could have it write anywhere, as root. Here the kernel says no: the program gets mounts of its own, of which
all are read-only but these directories. Nothing is prepared on the machine, and nothing is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from chtbackup.base import programs

IMPOSSIBLE = 71
"""Exit code where the program wasn't started. (sysexits.h, EX_OSERR; borg has no such code.)"""

# linux/mount.h and its kin. Python knows `unshare` from 3.12 on, and the C library `mount_setattr` from 2.36 on.
NEW_MOUNTS = 0x20000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
MOUNT_SETATTR, HERE, ALL_BELOW = 442, -100, 0x8000
READ_ONLY, NO_DEVICES, NO_LINKS = 0x1, 0x4, 0x200000
KNOWS_CAPABILITY, DROP_CAPABILITY, NO_NEW_PRIVILEGES = 23, 24, 38

KEPT = frozenset({0, 1, 3, 4})
"""CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID: what it takes to give files their owners and modes. None to mount, to make
devices, or to reach another process's files through /proc."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
LOOKING_UP_NAMES = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd", "/run/avahi-daemon")
"""What is left to see of /run, for ssh: the C library asks there for a server's address."""

libc = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """struct mount_attr"""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def command(program: list[str], directory: str, *others: str) -> list[str]:
    """How to start a program that works in `directory` and can write there and into `others`, and nowhere else. Links
    in `directory` are not followed by anyone there."""
    return [*programs.command("confined"), directory, *others, "--", *program]


def must(call: str, *arguments: object) -> None:
    """Call the C library. Raises OSError."""
    if getattr(libc, call)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), call)


def mount(source: str, target: str, kind: bytes | None, flags: int) -> None:
    must("mount", os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), None)


def set_attributes(path: str, below: int = 0, add: int = 0, remove: int = 0) -> None:
    of = Attributes(set=add, clear=remove)
    size = ctypes.c_size_t(ctypes.sizeof(of))
    must("syscall", MOUNT_SETATTR, HERE, os.fsencode(path), below, ctypes.byref(of), size)


def confine(directory: str, others: list[str]) -> None:
    """Take all other places from this process, and from what it will start. Raises OSError."""
    must("unshare", NEW_MOUNTS)
    mount("none", "/", None, RECURSIVE | PRIVATE)
    # By descriptors: what is below /run is still reached by them when something else is mounted there.
    seen = {path: os.open(path, os.O_PATH) for path in LOOKING_UP_NAMES if os.path.isdir(path)}
    writable = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (directory, *others)}
    # Read-only says nothing of pipes, and some of those in /run are listened to by root's programs.
    mount("none", "/run", b"tmpfs", 0)
    for path, descriptor in sorted({**seen, **writable}.items()):  # what holds another comes first
        if path.startswith("/run/"):
            os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, None, BIND)
        os.close(descriptor)
    devices = [path for path in DEVICES if os.path.exists(path)]
    for path in devices:
        mount(path, path, None, BIND)
    set_attributes("/", ALL_BELOW, add=READ_ONLY | NO_DEVICES)
    for path in devices:
        set_attributes(path, remove=NO_DEVICES)
    for path in writable:
        set_attributes(path, remove=READ_ONLY)
    set_attributes(directory, add=NO_LINKS)
    os.chdir(directory)  # until now it was the one that can't be written to
    for capability in range(64):
        if capability not in KEPT and libc.prctl(KNOWS_CAPABILITY, capability, 0, 0, 0) == 1:
            must("prctl", DROP_CAPABILITY, capability, 0, 0, 0)
    must("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def main() -> int:
    words = sys.argv[1:]
    split = words.index("--")
    (directory, *others), program = map(os.path.realpath, words[:split]), words[split + 1 :]
    try:
        confine(directory, others)
    except OSError as error:
        print(
            f"nothing was extracted: this machine can't keep borg to the directory {directory} ({error.filename}:"
            f" {error.strerror}), and an archive that means harm could write elsewhere. It takes Linux 5.14 or newer,"
            " and root that may mount; in a container, one with CAP_SYS_ADMIN. Use another machine",
            file=sys.stderr,
        )
        return IMPOSSIBLE
    with contextlib.suppress(FileNotFoundError):
        os.execvp(program[0], program)
    print(f"there is no {program[0]}", file=sys.stderr)
    return IMPOSSIBLE
