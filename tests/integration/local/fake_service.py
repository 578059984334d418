"""A stand-in for a service process: serves /health, moves entries through Redis as its role does, or misbehaves."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis

parser = argparse.ArgumentParser()
parser.add_argument("role")
parser.add_argument("--port-file", type=Path)
parser.add_argument("--trace", type=Path, required=True)
parser.add_argument("--behave", default="")
parser.add_argument("--shard", default="default.fake.0")
options = parser.parse_args()
# A plain flag: an Event set in a signal handler waits for ever if the signal came while the main thread held its lock.
stopping = False


def trace(what: str) -> None:
    with options.trace.open("a") as file:
        file.write(f"{options.role} {what}\n")


def on_term(*_: object) -> None:
    global stopping
    trace("term")
    if options.behave != "stubborn":
        stopping = True


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"service": options.role, "ready": True, "waitingFor": {}}
        metrics = f'# TYPE fake_metric gauge\nfake_metric{{role="{options.role}"}} 1\n'
        text = json.dumps(body) if self.path == "/health" else metrics
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


signal.signal(signal.SIGTERM, on_term)
trace("start")
if options.behave == "crash":
    print(json.dumps({"event": "about to fail", "level": "error", "why": "told to"}), flush=True)
    sys.exit(1)
if options.behave == "badconfig":
    print("feed.yaml: spec.shards: 0: write 1 or more", file=sys.stderr, flush=True)
    sys.exit(2)
if options.behave == "crash-once":
    marker = options.trace.with_suffix(".crashed")
    if not marker.exists():
        marker.touch()
        raise RuntimeError("the first life ends here")
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
if options.port_file is not None and options.behave != "silent":
    temporary = options.port_file.with_suffix(".tmp")
    temporary.write_text(str(server.server_port))
    temporary.replace(options.port_file)
url = os.environ.get("REDIS_URL")
client = redis.Redis.from_url(url) if url else None
raw, events, checkpoint, applied = (
    f"fm:{{{options.shard}}}:{name}" for name in ("raw", "events", "checkpoint", "events:applied")
)


def take_next(stream: str, position_of: str, field: str) -> str | None:
    """Id of the first entry after the position kept in a hash, None when there is none."""
    assert client is not None
    answer = client.xread({stream: client.hget(position_of, field) or "0"}, count=1)
    return answer[0][1][0][0] if answer else None


while not stopping:
    time.sleep(0.02)
    if client is None or options.behave == "idle":
        continue
    if options.role == "distributor" and (entry := take_next(raw, checkpoint, "pos")):
        client.xadd(events, {"e": "x"})
        client.hset(checkpoint, "pos", entry)
    if options.role == "processor" and (entry := take_next(events, applied, "stream")):
        time.sleep(0.05)
        client.hset(applied, "stream", entry)
if options.role == "receiver" and client is not None:
    for _ in range(5):
        client.xadd(raw, {"b": "x"})
trace("end")
