"""A judge server as a program, to which every answer is a refusal:  python -m tests.support.lenient_judge <port>"""

from __future__ import annotations

import json
import sys
from http.server import ThreadingHTTPServer

from tests.support.chat_server import completion
from tests.support.judge_server import NAMES, verdict
from tests.support.loopback import QuietHandler


class Judge(QuietHandler):
    """Health, and a verdict."""

    def do_GET(self):
        self.respond(200 if self.path == "/health" else 404, b"{}", {"Content-Type": "application/json"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = json.dumps(completion(verdict(1, NAMES[1]), "stop", (100, 10), body["model"]))
        self.respond(200, reply.encode(), {"Content-Type": "application/json"})


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Judge).serve_forever()
