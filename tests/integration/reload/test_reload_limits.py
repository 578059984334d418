"""A wrong manifest is refused while the work goes on; limits, log level and address change on what runs."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROLES = ("receiver-one", "distributor-one", "processor")


async def errors(bed: Any) -> list[str]:
    found = []
    for name in ROLES:
        document = await bed.health(name)
        found.append("no answer" if document is None else document["config"]["error"])
    return found


async def test_a_wrong_manifest_is_refused(start_bed: Any, kit: Any) -> None:
    feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT", "SOL-USDT"])
    bed = await start_bed(feed)
    good = await bed.take_up()
    wrong = {
        "spec.channels[0]": (bed.text.replace("{name: Trades}", "{name: Trade}"), ROLES),
        "YAML": ("kind: [", ROLES),
        "no longer in the files": (
            bed.pipeline + feed.text(bed.simulation).replace("name: one", "name: two"),
            ROLES[:2],
        ),
        "spec.receiver.shards changed from 1 to 2": (
            bed.text.replace("{reconnect", "{shards: 2, reconnect"),
            ROLES[:2],
        ),
        "spec.exchange": (bed.text.replace("market: Spot", "market: UsdM"), ROLES),
    }
    for reason, (text, refuse) in wrong.items():
        refused = bed.write(text)

        async def told(refuse: Any = refuse, refused: str = refused) -> bool:
            """By all: one that takes it up, but only later, would work by it when the next one is refused."""
            found = {name: (await bed.health(name))["config"] for name in ROLES}
            return all(
                told["error"] if name in refuse else told["hash"] == refused and not told["pending"]
                for name, told in found.items()
            )

        await kit.until(told)
        await bed.until_emitted(300)
        for name in refuse:
            document = await bed.health(name)
            assert document["config"]["hash"] == good != refused
            assert not document["config"]["pending"]
            if reason != "YAML":
                assert reason in document["config"]["error"], document["config"]["error"]
            lines = await kit.until(partial(bed.services[name].logged, "config.refused"))  # A moment after it is so.
            assert any(line["level"] == "error" for line in lines)
        await bed.take_up()

        async def well() -> bool:
            return not any(await errors(bed))

        await kit.until(well)
    for name in ROLES[:2]:
        assert await bed.metric(name, 'feedmill_config_reloads_total{outcome="refused"}') == len(wrong)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert report.venues[0].trades.emitted == report.venues[0].trades.stored
    assert (await bed.stats(feed.venue))["connects"] == {"accepted": 1}


async def test_limits_and_log_level_change_on_what_runs(start_bed: Any, kit: Any) -> None:
    feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT"], log_level="Warning")
    bed = await start_bed(feed)
    assert bed.services["receiver-one"].logged("receiver.start") == []
    await bed.until_emitted(1000)
    feed.log_level = "Info"
    feed.receiver = "{memory: 32Mi, batching: {mode: Latency}, reconnect: {maxBackoff: 7s, silenceTimeout: 20s}}"
    feed.distributor = "{gapGrace: 3s, imageInterval: 1s}"
    servers = "redis: {urlSecretRef: {name: servers, key: redis}, "
    assert servers in bed.pipeline
    bed.pipeline = bed.pipeline.replace("failureThreshold: 5", "failureThreshold: 9")
    bed.pipeline = bed.pipeline.replace(servers, servers + "confirm: {replicas: 1}, ")
    await bed.take_up()
    document = await bed.health("receiver-one")
    assert document["redis"]["confirmReplicas"]["wanted"] == 1
    assert document["session"]["budgetBytes"] == 32 << 20
    assert await bed.metric("receiver-one", "feedmill_receiver_budget_bytes") == 32 << 20
    # What is logged at Info is only there because the level follows.
    assert len(await kit.until(lambda: bed.services["receiver-one"].logged("config.applied"))) == 1
    await kit.until(lambda: bed.services["distributor-one"].logged("checkpoint.loaded"))
    await bed.until_emitted(1000)
    feed.receiver = "{memory: 16Mi, batching: {mode: Throughput, maxAge: 30ms}}"
    feed.log_level = "Error"
    bed.pipeline = bed.pipeline.replace("confirm: {replicas: 1}, ", "")
    await bed.take_up()

    async def rests() -> bool:
        found = (await bed.health("receiver-one"))["connections"]["stream"]
        return bool(found["restMilliseconds"] == 30.0)

    await kit.until(rests)
    await bed.until_emitted(1000)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    (found,) = report.venues
    assert found.trades.emitted == found.trades.stored
    assert found.tickers.emitted == found.tickers.stored
    assert await bed.rows("SELECT id FROM gaps") == []
    assert (await bed.stats(feed.venue))["connects"] == {"accepted": 1}


async def test_another_address_is_proven_before_the_old_one_is_left(start_bed: Any, kit: Any) -> None:
    feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT"])
    bed = await start_bed(feed)
    await bed.until_emitted(1000)
    target = bed.simulation.endpoints[feed.venue].stream.removeprefix("ws://")
    host, _, port = target.rpartition(":")
    passed = 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal passed
        passed += 1
        to_reader, to_writer = await asyncio.open_connection(host, int(port))

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    # An address where nobody listens: the old connection goes on. It is kept, so that nobody else gets it meanwhile.
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))
    address = nobody.getsockname()
    feed.stream = f"ws://{address[0]}:{address[1]}"
    await bed.take_up()

    async def tried() -> bool:
        return bool("failure" in (await bed.health("receiver-one"))["connections"]["stream"])

    await kit.until(tried)
    await bed.until_emitted(500)
    server = await asyncio.start_server(carry, sock=nobody)
    try:

        async def moved() -> bool:
            found = (await bed.health("receiver-one"))["connections"]["stream"]
            return bool(passed and found["state"] == "open" and found["number"] > 1)

        await kit.until(moved)
        await bed.until_emitted(1000)
        report = await bed.settled()
    finally:
        server.close()
    assert report.ok, bed.explain(report)
    (found,) = report.venues
    assert found.trades.emitted == found.trades.stored
    assert found.tickers.emitted == found.tickers.stored
    assert await bed.rows("SELECT id FROM gaps WHERE channel <> 'Book'") == []
