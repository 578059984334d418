"""What is measured, and what DESIGN section 13 asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.run import Load, Measured

MIX = "trades, 4 symbols"


READ: dict[str, Callable[[Measured], float | None]] = {
    "messages/s": lambda run: run.per_second,
    "rows/s": lambda run: run.per_second,
    "services' CPU": lambda run: run.services_cpu,
    "receiver CPU": lambda run: run.cpu["receiver"],
    "distributor CPU": lambda run: run.cpu["distributor"],
    "processor CPU": lambda run: run.cpu["processor"],
    "Redis CPU": lambda run: run.servers_cpu["redis"],
    "PostgreSQL CPU": lambda run: run.servers_cpu["postgres"],
    "p50 latency": lambda run: run.p50,
    "p99 latency": lambda run: run.p99,
    "drained in": lambda run: run.drained,
    "peak RSS of the largest process": lambda run: max(run.rss_peak[name] for name in run.cpu),
    "RSS of the largest process at the end": lambda run: max(run.rss_end[name] for name in run.cpu),
}
"""How each number is read from a run."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run: a name of ``READ``. ``goal`` is a bound in ``unit``, ``higher``: a lower one."""

    name: str
    unit: str
    goal: float | None = None
    higher: bool = False
    cryptofeed: bool = True
    """Whether cryptofeed has the number too."""
    peer: float | None = None
    """What cryptofeed took on the machine where the goal was set: there the goal was this many times better."""

    def of(self, run: Measured) -> float | None:
        return READ[self.name](run)

    def holds(self, value: float) -> bool | None:
        if self.goal is None:
            return None
        return value >= self.goal if self.higher else value <= self.goal

    @property
    def goal_ratio(self) -> float | None:
        """How many times better than cryptofeed in the same minute the goal asks to be, whatever the machine."""
        if self.goal is None or self.peer is None:
            return None
        return self.goal / self.peer if self.higher else self.peer / self.goal


@dataclass(frozen=True, slots=True)
class Case:
    """One load on both systems. ``backend``: which of cryptofeed's it is compared with; "" = none."""

    name: str
    work: str
    stage: str
    mode: str
    load: str
    backend: str
    metrics: tuple[Metric, ...] = field(default=())
    quick: bool = True
    """Whether ``--quick`` runs it too."""


def loads(seconds: float, *, quick: bool) -> dict[str, Load]:
    """Loads by name. cryptofeed's blasts are of fewer messages, because it takes them at ~20 k/s."""
    few = 4 if quick else 1
    warm = 1.0 if quick else 2.0
    return {
        "blast-raw": Load(0, count=1_000_000 // few),
        "blast-events": Load(0, count=600_000 // few),
        "blast-rows": Load(0, count=400_000 // few),
        "blast-peer": Load(0, count=200_000 // few),
        "burst": Load(0, count=200_000),
        "10k": Load(10_000, seconds=seconds, warm=warm),
        "10k-clumped": Load(10_000, seconds=seconds, warm=warm, clump=10),
        "3k": Load(3_000, seconds=seconds, warm=warm),
    }


def cryptofeed_load(name: str) -> str:
    return "blast-peer" if name.startswith("blast") else name


def _cpu(goal: float | None = None, peer: float | None = None) -> Metric:
    return Metric("services' CPU", "us/message", goal, peer=peer)


def _latency(p50: float | None = None, p99: float | None = None) -> tuple[Metric, Metric]:
    return Metric("p50 latency", "ms", p50), Metric("p99 latency", "ms", p99)


def _rate(name: str, goal: float | None = None, peer: float | None = None) -> Metric:
    return Metric(name, "/s", goal, higher=True, peer=peer)


_RECEIVER = Metric("receiver CPU", "us/message", cryptofeed=False)
_DISTRIBUTOR = Metric("distributor CPU", "us/message", cryptofeed=False)
_PROCESSOR = Metric("processor CPU", "us/message", cryptofeed=False)
_REDIS = Metric("Redis CPU", "us/message")
_POSTGRES = Metric("PostgreSQL CPU", "us/message")
_RSS = Metric("RSS of the largest process at the end", "MB", 70, peer=56)

_RAW = "TLS WebSocket -> raw in Redis (receiver)"
_EVENTS = "TLS WebSocket -> normalised in Redis (receiver, distributor)"
_ROWS = "TLS WebSocket -> committed in PostgreSQL (all services)"
_TWO = (_RECEIVER, _DISTRIBUTOR, _REDIS)
_ALL = (_RECEIVER, _DISTRIBUTOR, _PROCESSOR, _POSTGRES)

# In this order cases that share a run of cryptofeed follow each other.
CASES = (
    Case(
        "raw-blast", _RAW, "raw", "Throughput", "blast-raw", "redis",
        (_rate("messages/s", 300_000, 18_000), _cpu(2, 47), _REDIS),
    ),
    Case(
        "events-blast", _EVENTS, "events", "Throughput", "blast-events", "redis",
        (_rate("messages/s"), _cpu(5, 47), *_TWO),
    ),
    Case("raw-throughput", _RAW, "raw", "Throughput", "10k", "redis", (_cpu(4.7, 47), _REDIS, *_latency())),
    Case("events-throughput", _EVENTS, "events", "Throughput", "10k", "redis", (_cpu(9, 47), *_TWO, *_latency())),
    Case("raw-latency", _RAW, "raw", "Latency", "10k", "redis", (_cpu(24, 47), _REDIS, *_latency())),
    Case("events-latency", _EVENTS, "events", "Latency", "10k", "redis", (*_latency(1.8, 3.5), _cpu(), *_TWO)),
    Case("raw-adaptive", _RAW, "raw", "Adaptive", "10k", "redis", (_cpu(), _REDIS, *_latency()), quick=False),
    Case("raw-clumped", _RAW, "raw", "Latency", "10k-clumped", "redis", (_cpu(24), _REDIS, *_latency()), quick=False),
    Case(
        "events-clumped", _EVENTS, "events", "Latency", "10k-clumped", "redis",
        (*_latency(1.8, 3.5), _cpu(), *_TWO), quick=False,
    ),
    Case(
        "rows-blast", _ROWS, "rows", "Throughput", "blast-rows", "postgres",
        (_rate("rows/s", 45_000, 22_000), _cpu(6, 30), *_ALL),
    ),
    Case(
        "burst", _ROWS, "rows", "Adaptive", "burst", "postgres",
        (Metric("peak RSS of the largest process", "MB", 120), Metric("drained in", "s"), _rate("rows/s")),
    ),
    Case("rows-3k", _ROWS, "rows", "Throughput", "3k", "postgres", (_cpu(12, 77), *_ALL, *_latency())),
    Case("rows-latency", _ROWS, "rows", "Latency", "10k", "postgres", (*_latency(15, 60), _cpu(), *_ALL, _RSS)),
    Case(
        "rows-throughput", _ROWS, "rows", "Throughput", "10k", "postgres",
        (*_latency(), _cpu(), *_ALL, _RSS), quick=False,
    ),
    Case(
        "processor-alone", "events waiting in Redis -> committed in PostgreSQL (processor)", "processor",
        "Throughput", "blast-rows", "", (_rate("rows/s", 100_000), _PROCESSOR, _POSTGRES),
    ),
)  # fmt: skip
