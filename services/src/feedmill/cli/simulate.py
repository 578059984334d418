"""``feedmill simulate``: run simulated exchanges."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from feedmill.simulator.config import (
    VENUES,
    ConfigError,
    Limits,
    SimulatorConfig,
    VenueConfig,
    default_limits,
    parse_accounts,
    parse_mix,
)
from feedmill.simulator.simulator import Simulator

HELP = """Run simulated exchanges: real servers that speak the protocol of Binance Spot, Binance USD-M and Deribit.

They invent a market (seeded, so a run can be repeated) or replay recorded frames, write down everything they emitted in
a LEDGER, and break on demand. Point a feed at them with spec.exchange.endpoints, run the pipeline, then compare the
database with the ledger:

\b
  feedmill simulate --exchange binance/Spot --rate 2000 --ledger ./ledger
  feedmill up -f feed.yaml                     (with the endpoints printed here)
  feedmill verify ./ledger

Break something while it runs (each fault is written to the ledger):

\b
  curl -d '{"kind": "abort"}' http://127.0.0.1:PORT/_sim/fault
  curl -d '{"kind": "drop", "symbol": "BTC-USDT", "channel": "Trades", "count": 3}' \\
    http://127.0.0.1:PORT/_sim/fault
  curl -d '{"kind": "rest_429", "count": 5}' http://127.0.0.1:PORT/_sim/fault

Accounts with keys, orders, fills and balances, for the private side of a venue (the keys go to a file, never to the
terminal):

\b
  feedmill simulate --exchange all --accounts 2 --keys ./keys.json --ledger ./ledger

Kinds: close, abort, silence, half_open, slow, cut, drop, double, swap, bad_bytes, bad_price, unknown_fields,
rest_429, rest_418, rest_500, latency, list, expire, skew, forget, expire_session, clear.
Counts: curl http://127.0.0.1:PORT/_sim/stats.
Before feedmill verify, end the flow and complete the ledger: curl -X POST http://127.0.0.1:PORT/_sim/stop.
"""

_SNIPPET = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange:
    name: {exchange}
    market: {market}
    endpoints: {{stream: "{stream}", rest: "{rest}"}}
  instruments: {{symbols: [{symbols}]}}
  channels: [{channels}]
"""


def simulate(
    exchange: Annotated[
        list[str],
        typer.Option(
            "--exchange",
            "-e",
            metavar="EXCHANGE/MARKET",
            help=f"{', '.join(VENUES)} or all. Give it several times for several.",
        ),
    ],
    port: Annotated[
        int,
        typer.Option(metavar="PORT", help="Port of the first exchange, the next one gets the next; 0 = any free ones."),
    ] = 0,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    rate: Annotated[
        float,
        typer.Option(
            metavar="NUMBER", help="Messages a second of each exchange, over all subscribed; 0 = as fast as read."
        ),
    ] = 1000.0,
    mix: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS", help="How subscribed channels share the rate: weights of trades, ticker and book."
        ),
    ] = "trades=5,ticker=4,book=1",
    symbols: Annotated[
        str,
        typer.Option(
            metavar="SYMBOLS", help="More symbols to list beside the built-in ones, canonical, comma-separated."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="The same seed gives the same sequence of trades.")] = 1,
    id_base: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", help="First trade id. Left out: from the clock, so that a later run never repeats an id."
        ),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the ledger (appended to). Left out: none.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Replay EXCHANGE.jsonl.gz of this folder instead of inventing a market.",
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option(metavar="FACTOR", help="Of the replay: 1 = as recorded, 10 = ten times, 0 = no pauses.")
    ] = 1.0,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="The replay waits this many seconds for missing subscriptions after the first one."
        ),
    ] = 10.0,
    tls: Annotated[
        bool, typer.Option("--tls", help="wss:// and https:// with a certificate made now (its path is printed).")
    ] = False,
    duration: Annotated[
        float, typer.Option(metavar="SECONDS", help="Stop emitting and exit after this many seconds; 0 = never.")
    ] = 0.0,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Change a limit, e.g. connects=1000 or ping_interval=1 (a wrong name lists all)."
        ),
    ] = None,
    levels: Annotated[int, typer.Option(metavar="NUMBER", help="Book levels a side.")] = 200,
    history: Annotated[int, typer.Option(metavar="NUMBER", help="Trades an instrument keeps for REST.")] = 20_000,
    accounts: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Accounts a venue has, with keys, orders, fills, balances; or EXCHANGE/MARKET=NUMBER,... for some.",
        ),
    ] = "0",
    account_rate: Annotated[
        float, typer.Option(metavar="ACTIONS/S", help="What all accounts of a venue do a second; 0 = nothing.")
    ] = 10.0,
    account_assets: Annotated[
        str,
        typer.Option(
            "--account-assets", metavar="ASSETS", help="What accounts begin with, comma-separated; left out: of all."
        ),
    ] = "",
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the accounts' API keys there as JSON (mode 0600); never printed."),
    ] = None,
    stats_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds between two lines of counts; 0 = none.")
    ] = 5.0,
    port_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the endpoints there as JSON once the servers listen.")
    ] = None,
) -> None:
    """Run simulated exchanges with a ledger of the truth and faults on demand."""
    try:
        config = _config(
            exchange, port, rate, mix, symbols, limit or [], levels, history, accounts, account_rate,
            account_assets, seed=seed, id_base=id_base if id_base is not None else clock_base(), ledger=ledger,
            recordings=recordings, speed=speed, grace=grace, tls=tls, host=host, keys_file=keys,
        )  # fmt: skip
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_serve(config, duration, stats_every, port_file))
    except (ConfigError, OSError) as error:
        typer.echo(f"feedmill simulate: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


simulate.__doc__ = HELP


def clock_base() -> int:
    """A first id above those of every earlier run that made fewer than 10,000 trades a second of one instrument."""
    return int((time.time() - 1_600_000_000) * 10_000)


def _config(
    exchange: list[str],
    port: int,
    rate: float,
    mix: str,
    symbols: str,
    limit: list[str],
    levels: int,
    history: int,
    accounts: str,
    account_rate: float,
    account_assets: str,
    **rest: Any,
) -> SimulatorConfig:
    names = list(VENUES) if "all" in exchange else exchange
    extra = tuple(name.strip() for name in symbols.split(",") if name.strip())
    if extra and len(names) > 1:
        raise ConfigError("--symbols belongs to one exchange: run one simulator an exchange, or leave it out")
    changes = _limits(limit)
    counts = parse_accounts(accounts, names)
    assets = tuple(name.strip() for name in account_assets.split(",") if name.strip())
    venues = []
    for at, name in enumerate(names):
        venue = VenueConfig(name, port + at if port else 0, rate, parse_mix(mix), extra, None, levels=levels)
        limits = default_limits(name, **changes)
        venue = dataclasses.replace(venue, limits=limits, history=history, accounts=counts[name])
        venues.append(dataclasses.replace(venue, account_rate=account_rate, account_assets=assets))
    return SimulatorConfig(tuple(venues), **rest)


def _limits(texts: list[str]) -> dict[str, Any]:
    fields = {field.name: field.type for field in dataclasses.fields(Limits)}
    changes: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in fields:
            raise ConfigError(f"--limit {text!r} names no limit: use one of {', '.join(fields)}")
        try:
            kind = fields[name]
            changes[name] = value == "true" if kind == "bool" else int(value) if kind == "int" else float(value)
        except ValueError:
            raise ConfigError(f"--limit {text!r}: {value!r} is not a number") from None
    return changes


async def _serve(config: SimulatorConfig, duration: float, stats_every: float, port_file: Path | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    out = Console(highlight=False, soft_wrap=True)
    async with Simulator(config) as simulator:
        if port_file is not None:
            _write_port_file(port_file, simulator)
        _introduce(out, simulator)
        deadline = loop.time() + duration if duration else None
        before, at = _emitted(simulator), loop.time()
        while not stop.is_set():
            left = [stats_every] if stats_every else []
            if deadline is not None:
                left.append(deadline - loop.time())
                if left[-1] <= 0:
                    break
            try:
                await asyncio.wait_for(stop.wait(), min(left) if left else None)
            except TimeoutError:
                pass
            failed = next((venue for venue in simulator.venues.values() if venue.failure is not None), None)
            if failed is not None:
                print(f"feedmill simulate: {failed.config.venue} failed: {failed.failure}", file=sys.stderr)
                return 1
            if stats_every and loop.time() - at >= stats_every:
                now = loop.time()
                after = _emitted(simulator)
                _report(out, simulator, before, after, now - at)
                before, at = after, now
        simulator.stop_emitting()
        try:
            await asyncio.wait_for(simulator.drained(), 10)
        except TimeoutError:
            print("feedmill simulate: a client did not take its last messages within 10 s", file=sys.stderr)
        out.print(f"# ended: {json.dumps(simulator.stats())}", markup=False)
    return 0


def _write_port_file(path: Path, simulator: Simulator) -> None:
    content = {
        name: {"stream": venue.stream, "rest": venue.rest, "port": venue.port}
        for name, venue in simulator.venues.items()
    }
    if simulator.ca_file is not None:
        content["tls"] = {"ca": str(simulator.ca_file)}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(path)


def _introduce(out: Console, simulator: Simulator) -> None:
    recorded = {}
    if simulator.config.recordings is not None:
        from feedmill.simulator.recorded import recorded_feeds

        feeds = recorded_feeds(simulator.config.recordings)
        recorded = {f"{feed['exchange']}/{feed['market']}": feed for feed in feeds}
    for name, (stream, rest) in simulator.endpoints.items():
        exchange, _, market = name.partition("/")
        feed = recorded.get(name)
        if feed is None:
            symbols = "BTC-PERPETUAL, ETH-PERPETUAL" if exchange == "deribit" else "BTC-USDT, ETH-USDT"
            channels, interval = ["Trades", "Book", "Ticker", "Candles"], "1m"
        else:
            symbols, channels, interval = ", ".join(feed["symbols"]), feed["channels"], feed["interval"]
        rendered = ", ".join(
            f"{{name: {channel}, interval: {interval}}}" if channel == "Candles" else f"{{name: {channel}}}"
            for channel in channels
        )
        out.print(f"# {name} listens: stream {stream}, REST and admin {rest}; a feed for it:", markup=False)
        out.print(
            _SNIPPET.format(
                name=f"{exchange}-{market}".lower(), exchange=exchange, market=market, stream=stream, rest=rest,
                symbols=symbols, channels=rendered,
            ),
            markup=False,
        )  # fmt: skip
    for name, venue in simulator.venues.items():
        if venue.config.accounts:
            where = simulator.config.keys_file or "nowhere: give --keys FILE"
            out.print(f"# {name} has {venue.config.accounts} accounts; their keys: {where}", markup=False)
    if simulator.ca_file is not None:
        out.print(f"# clients must trust {simulator.ca_file}", markup=False)


def _emitted(simulator: Simulator) -> dict[str, int]:
    return {
        name: sum(channel["emitted"] for channel in stats["channels"].values())
        for name, stats in simulator.stats().items()
    }


def _report(out: Console, simulator: Simulator, before: dict[str, int], after: dict[str, int], seconds: float) -> None:
    for name, stats in simulator.stats().items():
        delivered = sum(channel["delivered"] for channel in stats["channels"].values())
        line = (
            f"# {name}: {(after[name] - before[name]) / seconds:,.0f} msg/s, emitted {after[name]:,}, "
            f"delivered {delivered:,}, connections {stats['connections']}"
        )
        extras = {what: stats[what] for what in ("closed", "faults") if stats[what]}
        out.print(line + (f", {extras}" if extras else ""), markup=False)
