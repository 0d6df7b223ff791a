"""The stand-in's server: its model answers each request with a judge's label, if the key is right."""

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

FAULT, _, AT = os.environ.get("STAND_IN", "").partition(":")
LABEL = json.dumps({"label": 1, "label_str": "Safe with refusal", "explanation": "it refuses"})
ASKED = []


class Handler(BaseHTTPRequestHandler):
    """Answers /health and /v1/chat/completions."""

    def do_GET(self):
        """The server is ready."""
        self._reply(200, {})

    def do_POST(self):
        """One completion."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(body)
        if FAULT == "dies" and len(ASKED) >= int(AT):
            os._exit(3)
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}" or body["model"] != ARGUMENTS.model:
            self._reply(401, {"error": "another key or model"})
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": LABEL}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        self._reply(
            200,
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage},
        )

    def _reply(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Print nothing."""


parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--port", type=int)
parser.add_argument("--generation-config", choices=["vllm"], required=True)
ARGUMENTS, _ = parser.parse_known_args()
if FAULT == "out_of_memory":
    sys.exit("CUDA out of memory. Tried to allocate 20.00 GiB")
HTTPServer(("127.0.0.1", ARGUMENTS.port), Handler).serve_forever()
