"""The loopback exchange: Binance Spot's protocol over TLS, as one process told what to send over stdin.

``python -m bench.server --cert C --key K --symbols A,B``; it prints ``{"event": "listening", "port": P}`` and then one
JSON line an event. Commands, one JSON line each:

- ``{"do": "load", "stamps": FILE}``: the table of send times; its length is the number of messages
- ``{"do": "go", "rate": R, "clump": C}``: sends them; ``rate`` 0 = blast (one ``sendall`` a buffer), else paced,
  evenly or C at a time
- ``{"do": "stop"}``

Blocking sockets and a thread a connection: the only thread that works hard is the sender, and ``time.sleep`` paces far
finer than an event loop's timers. Paced frames go out one by one, each in a TLS record and a TCP segment of its own,
as an exchange sends them.
"""

from __future__ import annotations

import argparse
import json
import queue
import select
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.frames import TradeFrames, accept_key, depth, exchange_info, native, server_frame
from bench.stamps import Stamps

CHECK_NS = 20_000_000
"""How often a paced sender looks whether the client said something (pings)."""


def emit(**event: Any) -> None:
    print(json.dumps(event), flush=True)


class Plan:
    """What to send: numbers 0 .. count-1, stamped in ``stamps``."""

    def __init__(self, count: int, stamps: Stamps, bulk: int, rate: float, clump: int) -> None:
        self.count = count
        self.stamps = stamps
        self.bulk = bulk
        self.rate = rate
        self.clump = clump


class Connection:
    """One client. Serves HTTP requests until one of them upgrades to a WebSocket."""

    def __init__(self, sock: ssl.SSLSocket, exchange: Exchange) -> None:
        self.sock = sock
        self.exchange = exchange
        self.received = b""
        self.streams: list[str] = []
        self.combined = True
        self.micros = False

    def run(self) -> None:
        try:
            self.sock.do_handshake()
            while self._request():
                pass
        except (OSError, EOFError) as error:
            if self.streams:
                emit(event="lost", streams=self.streams, error=str(error))
        finally:
            self.exchange.leave(self)
            self.sock.close()

    # HTTP
    def _request(self) -> bool:
        while b"\r\n\r\n" not in self.received:
            data = self.sock.recv(65536)
            if not data:
                return False
            self.received += data
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        url = urlsplit(first.split(" ")[1])
        if headers.get("upgrade", "").lower() == "websocket":
            self._upgrade(url.path, parse_qs(url.query), headers)
            return False
        self._answer(url.path)
        return True

    def _answer(self, path: str) -> None:
        bodies = {"/api/v3/exchangeInfo": self.exchange.info, "/api/v3/depth": depth()}
        body = bodies.get(path, b'{"code":-1,"msg":"not served by the bench"}')
        status = "200 OK" if path in bodies else "404 Not Found"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nx-mbx-used-weight-1m: 20\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.sock.sendall(head.encode() + body)

    # WebSocket
    def _upgrade(self, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> None:
        self.sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(headers["sec-websocket-key"]).encode() + b"\r\n\r\n"
        )
        self.combined = path.startswith("/stream")
        self.micros = query.get("timeUnit", [""])[0].upper() == "MICROSECOND"
        asked = query.get("streams", [""])[0] if self.combined else path.removeprefix("/ws").strip("/")
        if asked:
            self._subscribed([stream for stream in asked.split("/") if stream])
        while True:
            if self._frames() is False:
                return
            try:
                plan = self.exchange.plans.get_nowait() if self.exchange.sender is self else None
            except queue.Empty:
                plan = None
            if plan is not None:
                self._send(plan)
            elif not self.sock.pending():
                select.select([self.sock, *self.exchange.waker_of(self)], [], [], 1.0)
                self.exchange.drain_waker(self)

    def _subscribed(self, streams: list[str]) -> None:
        self.streams.extend(stream for stream in streams if stream not in self.streams)
        self.exchange.join(self)

    def _frames(self) -> bool:
        """Read what the client has sent, without waiting; False when it is gone."""
        self.sock.settimeout(0)
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError("the client closed the connection")
                self.received += data
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        finally:
            self.sock.settimeout(None)
        while (frame := self._next_frame()) is not None:
            opcode, payload = frame
            if opcode == 9:
                self.sock.sendall(server_frame(payload, 10))
            elif opcode == 8:
                self.sock.sendall(server_frame(payload, 8))
                if self.streams:
                    emit(event="closed", streams=self.streams)
                return False
            elif opcode == 1:
                self._command(json.loads(payload))
        return True

    def _next_frame(self) -> tuple[int, bytes] | None:
        data = self.received
        if len(data) < 6:
            return None
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, 2)[0], 4
        elif size == 127:
            size, at = struct.unpack_from("!Q", data, 2)[0], 10
        if len(data) < at + 4 + size:
            return None
        mask = data[at : at + 4]
        body = bytes(byte ^ mask[i & 3] for i, byte in enumerate(data[at + 4 : at + 4 + size]))
        self.received = data[at + 4 + size :]
        return data[0] & 0x0F, body

    def _command(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        self.sock.sendall(server_frame(json.dumps({"result": None, "id": number}).encode()))
        if method == "SUBSCRIBE":
            self._subscribed(list(message["params"]))
        elif method == "UNSUBSCRIBE":
            self.streams = [stream for stream in self.streams if stream not in message["params"]]

    # sending
    def _send(self, plan: Plan) -> None:
        channel = self.streams[0].split("@")[1]
        frames = TradeFrames(self.exchange.symbols, channel, combined=self.combined, micros=self.micros)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffers = self._buffers(plan, frames) if plan.rate == 0 else []
        emit(event="started", channel=channel, at=time.monotonic_ns(), frame_bytes=len(frames.frame(0)))
        cpu, begin = time.process_time(), time.monotonic_ns()
        late = self._blast(plan, buffers) if plan.rate == 0 else self._paced(plan, frames)
        end = time.monotonic_ns()
        emit(event="done", sent=plan.count, begin=begin, end=end, cpu=time.process_time() - cpu, late=late)

    def _buffers(self, plan: Plan, frames: TradeFrames) -> list[bytes]:
        now = time.time_ns()
        frame = frames.frame
        return [
            b"".join(frame(number, now) for number in range(at, min(at + plan.bulk, plan.count)))
            for at in range(0, plan.count, plan.bulk)
        ]

    def _blast(self, plan: Plan, buffers: list[bytes]) -> list[int]:
        times, clock, sendall = plan.stamps.times, time.monotonic_ns, self.sock.sendall
        for index, buffer in enumerate(buffers):
            at = index * plan.bulk
            now = clock()
            for number in range(at, min(at + plan.bulk, plan.count)):
                times[number] = now
            sendall(buffer)
            plan.stamps.sent = min(at + plan.bulk, plan.count)
        return []

    def _paced(self, plan: Plan, frames: TradeFrames) -> list[int]:
        """Returns how late the sender itself was: p50, p99, max in ns."""
        times, clock, sleep, send, make = plan.stamps.times, time.monotonic_ns, time.sleep, self.sock.send, frames.frame
        clump = plan.clump
        step = 1e9 / plan.rate * clump
        begin = clock()
        check = begin + CHECK_NS
        late: list[int] = []
        for number in range(plan.count):
            due = begin + int(number // clump * step)
            frame = make(number)
            now = clock()
            while now < due:
                sleep((due - now) / 1e9)
                now = clock()
            times[number] = now
            send(frame)
            plan.stamps.sent = number + 1
            late.append(now - due)
            if now > check:
                if self._frames() is False:
                    raise EOFError("the client closed the connection")
                check = now + CHECK_NS
        late.sort()
        return [late[len(late) // 2], late[len(late) * 99 // 100], late[-1]]


class Exchange:
    """The listening side: keeps who is subscribed; the first subscribed connection is the one that is sent to."""

    def __init__(self, symbols: list[str], cert: Path, key: Path, port: int) -> None:
        self.symbols = symbols
        self.info = exchange_info(symbols)
        self.plans: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        self.sender: Connection | None = None
        self._lock = threading.Lock()
        self._wake_in, self._wake_out = socket.socketpair()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]

    def accept(self) -> None:
        while True:
            raw, _ = self._listener.accept()
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=Connection(sock, self).run, daemon=True).start()

    def join(self, connection: Connection) -> None:
        wanted = {native(symbol).lower() for symbol in self.symbols}
        with self._lock:
            complete = {stream.split("@")[0] for stream in connection.streams} >= wanted
            if complete and self.sender is None:
                self.sender = connection
                emit(event="subscribed", streams=connection.streams, micros=connection.micros)

    def leave(self, connection: Connection) -> None:
        with self._lock:
            if self.sender is connection:
                self.sender = None

    def waker_of(self, connection: Connection) -> list[socket.socket]:
        return [self._wake_out] if self.sender is connection else []

    def drain_waker(self, connection: Connection) -> None:
        if self.sender is connection and select.select([self._wake_out], [], [], 0)[0]:
            self._wake_out.recv(4096)

    def submit(self, plan: Plan) -> None:
        self.plans.put(plan)
        self._wake_in.send(b"!")


def main() -> None:
    parser = argparse.ArgumentParser(description="Binance Spot over TLS on 127.0.0.1, driven over stdin.")
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    exchange = Exchange(options.symbols.split(","), options.cert, options.key, options.port)
    threading.Thread(target=exchange.accept, daemon=True).start()
    emit(event="listening", port=exchange.port)
    stamps: Stamps | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "stop":
            return
        if command["do"] == "load":
            stamps = Stamps(Path(command["stamps"]))
            emit(event="loaded", count=len(stamps))
        elif command["do"] == "go":
            if stamps is None:
                raise SystemExit("load comes before go")
            count = len(stamps)
            bulk, clump = int(command.get("bulk", 64)), int(command.get("clump", 1))
            exchange.submit(Plan(count, stamps, bulk, float(command["rate"]), clump))


if __name__ == "__main__":
    main()
