"""Dashboards as plain data: rows of panels, each with its queries. Turned into Grafana's JSON by ``grafana``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PIPELINE = 'namespace=~"$namespace", feedmill_dev_pipeline=~"$pipeline"'
"""Selects what belongs to the chosen pipelines. ``All`` is ``.*``, which also finds what has no such label."""
FEED = f'{PIPELINE}, feedmill_dev_feed=~"$feed"'
OURS = f"and on (namespace, pod) feedmill_process_loop_lag_max_seconds{{{PIPELINE}}}"
"""Keeps what is of a process of Feedmill, of a metric that other programs have too."""
RATE = "$__rate_interval"
SECONDS, BYTES, RATIO, COUNT, PER_SECOND, BYTES_PER_SECOND, FLAG, MOMENT = (
    "s", "bytes", "percentunit", "short", "ops", "Bps", "bool_yes_no", "dateTimeFromNow",
)  # fmt: skip
"""Grafana's names of units."""


@dataclass(frozen=True, slots=True)
class Query:
    """``legend``: of a series, with labels as ``{{name}}``."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``width``: of 24; ``none``: shown where nothing is found; "" = "No data"."""

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "graph"
    """graph | stat | table."""
    width: int = 8
    none: str = ""
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """``name``: of its file and uid; ``choices``: variables beside the data source."""

    name: str
    title: str
    text: str
    choices: tuple[Choice, ...]
    rows: tuple[Row, ...]

    def queries(self) -> Iterable[tuple[Panel, Query]]:
        for row in self.rows:
            for panel in row.panels:
                for query in panel.queries:
                    yield panel, query


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable whose values are those of a label."""

    name: str
    label: str
    metric: str
    """Whose series have the label, with a selector of choices before it."""
    many: bool = True
    """Several, or all, at once."""


NAMESPACE = Choice("namespace", "namespace", "feedmill_process_loop_lag_max_seconds")
PIPELINES = Choice(
    "pipeline", "feedmill_dev_pipeline", 'feedmill_process_loop_lag_max_seconds{namespace=~"$namespace"}'
)
ONE_FEED = Choice("feed", "feedmill_dev_feed", f"feedmill_receiver_connections{{{PIPELINE}}}", many=False)


def graph(title: str, text: str, unit: str, *queries: tuple[str, str], width: int = 8, stacked: bool = False) -> Panel:
    """Lines over time; queries: (expression, legend)."""
    return Panel(title, text, unit, tuple(Query(*each) for each in queries), width=width, stacked=stacked)


def rare(title: str, text: str, unit: str, *queries: tuple[str, str], width: int = 8) -> Panel:
    """Lines of what should not happen: nothing to see is good news."""
    return Panel(title, text, unit, tuple(Query(*each) for each in queries), width=width, none="none")


def stat(title: str, text: str, unit: str, expression: str, *, width: int = 4, none: str = "") -> Panel:
    """One number."""
    return Panel(title, text, unit, (Query(expression, title),), kind="stat", width=width, none=none)


def table(title: str, text: str, expression: str, *, width: int = 12, none: str = "") -> Panel:
    """The labels of what an expression finds now."""
    return Panel(title, text, COUNT, (Query(expression, ""),), kind="table", width=width, none=none)


def by(labels: str, counter: str, chosen: str) -> str:
    """How fast a counter rises, added up by labels."""
    return f"sum by ({labels}) (rate({counter}{{{chosen}}}[{RATE}]))"


def within_hour(labels: str, counter: str, chosen: str) -> str:
    """How much a counter rose within an hour, added up by labels ("" = all together); of what is always counted."""
    grouped = f" by ({labels}) " if labels else ""
    return f"sum{grouped}(increase({counter}{{{chosen}}}[1h]))"


def rose(labels: str, counter: str, chosen: str) -> str:
    """The same of what has no series before it first happens: what did not happen is left out.

    A series begins with its first event, when there is no 0 to have risen from. Looked back for half an hour only:
    what a process counts first, some time after it began anew, is not what the one before it had counted.
    """
    series = f"{counter}{{{chosen}}}"
    new = f"{series} unless count_over_time({series}[30m] offset 1h)"
    return f"sum by ({labels}) (increase({series}[1h]) > 0 or ({new}))"


def quantile(share: float, labels: str, histogram: str, chosen: str) -> str:
    """Of a histogram, by labels ("" = of all together)."""
    grouped = f"le, {labels}" if labels else "le"
    return f"histogram_quantile({share}, sum by ({grouped}) (rate({histogram}_bucket{{{chosen}}}[{RATE}])))"
