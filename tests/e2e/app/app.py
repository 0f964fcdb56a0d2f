"""A service that behaves as `behaviour.json` beside it says.

{"version": "1", "mode": "good"}     good: answers with its version
                                     exits: ends at once, with a last word
                                     silent: runs, and never listens
                                     broken: answers 500
"slow": seconds an answer takes      "slow_start": seconds before it listens
"stubborn": true, does not hear SIGTERM
"sours": seconds after which it answers 500
"""

import json
import os
import pathlib
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BEHAVIOUR = json.loads(pathlib.Path(__file__).with_name("behaviour.json").read_text())
MODE = BEHAVIOUR["mode"]
BEGAN = time.monotonic()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self):
        self.respond()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond()

    def respond(self):
        time.sleep(BEHAVIOUR.get("slow", 0))
        body = json.dumps({"version": BEHAVIOUR["version"], "env": os.environ.get("GREETING", "")})
        sour = time.monotonic() - BEGAN > BEHAVIOUR.get("sours", float("inf"))
        self.send_response(500 if MODE == "broken" or sour else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    """Ends its open requests before it goes."""

    daemon_threads = False
    request_queue_size = 128


def main():
    print(f"version {BEHAVIOUR['version']} begins", flush=True)
    if MODE == "exits":
        print("cannot go on: the schema is missing", flush=True)
        sys.exit(3)
    if MODE == "silent":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(1)
    time.sleep(BEHAVIOUR.get("slow_start", 0))
    server = Server(("0.0.0.0", 8080), Answer)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)  # so it ends as soon as it is told to
    server.server_close()


main()
