"""Connections that end, refuse, fall silent or are renewed; flow control."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve

from feedmill.receiver import link as link_module
from feedmill.receiver import usual
from feedmill.shared import control


async def test_close_after_every_subscribe_makes_no_storm(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    venue.close_after_subscribe = True
    limits = kit.limits(connects=20, connects_window=10.0)
    running = launch(limits=limits, share=1.0, min_backoff=0.001, max_backoff=0.002)
    started = time.monotonic()
    # Half of 20 may go at once, then one a second.
    await kit.until(lambda: venue.connects >= 12)
    passed = time.monotonic() - started
    assert venue.connects <= 10 + passed * 1.0 + 1
    keeper = running.receiver.supervisor.keepers[0]
    assert keeper.backoff.failures >= 10
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    ended = raw.controls(control.Disconnected)
    assert len(ended) == len(raw.controls(control.Connected))
    assert {(d.cause, d.code) for d in ended[:-1]} == {("closed", 1000)}
    assert ended[0].detail == "bye"
    assert [d.conn for d in ended] == sorted({d.conn for d in ended})


async def test_abort_reconnects_with_a_new_number(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    await venue.publish(10)
    await running.received(12)  # Two acknowledge.
    (client,) = venue.clients
    client.transport.abort()
    await kit.until(lambda: venue.connects == 2)
    await running.ready()
    await venue.publish(10)
    await running.received(12)  # Two acknowledge.
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert raw.data() == venue.sent
    assert [(d.conn, d.cause) for d in raw.controls(control.Disconnected)] == [(1, "aborted"), (2, "shutdown")]
    assert [c.conn for c in raw.controls(control.Connected)] == [1, 2]
    by_conn = {1: 0, 2: 0}
    for record in raw.records:
        by_conn[record.conn] = by_conn.get(record.conn, 0) + record.payload.startswith(b'{"stream"')
    assert (by_conn[1], by_conn[2]) == (10, 10)


@pytest.mark.skipif(sys.platform != "linux", reason="resets a connection as Linux does")
async def test_a_reset_right_behind_data_is_noticed(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    """Data and the reset arrive in one turn of the event loop: uvloop then reads once and never again by itself."""
    running = launch()
    await running.ready()
    await venue.publish(10)
    await running.received(12)  # Two acknowledge.
    (client,) = venue.clients
    last = b'{"stream":"btcusdt@trades","data":{"seq":11,"pad":"' + b"x" * 140 + b'"}}'
    venue.sent.append(last)
    descriptor = os.dup(client.transport.get_extra_info("socket").fileno())
    try:
        # Nothing is awaited between the two, so the receiver in this loop finds both.
        assert os.write(descriptor, b"\x81\x7e" + len(last).to_bytes(2, "big") + last) == len(last) + 4
        unspecified = bytes(16)
        assert ctypes.CDLL(None, use_errno=True).connect(descriptor, unspecified, len(unspecified)) == 0
    finally:
        os.close(descriptor)
    await kit.until(lambda: venue.connects == 2)
    await running.ready()
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert raw.data() == venue.sent
    assert [(d.conn, d.cause) for d in raw.controls(control.Disconnected)] == [(1, "aborted"), (2, "shutdown")]


async def test_back_off_is_reset_only_after_stable_data(venue: Any, launch: Any, kit: Any) -> None:
    running = launch(stable_after=0.2)
    await running.ready()
    keeper = running.receiver.supervisor.keepers[0]
    for connects in (2, 3):  # Open and subscribed, but without data: failures add up.
        next(iter(venue.clients)).transport.abort()
        await kit.until(lambda wanted=connects: venue.connects == wanted)
        await running.ready()
    assert keeper.backoff.failures == 2
    link = keeper.link
    while not link.stable:
        await venue.publish(1)
        await asyncio.sleep(0.02)
    next(iter(venue.clients)).transport.abort()
    await kit.until(lambda: venue.connects == 4)
    await running.ready()
    assert keeper.backoff.failures == 1
    await running.stop()


async def test_silence_ends_the_connection(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    # Long at first, so that a machine that is busy for a while does not look like a silent venue.
    running = launch(silence_timeout=60.0)
    await running.ready()
    (client,) = venue.clients
    connection = running.receiver.supervisor.links[0].connection
    for _ in range(8):  # A ping is a sign of life.
        await asyncio.sleep(0.02)
        heard = connection.last_frame
        await client.ping()
        await kit.until(lambda heard=heard: connection.last_frame > heard)
    assert venue.connects == 1
    last = connection.last_frame
    running.receiver.reconfigure(replace(running.receiver.settings, silence_timeout=1.2))
    await kit.until(lambda: venue.connects >= 2)
    assert time.monotonic() - last >= 1.2
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert raw.controls(control.Disconnected)[0].cause == "silent"


async def test_fatal_venue_error_reconnects(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    await next(iter(venue.clients)).send('{"error":"too_many_requests","fatal":1}')
    await kit.until(lambda: venue.connects == 2)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    first = raw.controls(control.Disconnected)[0]
    assert (first.cause, first.detail) == ("error", "too_many_requests")
    assert b'{"error":"too_many_requests","fatal":1}' in raw.frames()


@pytest.mark.parametrize("announced", [False, True])
async def test_renewal_makes_before_it_breaks(
    announced: bool, venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch(limits=kit.limits(connection_lifetime=None if announced else 1.0))
    await running.ready()
    stop = asyncio.Event()

    async def traffic() -> None:
        while not stop.is_set():
            await venue.publish(1)
            await asyncio.sleep(0.005)

    sending = asyncio.create_task(traffic())
    if announced:
        await next(iter(venue.clients)).send('{"event":"shutdown"}')
    await kit.until(lambda: running.receiver.supervisor.keepers[0].link.number == 2)
    stop.set()
    await sending

    async def all_there() -> bool:
        return set((await kit.read_raw(redis_server.url)).data()) >= set(venue.sent)

    await kit.until(all_there)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    order = [
        (type(value).__name__, value.conn)
        for value in raw.controls(control.Connected, control.Disconnected)
        if value.conn <= 2
    ]
    assert order[:3] == [("Connected", 1), ("Connected", 2), ("Disconnected", 1)]
    assert raw.controls(control.Disconnected)[0].cause == "planned"
    # No message was missed: both connections together have all of them.
    assert set(raw.data()) == set(venue.sent)
    index = [i for i, r in enumerate(raw.records) if r.payload in set(venue.sent) and r.conn == 2]
    gone = next(i for i, r in enumerate(raw.records) if r.conn == 1 and b"disconnected" in r.payload)
    assert index[0] < gone


async def test_refusals_are_named(venue: Any, launch: Any, kit: Any) -> None:
    with socket.socket() as mute:  # Bound and not listening: refused, and nobody else gets the port meanwhile.
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        running = launch(stream_url=f"ws://127.0.0.1:{port}")

        def failure() -> Any:
            return running.receiver.health.document()["connections"]["stream"].get("failure")

        refused = await kit.until(failure)
        assert refused["cause"] == "refused"
        assert refused["host"] == f"127.0.0.1:{port}"
        assert "refused" in running.receiver.health.ready()[1]["capturing"]
        await running.stop()


async def test_unresolvable_name_is_named(launch: Any, kit: Any) -> None:
    # A resolver that nobody answers takes its time to say so.
    running = launch(stream_url="ws://no-such-host.invalid/?token=secret", connect_timeout=100.0)
    failure = await kit.until(
        lambda: running.receiver.health.document()["connections"]["stream"].get("failure"), timeout=120
    )
    assert failure["host"] == "no-such-host.invalid:80"
    assert failure["cause"] == "dns"
    assert "secret" not in str(running.receiver.health.document())
    await running.cancel()


async def test_http_429_stops_all_connects(venue: Any, launch: Any, kit: Any) -> None:
    venue.refuse_http = 429
    venue.http_headers = {"Retry-After": "120"}
    running = launch()
    keeper = running.receiver.supervisor.keepers[0]
    await kit.until(lambda: keeper.failure)
    assert (keeper.failure.cause, keeper.failure.retry_after) == ("rate_limited", 120.0)
    assert 100 < running.receiver.supervisor.connects.blocked_for <= 120
    assert venue.connects == 1
    await running.cancel()


async def test_tls_failure_is_named(tmp_path: Path, launch: Any, kit: Any) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with serve(lambda client: client.wait_closed(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        running = launch(stream_url=f"wss://localhost:{port}")
        keeper = running.receiver.supervisor.keepers[0]
        await kit.until(lambda: keeper.failure)
        assert keeper.failure.cause == "tls"
        assert "self-signed" in keeper.failure.detail
        await running.cancel()


async def test_cancellation_while_the_server_does_not_answer(launch: Any, kit: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = launch(stream_url=f"ws://127.0.0.1:{listener.getsockname()[1]}")
        keeper = running.receiver.supervisor.keepers[0]
        await kit.until(lambda: keeper.state == "connecting")
        await running.cancel()


async def test_a_topic_that_falls_silent_is_told_and_asked_for_anew(
    venue: Any, launch: Any, redis_server: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The venue has lost one subscription of two, and keeps the connection."""
    for module in (usual, link_module):
        monkeypatch.setattr(module, "EVERY", 0.05)
    monkeypatch.setattr(usual, "SLEPT", 5.0)  # A busy machine is no stopped one.
    monkeypatch.setattr(usual, "FEW", 5)
    monkeypatch.setattr(usual, "FLOOR", 0.5)
    running = launch()
    await running.ready()
    (keeper,) = running.receiver.supervisor.keepers
    flowing = {"btcusdt@trades", "ethusdt@trades"}

    over = asyncio.Event()

    async def publish() -> None:
        while not over.is_set():
            for name in sorted(flowing & next(iter(venue.subscribed.values()))):
                await venue.publish(1, name)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(publish())
        attention = keeper.link.attention
        await kit.until(lambda: attention._usual.limit(b"ethusdt@trades") is not None)
        assert attention.document()["silentTopics"] == 0
        asked = len(venue.requests)
        next(iter(venue.subscribed.values())).discard("ethusdt@trades")
        # It is unsubscribed and subscribed again, and so heard again; the connection stays.
        await kit.until(lambda: venue.requests[asked:])
        await kit.until(lambda: len(venue.requests) >= asked + 2)
        await kit.until(lambda: attention.document()["silentTopics"] == 0)
        over.set()
    # An orderly end reads no further, so all must have come before it.
    await running.received(len(venue.sent) + len(venue.requests))
    assert [set(request) - {"id"} for request in venue.requests[asked : asked + 2]] == [{"unsub"}, {"sub"}]
    assert all(request.get("sub", request.get("unsub")) == ["ethusdt@trades"] for request in venue.requests[asked:])
    assert venue.connects == 1
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert raw.data() == venue.sent
    assert [gone.topics[0].topic for gone in raw.controls(control.Unsubscribed)][:1] == ["ethusdt@trades"]
