"""What the tests of the metrics share: the package and the states of the watch on the path, programs that run here."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "hosts"))
sys.dont_write_bytecode = True

RULES = ROOT / "docs" / "monitoring" / "cht-backup.rules.yml"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def running(command, log):
    """A program that runs meanwhile, and is ended with all that it says in a file."""
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def wait_for(what, seconds, log):
    """Until it returns something true. Shows the end of a log where it doesn't in time."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = what()
            if last:
                return last
        except OSError as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {last}\n{Path(log).read_text()[-2000:]}")
