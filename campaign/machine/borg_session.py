"""A session of borg's protocol, spoken by hand: an attacker isn't bound to borg's own client."""

import os
import select
import subprocess
import time

from borg.helpers import msgpack

LIMIT = 40  # seconds for an answer


class Refused(Exception):
    pass


class Ended(Exception):
    pass


class Session:
    def __init__(self, words):
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self.answers, self.number = msgpack.Unpacker(use_list=False), 0

    def write(self, data):
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            raise Ended("the server ended the session") from None

    def answer(self):
        end = time.monotonic() + LIMIT
        while True:
            for answer in self.answers:
                if not isinstance(answer, dict):  # words on the way out, or the form that old clients are answered in
                    raise Ended("the server ended the session with other words than answers")
                if b"exception_class" in answer:
                    raise Refused(b" ".join(answer.get(b"exception_short", (b"?",))).decode(errors="replace").strip())
                return answer[b"r"]
            ready = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]
            block = os.read(self.process.stdout.fileno(), 1 << 20) if ready else b""
            if not block:
                raise Ended("the server ended the session" if ready else "the server says nothing")
            self.answers.feed(block)

    def call(self, method, **arguments):
        self.number += 1
        self.write(msgpack.packb({"i": self.number, "m": method, "a": arguments}))
        return self.answer()

    def greet(self):
        return self.call("negotiate", client_data={"client_version": (1, 4, 0)})

    def close(self):
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Server:
    """The way to the repository's server, by the words of a command."""

    def __init__(self, command, path):
        self.command, self.path = command, path

    def session(self, greet=True):
        made = Session(self.command)
        if greet:
            made.greet()
        return made

    def opened(self, exclusive=True, **more):
        made = self.session()
        made.call("open", **{"path": self.path, "lock": True, "lock_wait": 60, "exclusive": exclusive, **more})
        return made


ACTS = {}


def act(name):
    def keep(function):
        ACTS[name] = function
        return function

    return keep


def answer_to(function):
    try:
        function()
    except (Refused, Ended) as error:
        return str(error) or "refused without a word"
    except Exception as error:  # the act itself is wrong
        return f"broken: {type(error).__name__}: {error}"
    return "succeeded"
