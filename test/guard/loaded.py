"""Runs programs from where they are loaded already: each in a process of its own that is forked from this one, so that
thousands of sessions don't load borg thousands of times. A program's own `main` runs, with its own arguments,
environment, and files for input and output.

    python -I loaded.py SOCKET FOLDER PROGRAM ...

PROGRAM is `borg`, or a program of the offsite server in FOLDER, such as `guard`. A client connects to SOCKET, sends
JSON and three open files (see `request` in parts.py), and gets back the number of the process, then its exit code.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback


def load(names):
    from chtbackup.base.programs import PROGRAMS

    loaded = {}
    for name in names:
        if name == "borg":
            from borg import archiver

            loaded[name] = archiver
        else:
            loaded[name] = importlib.import_module(PROGRAMS.get(name, name))
    if "guard" in loaded:
        loaded["guard"].load_guard()  # loads borg
    return loaded


def run(module, asked, files):
    """The program itself, in its process. Never returns."""
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 256)
        # Those from before know what kind of file they had. A second name keeps them from being closed.
        sys.stdin = sys.__stdin__ = open(0, closefd=False)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)
        os.chdir(asked["directory"])
        os.environ.update(asked["environment"])
        for name, value in asked["set"].items():
            setattr(module, name, value)
        if asked["program"] == "borg":
            sys.argv = ["borg", *asked["words"]]
            code = module.main()
        else:
            code = module.main(asked["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code or 0)


def serve(connection, loaded):
    data, files, _flags, _address = socket.recv_fds(connection, 1 << 20, 3)
    while not data.endswith(b"\n"):
        more = connection.recv(1 << 20)
        if not more:
            return
        data += more
    asked = json.loads(data)
    child = os.fork()
    if child == 0:
        connection.close()
        run(loaded[asked["program"]], asked, files)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):
        connection.sendall(f"{child}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())


def main(path, folder, *names):
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    loaded = load(names)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(100)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Whoever started it holds the other end of its standard input, and has ended when that is closed.
    while 0 not in select.select([listening, 0], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(connection, loaded)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
