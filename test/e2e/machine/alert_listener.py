"""Take the alerts that are posted to a port, and append each as a line of JSON to a file.

Arguments: port, file.
"""

import http.server
import json
import sys

PORT, PATH = int(sys.argv[1]), sys.argv[2]


class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802 (http.server's name)
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        line = {"path": self.path, "title": message["title"], "message": message["message"]}
        with open(PATH, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


open(PATH, "a", encoding="utf-8").close()
http.server.ThreadingHTTPServer(("", PORT), Listener).serve_forever()
