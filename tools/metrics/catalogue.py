"""Every metric of every process: read from the code that registers them, never written down a second time."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.registry import Collector, CollectorRegistry

from feedmill.local.api import FAMILIES

MODULES = {
    "every process": ("shared.metrics",),
    "every process that follows its configuration": ("shared.reload",),
    "every process that traces": ("shared.otlp",),
    "receiver": ("receiver.metrics",),
    "distributor": ("distributor.metrics",),
    "processor": ("processor.measures",),
    "processor, of what the database tells": ("processor.records",),
    "account receivers": ("pool.measures",),
    "backup": ("general.backup.measures",),
    "maintenance": ("general.maintenance.measures",),
    "notifier": ("general.notify.metrics",),
    "operator": ("feedmill_operator.metrics",),
}
"""Who has them -> modules whose import registers them (of ``feedmill`` where no other package is named)."""
LOCAL = "local mode, of each service"

LABELS = {
    "agrees": "`true`, `false`",
    "budget": "`connects`, `weight`, `subscribe`",
    "cause": "a cause named in the code",
    "channel": "a channel of the manifest's (`Trades`, `Book`, ...)",
    "code": "a status of HTTP, or the first word of an error of Redis",
    "exchange": "an exchange that has an adapter",
    "gauge": "a metric of this page",
    "interval": "an interval of candles",
    "kind": "a kind named in the code, such as `logical`; with the operator a kind of Kubernetes",
    "market": "a market that has an adapter",
    "outcome": "`applied`, `refused`, ... as the code names them",
    "process": "a service of `feedmill up`",
    "reason": "a reason named in the code",
    "result": "`ok`, or why not, as the code names it; with REST the status of HTTP",
    "server": "`redis`, `postgres`",
    "shard": "a shard of the pipeline's feeds",
    "source": "`stream`, `rest`",
    "state": "a state named in the code",
    "table": "a table of the database",
    "to": "`won`, `lost`",
    "type": "a type of event",
    "verb": "a verb of HTTP",
    "verdict": "a verdict on a key",
    "why": "`redis`, `breaker`, ... as the code names it",
}
"""Label -> its values. Each is a bounded set: no account, instrument, file, address or text of an error is in one."""

UNITS = (
    ("_timestamp_seconds", "Unix time, s"),
    ("_seconds", "s"),
    ("_bytes", "bytes"),
    ("_ratio", "0 to 1"),
)
_FLAG = re.compile(r"^(1 (when|while|=)|0 or 1)")
_STATE = re.compile(r"\b0 [a-z ]+, 1 [a-z-]+")


@dataclass(frozen=True, slots=True)
class Metric:
    """``name``: as Prometheus has it, a counter with its ``_total``; of a histogram without ``_bucket``."""

    name: str
    kind: str
    """counter | gauge | histogram."""
    labels: tuple[str, ...]
    text: str

    @property
    def unit(self) -> str:
        """In words; what is counted where it is a number of things."""
        bare = self.name.removesuffix("_total")
        for suffix, unit in UNITS:
            if bare.endswith(suffix):
                return unit
        if _FLAG.search(self.text):
            return "0 or 1"
        return "a number that stands for a state" if _STATE.search(self.text) else "a count"

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its samples."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


def catalogue() -> dict[str, list[Metric]]:
    """Who has them -> metrics by name. Imports the modules of ``MODULES``."""
    found: dict[str, list[Metric]] = {}
    seen: set[Collector] = set()
    for process, modules in MODULES.items():
        made: list[Metric] = []
        for module in modules:
            for collector in _collectors(module):
                if collector not in seen:
                    seen.add(collector)
                    made += _metrics(collector)
        found[process] = sorted(made, key=lambda metric: metric.name)
    found[LOCAL] = [
        Metric(f"feedmill_local_service_{what}", kind, ("process",), text) for what, kind, text, _ in FAMILIES
    ]
    return found


def _collectors(name: str) -> Iterator[Collector]:
    module = importlib.import_module(name if name.startswith("feedmill_operator.") else f"feedmill.{name}")
    for thing in vars(module).values():
        if callable(getattr(thing, "collect", None)) and not isinstance(thing, type | CollectorRegistry):
            yield thing


def _metrics(collector: Collector) -> Iterator[Metric]:
    labels = tuple(getattr(collector, "_labelnames", ()))
    describe = getattr(collector, "describe", collector.collect)
    for family in describe():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Metric(name, family.type, labels, family.documentation)
