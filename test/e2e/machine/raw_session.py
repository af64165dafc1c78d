"""A session of borg's protocol, spoken by hand: what a client may send that isn't borg's own.

Arguments: the command that leads to the server. Standard input: JSON, a list of [method, arguments]; bytes are given as
{"hex": "…"}. Prints a line of JSON for each call: `result` in short, or `error`, in the server's words."""

import json
import subprocess
import sys

from borg.helpers import msgpack


def decoded(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
answers = msgpack.Unpacker(use_list=False)
for number, (method, arguments) in enumerate(json.load(sys.stdin), 1):
    call = {"i": number, "m": method, "a": {name: decoded(value) for name, value in arguments.items()}}
    try:
        server.stdin.write(msgpack.packb(call))
        server.stdin.flush()
    except BrokenPipeError:
        pass
    answer = None
    while answer is None and (block := server.stdout.read1(1 << 20)):
        answers.feed(block)
        answer = next(iter(answers), None)
    if answer is None:
        print(json.dumps({"call": method, "error": "the server ended the session"}))
    elif b"exception_class" in answer:
        words = b" ".join(answer[b"exception_short"]).decode(errors="replace").strip()
        print(json.dumps({"call": method, "error": words}))
    else:
        print(json.dumps({"call": method, "result": type(answer[b"r"]).__name__}))
server.stdin.close()
server.wait(20)
