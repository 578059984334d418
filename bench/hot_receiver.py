"""Loopback bench of the receiver's hot path: a blaster process -> receiver -> a real Valkey.

    python bench/hot_receiver.py [--seconds 4] [--size 200] [--only NAME]

The blaster sends pre-encoded 200-byte trade frames: as fast as the receiver takes them (large writes), or paced at
10,000 a second with one write, hence one TLS record, a frame. Printed: frames/s appended and the receiver process's CPU
microseconds a frame (user + system, health and everything included). Targets: DESIGN 13.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime
import hashlib
import json
import multiprocessing
import os
import resource
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from feedmill.exchanges.base import (
    ChannelName,
    Feed,
    FrameKind,
    Outbound,
    Rest,
    RestLimits,
    RestRequest,
    Subscription,
    Topic,
    VenueLimits,
    Verdict,
)
from feedmill.local.embedded import EmbeddedRedis
from feedmill.receiver.service import Receiver
from feedmill.receiver.settings import ReceiverSettings
from feedmill.resources.types import BatchingMode
from feedmill.shared import log
from feedmill.shared.health import Health
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl

TOPIC = "btcusdt@trade"


def frame(size: int, number: int) -> bytes:
    """One unmasked text frame with a trade-like payload of ``size`` bytes."""
    head = (
        f'{{"stream":"{TOPIC}","data":{{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":{number},"p":"16850.01000000"'
    )
    payload = (head + ',"pad":"' + "x" * (size - len(head) - 10) + '"}}').encode()
    if len(payload) < 126:
        return bytes([0x81, len(payload)]) + payload
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, private


def blaster(listener: socket.socket, cert: tuple[Path, Path] | None, size: int, rate: float) -> None:
    """Serve one client: handshake, one acknowledgement, then frames until it goes away."""
    raw, _ = listener.accept()
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client: Any = raw
    if cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*cert)
        client = context.wrap_socket(raw, server_side=True)
    request = b""
    while b"\r\n\r\n" not in request:
        request += client.recv(4096)
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(
        hashlib.sha1(key.split(b":", 1)[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    )
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    client.recv(4096)
    ack = b'{"ok":1}'
    client.sendall(bytes([0x81, len(ack)]) + ack)
    frames = [frame(size, number) for number in range(1000)]
    block = b"".join(frames)
    try:
        if rate <= 0:
            while True:
                client.sendall(block)
        due, number = time.monotonic(), 0
        while True:
            now = time.monotonic()
            while due <= now:
                client.sendall(frames[number % 1000])
                number += 1
                due += 1 / rate
            time.sleep(max(0.0, min(0.0005, due - now)))
    except OSError:
        return


class BenchFeed(Feed):
    limits: ClassVar[VenueLimits] = VenueLimits(300, 300, 50, 100, 100, 6000, 60, None, 30)
    data_prefixes: ClassVar[tuple[bytes, ...]] = (b'{"stream":',)

    def topics(self, subscriptions: Sequence[Subscription]) -> list[Topic]:
        return [Topic(TOPIC, "stream", subscription) for subscription in subscriptions]

    def url(self, socket: str) -> str:
        return self.stream

    def subscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return [Outbound(json.dumps({"id": (number := next_id())}).encode(), number, tuple(topics))]

    def unsubscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return []

    def classify(self, payload: bytes) -> Verdict:
        return Verdict(FrameKind.ACK, 1) if payload == b'{"ok":1}' else Verdict(FrameKind.DATA)


class BenchRest(Rest):
    def instruments(self, natives: Sequence[str]) -> list[RestRequest]:
        return []

    def book_snapshot(self, symbol: str, native: str) -> RestRequest:
        raise NotImplementedError

    def read_limits(self, status: int, headers: Mapping[str, str], body: bytes) -> RestLimits:
        return RestLimits()


async def measure(
    url: str, redis: str, mode: BatchingMode, tls: ssl.SSLContext | None, seconds: float, memory: int, profile: str
) -> dict[str, float]:
    settings = ReceiverSettings(
        shard=ShardRef("bench", "hot", 0),
        replica="b",
        exchange="bench",
        market="Spot",
        stream_url=url,
        rest_url="http://127.0.0.1:1",
        subscriptions=(Subscription("BTC-USDT", "BTCUSDT", ChannelName.TRADES),),
        ssl_context=tls,
        mode=mode,
        max_age=0.03,
        memory=memory,
    )
    receiver = Receiver(
        settings, BenchFeed(url), BenchRest("http://x"), RedisUrl.parse(redis), Health("bench"), log.get_logger()
    )
    stop = asyncio.Event()
    task = asyncio.create_task(receiver.run(stop))
    while not receiver.health.ready()[0]:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    await asyncio.sleep(1.0)
    connection = receiver.supervisor.links[0].connection
    count, cpu, wall = connection.received, time.process_time(), time.monotonic()
    batches = receiver.producer.backlog.last
    profiler = None
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    await asyncio.sleep(seconds)
    if profiler is not None:
        profiler.disable()
        profiler.dump_stats(profile)
    frames = connection.received - count
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    appended = receiver.producer.backlog.last - batches
    peak, paused = receiver.budget.peak, receiver.flow.held_for
    stop.set()
    await task
    return {
        "rate": frames / wall,
        "cpu": cpu / max(1, frames) * 1e6,
        "share": cpu / wall * 100,
        "batch": frames / max(1, appended),
        "peak": peak / 1e6,
        "paused": paused,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_case(pipe: Any, *args: Any) -> None:
    log.configure("bench", level="error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pipe.send(runner.run(measure(*args)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--memory", type=int, default=256, help="MiB budget of the receiver")
    parser.add_argument("--only", default="")
    parser.add_argument("--profile", default="", help="write cProfile data of one case here")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    cases = [
        (f"{wire}-{pace}-{mode.value.lower()}", wire == "tls", rate, mode)
        for wire in ("tls", "plain")
        for pace, rate, modes in (
            ("blasted", 0.0, (BatchingMode.THROUGHPUT, BatchingMode.ADAPTIVE, BatchingMode.LATENCY)),
            ("10k", 10_000.0, (BatchingMode.THROUGHPUT, BatchingMode.ADAPTIVE, BatchingMode.LATENCY)),
        )
        for mode in modes
    ]
    print(
        f"{'case':28} {'frames/s':>10} {'us CPU/frame':>13} {'CPU %':>6} {'frames/batch':>13}"
        f" {'held MB':>8} {'RSS MiB':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        cert = certificate(Path(folder))
        for name, secure, rate, mode in cases:
            if options.only and options.only not in name:
                continue
            with (
                EmbeddedRedis(Path(folder) / f"redis-{name}") as redis,
                socket.create_server(("127.0.0.1", 0)) as listener,
            ):
                port = listener.getsockname()[1]
                sender = context.Process(
                    target=blaster, args=(listener, cert if secure else None, options.size, rate), daemon=True
                )
                sender.start()
                url = f"wss://localhost:{port}" if secure else f"ws://127.0.0.1:{port}"
                here, there = context.Pipe()
                os.environ["SSL_CERT_FILE"] = str(cert[0])
                receiver = context.Process(
                    target=run_case,
                    args=(
                        there,
                        url,
                        redis.url,
                        mode,
                        None,
                        options.seconds,
                        options.memory << 20,
                        options.profile,
                    ),
                )
                receiver.start()
                there.close()
                try:
                    result = here.recv()
                except EOFError:
                    sys.exit(f"{name}: the receiver process failed")
                finally:
                    receiver.join(20)
                    sender.kill()
                    sender.join()
            print(
                f"{name:28} {result['rate']:10,.0f} {result['cpu']:13.2f} {result['share']:6.1f}"
                f" {result['batch']:13.1f} {result['peak']:8.1f} {result['rss']:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
