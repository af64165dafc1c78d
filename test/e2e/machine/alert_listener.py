"""Take the alerts that are posted to a port, and pings, which are plain text; append each as a line of JSON to a file.

Arguments: port, file.
"""

import http.server
import json
import sys

PORT, PATH = int(sys.argv[1]), sys.argv[2]


class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802 (http.server's name)
        said = self.rfile.read(int(self.headers["Content-Length"]))
        alert = self.headers["Content-Type"] == "application/json"
        message = json.loads(said) if alert else {"title": "ping", "message": said.decode(), "type": "ping"}
        line = {"path": self.path, **{name: message[name] for name in ("title", "message", "type")}}
        with open(PATH, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


open(PATH, "a", encoding="utf-8").close()
http.server.ThreadingHTTPServer(("", PORT), Listener).serve_forever()
