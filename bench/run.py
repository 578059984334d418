"""One run: fresh stores, a fresh exchange, one system, one load; the numbers that come out of it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.frames import SYMBOLS
from bench.processes import BenchError, Child, Watch, Watched
from bench.profile import Profiler
from bench.stamps import Stamps
from bench.stores import Stores
from bench.systems import Bed, System
from bench.tls import Certificate

READY_SECONDS = 60.0
DRAIN_SECONDS = 120.0
SETTLE_SECONDS = 1.0
SEEN_SECONDS = 10.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Load:
    """What the exchange sends.

    Paced (``rate`` > 0): ``warm`` seconds, then ``seconds`` for latency with the observer, then the observer is
    stopped and the CPU of another ``seconds`` is counted. Blasted (``rate`` 0): ``count`` messages as fast as they are
    taken, without an observer.
    """

    rate: int
    seconds: float = 0.0
    warm: float = 2.0
    count: int = 0
    bulk: int = 64
    """Frames a ``sendall`` and TLS record when blasted; paced: always one."""
    clump: int = 1
    """Paced: how many are sent back to back (each in its own record and segment); 1 = evenly."""

    @property
    def messages(self) -> int:
        return self.count if self.rate == 0 else int(self.rate * (self.warm + 2 * self.seconds))

    def __str__(self) -> str:
        if self.rate == 0:
            return f"{self.count:,} blasted"
        return f"{self.rate:,}/s" + (f" in clumps of {self.clump}" if self.clump > 1 else "")


@dataclass(slots=True)
class Measured:
    """All of one run. CPU in us a message of the measured window, times in ms, memory in MB (10^6 bytes)."""

    system: str
    load: str
    channel: str = ""
    frame_bytes: int = 0
    messages: int = 0
    arrived: int = 0
    doubled: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    """Services only."""
    servers_cpu: dict[str, float] = field(default_factory=dict)
    """redis, postgres, exchange, observer."""
    p50: float | None = None
    p99: float | None = None
    worst: float | None = None
    per_second: float | None = None
    """Blasted: messages / (last one in the store - first one sent)."""
    drained: float | None = None
    """Seconds from the first one sent to the last one in the store."""
    rss_peak: dict[str, float] = field(default_factory=dict)
    rss_end: dict[str, float] = field(default_factory=dict)
    others: float = 0.0
    """Share of all cores that anything else on the machine used while the CPU was counted."""
    sender_late: list[float] = field(default_factory=list)
    """p50, p99, max in ms by which the sender itself was late (paced)."""

    @property
    def services_cpu(self) -> float:
        return sum(self.cpu.values())


def quantile(ordered: list[int], share: float) -> int:
    """Nearest-rank quantile of a sorted list."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def latencies(sent: Stamps, arrived: Stamps, *, first: int, last: int) -> list[int]:
    """ns from sent to arrived of the messages ``first`` .. ``last - 1`` that the observer has seen, sorted."""
    pairs = zip(sent.times[first:last], arrived.times[first:last], strict=True)
    return sorted(there - here for here, there in pairs if there and here)


async def measure(
    system: System, load: Load, certificate: Certificate, logs: Path, *, profile: bool = False
) -> Measured:
    """Run ``system`` under ``load``; ``profile`` leaves a profile of each service in ``logs``.

    Raises BenchError when a part fails or the store does not have every message.
    """
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-") as name:
        folder = Path(name)
        sent = Stamps(folder / "sent", count=load.messages)
        arrivals = Stamps(folder / "arrived", count=load.messages)
        stores = await Stores.start(folder, postgres=system.to_postgres)
        try:
            command: list[str | Path] = [sys.executable, "-m", "bench.server", "--symbols", ",".join(SYMBOLS)]
            command += ["--cert", certificate.cert, "--key", certificate.key]
            exchange = Child("exchange", command, log=logs / "exchange.log", lines=True)
            with exchange:
                port = exchange.wait_event("listening", timeout=10)["port"]
                exchange.say(do="load", stamps=str(sent.path))
                exchange.wait_event("loaded", timeout=10)
                bed = Bed(logs, certificate, port, stores)
                try:
                    await system.start(bed)
                    await _subscribed(system, exchange)
                    profiler = Profiler(system.children, logs) if profile else None
                    try:
                        return await _measured(system, load, bed, exchange, sent, arrivals)
                    finally:
                        if profiler is not None:
                            profiler.stop()
                finally:
                    await system.stop()
        finally:
            await stores.stop()
            sent.close()
            arrivals.close()


async def _subscribed(system: System, exchange: Child) -> None:
    """Until the exchange has a subscriber for all; raises BenchError at once when the system's process has ended."""
    waiting = asyncio.create_task(asyncio.to_thread(exchange.wait_event, "subscribed", timeout=READY_SECONDS))
    while not (await asyncio.wait({waiting}, timeout=0.2))[0]:
        try:
            system.check()
        except BenchError:
            exchange.stop()  # ends the wait in its thread
            await asyncio.wait({waiting})
            waiting.exception()
            raise
    waiting.result()


def _observer(system: System, bed: Bed, arrivals: Stamps) -> Child:
    target = bed.stores.database_url if system.to_postgres else bed.stores.redis_url
    command: list[str | Path] = [sys.executable, "-m", "bench.observe", system.observer]
    command += ["--arrivals", arrivals.path, "--symbols", ",".join(SYMBOLS), "--keys", ",".join(system.keys)]
    return Child("observer", command, log=bed.folder / "observer.log", lines=True, env={"BENCH_TARGET": target})


async def _measured(system: System, load: Load, bed: Bed, exchange: Child, sent: Stamps, arrivals: Stamps) -> Measured:
    result = Measured(system.name, str(load), messages=load.messages)
    watch = Watch()
    for name, child in system.children.items():
        watch.add(name, child.pid)
    for name, pid in bed.stores.pids.items():
        watch.add(name, pid, memory=name != "postgres")
    watch.add("exchange", exchange.pid)
    try:
        if load.rate:
            counted = await _paced(system, load, bed, exchange, sent, arrivals, watch, result)
        elif system.held_back:
            counted = await _caught_up(system, load, bed, exchange, watch, result)
        else:
            counted = await _blasted(system, load, exchange, watch, result)
    finally:
        watch.close()
    result.others = watch.others
    _usage(result, watch, set(system.children), counted)
    total, result.arrived = await system.counted()
    result.doubled += total - result.arrived
    if result.arrived != load.messages or result.doubled:
        raise BenchError(
            f"{system.name}: {load.messages} sent, {result.arrived} in the store,"
            f" {load.messages - result.arrived} lost, {result.doubled} doubled"
        )
    return result


async def _go(load: Load, exchange: Child, watch: Watch, result: Measured) -> None:
    await asyncio.sleep(SETTLE_SECONDS)
    watch.start()
    exchange.say(do="go", rate=load.rate, bulk=load.bulk, clump=load.clump)
    started = await asyncio.to_thread(exchange.wait_event, "started", timeout=60)
    result.channel, result.frame_bytes = started["channel"], started["frame_bytes"]


async def _paced(
    system: System,
    load: Load,
    bed: Bed,
    exchange: Child,
    sent: Stamps,
    arrivals: Stamps,
    watch: Watch,
    result: Measured,
) -> int:
    """Returns the number of messages in the CPU window."""
    observer = _observer(system, bed, arrivals)
    try:
        await asyncio.to_thread(observer.wait_event, "watching", timeout=15)
        await _go(load, exchange, watch, result)
        await asyncio.sleep(load.warm)
        first = sent.sent
        await asyncio.sleep(load.seconds)
        last = sent.sent
        _seen(result, observer, await _all_seen(system, sent, arrivals, first, last))
    finally:
        observer.stop()
    begun = sent.sent
    watch.mark()
    done = await asyncio.to_thread(exchange.wait_event, "done", timeout=load.seconds + DRAIN_SECONDS)
    watch.end()
    result.sender_late = [late / 1e6 for late in done["late"]]
    await _until_drained(system, load.messages)
    return load.messages - begun


async def _all_seen(system: System, sent: Stamps, arrivals: Stamps, first: int, last: int) -> list[int]:
    """Latencies of messages ``first`` .. ``last - 1`` once each was seen, else the slow ones would be left out."""
    seen = range(first, last) if not system.to_postgres else range(-(-first // len(SYMBOLS)), -(-last // len(SYMBOLS)))
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        await asyncio.sleep(0.1)
        ordered = latencies(sent, arrivals, first=first, last=last)
        if len(ordered) >= len(seen):
            return ordered
        if time.monotonic() > deadline:
            raise BenchError(
                f"{system.name}: the observer saw {len(ordered)} of {len(seen)} messages within {SEEN_SECONDS:.0f} s"
            )


async def _blasted(system: System, load: Load, exchange: Child, watch: Watch, result: Measured) -> int:
    await _go(load, exchange, watch, result)
    watch.mark()
    drained = await _until_drained(system, load.messages)
    watch.end()
    done = exchange.wait_event("done", timeout=DRAIN_SECONDS)
    result.drained = (drained - done["begin"]) / 1e9
    result.per_second = load.messages / result.drained
    return load.messages


async def _caught_up(system: System, load: Load, bed: Bed, exchange: Child, watch: Watch, result: Measured) -> int:
    """Everything waits for the last service; only what it stores after its first commit is timed."""
    await _go(load, exchange, watch, result)
    await _until_drained(system, load.messages)
    before = set(system.children)
    await system.release(bed)
    for name in set(system.children) - before:
        watch.add(name, system.children[name].pid)
    deadline = time.monotonic() + READY_SECONDS
    while not (first := await system.progress()):
        system.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{system.name}: nothing was stored within {READY_SECONDS:.0f} s")
        await asyncio.sleep(0.002)
    begun = time.monotonic_ns()
    watch.mark()
    drained = await _until_drained(system, load.messages)
    watch.end()
    counted = load.messages - first
    if counted <= 0:
        raise BenchError(f"{system.name}: all was stored in one transaction, which cannot be timed")
    result.drained = (drained - begun) / 1e9
    result.per_second = counted / result.drained
    return counted


async def _until_drained(system: System, count: int) -> int:
    """CLOCK_MONOTONIC when the last message was in the store."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while not await system.arrived(count):
        system.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{system.name}: the last message had not arrived {DRAIN_SECONDS:.0f} s after it was sent")
        await asyncio.sleep(POLL_SECONDS)
    return time.monotonic_ns()


def _usage(result: Measured, watch: Watch, services: set[str], messages: int) -> None:
    def us(watched: Watched) -> float:
        return watched.cpu * 1e6 / messages

    for name, watched in watch.processes.items():
        (result.cpu if name in services else result.servers_cpu)[name] = us(watched)
        if name in services or name == "redis":
            result.rss_peak[name] = watched.peak_rss / 1e6
            result.rss_end[name] = watched.last_rss / 1e6


def _seen(result: Measured, observer: Child, ordered: list[int]) -> None:
    assert observer.process.stdin is not None
    observer.process.stdin.close()
    result.doubled = observer.wait_event("seen", timeout=15)["doubled"]
    if not ordered:
        raise BenchError(f"the observer saw nothing{observer.tail()}")
    result.p50, result.p99, result.worst = (
        value / 1e6 for value in (quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1])
    )
