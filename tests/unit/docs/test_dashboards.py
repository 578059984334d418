"""The dashboards that the chart ships: up to date, well-formed, on metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from tools.dashboards.__main__ import BOARDS, generated
from tools.dashboards.panels import Board, Panel, Query
from tools.metrics.catalogue import catalogue

FOLDER = Path(__file__).parents[3] / "helm" / "feedmill" / "files" / "dashboards"
OF_TARGETS = {"namespace", "pod", "app_kubernetes_io_component"} | {
    f"feedmill_dev_{what}" for what in ("pipeline", "feed", "shard")
}
"""Labels that a PodMonitor, and ``/targets`` of local mode, give to every series."""
OF_PROMETHEUS: dict[str, set[str]] = {
    "up": set(),
    "ALERTS": {"alertname", "alertstate"},
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_start_time_seconds": set(),
}
"""What Prometheus and its client make themselves."""
KNOWN = OF_PROMETHEUS | {
    series: set(metric.labels) | ({"le"} if series.endswith("_bucket") else set())
    for metrics in catalogue().values()
    for metric in metrics
    for series in metric.series
}
QUERIES = [(board, panel, query) for board in BOARDS for panel, query in board.queries()]
BOARDS_BY_NAME = {board.name: board for board in BOARDS}


def filled_in(expression: str) -> str:
    """With all variables of Grafana as it fills them in."""
    return re.sub(r"\$(namespace|pipeline|feed)\b", ".*", expression).replace("$__rate_interval", "1m")


def nodes(node: Any) -> Iterator[Any]:
    """A parsed expression and all in it."""
    yield node
    match node:
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case promql_parser.BinaryExpr():
            yield from nodes(node.lhs)
            yield from nodes(node.rhs)
        case promql_parser.Call():
            for argument in node.args:
                yield from nodes(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.SubqueryExpr():
            yield from nodes(node.expr)
        case promql_parser.UnaryExpr():
            yield from nodes(node.expr)


def test_they_are_up_to_date() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert there == generated(), "run `make docs` and commit it"


def test_there_is_one_for_each_who_looks() -> None:
    assert set(BOARDS_BY_NAME) == {"overview", "feed", "delivery", "accounts", "operator", "backup"}


@pytest.mark.parametrize(("board", "panel", "query"), QUERIES, ids=[f"{b.name}: {p.title}" for b, p, _ in QUERIES])
def test_a_query_stands_on_metrics_and_labels_that_exist(board: Board, panel: Panel, query: Query) -> None:
    labels: set[str] = set()
    found = 0
    grouped: set[str] = set()
    for node in nodes(promql_parser.parse(filled_in(query.expression))):
        if isinstance(node, promql_parser.VectorSelector):
            found += 1
            assert node.name in KNOWN, node.name
            labels |= KNOWN[node.name] | OF_TARGETS
            asked = {matcher.name for matcher in node.matchers.matchers}
            assert asked <= KNOWN[node.name] | OF_TARGETS
            assert "namespace" in asked, "the choice of namespaces must hold for it"
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped |= set(node.modifier.labels)
    assert found
    assert grouped <= labels
    told = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert told <= labels, "a legend names a label that the series do not have"
    if panel.kind == "graph" and grouped:
        assert told <= grouped | {"pod"} or "_PODS" in query.expression, "a legend names what was added up away"
    text = f"{panel.title} {panel.text}"
    assert panel.title
    assert panel.text.endswith("."), text
    assert "$" not in re.sub(r"\$(namespace|pipeline|feed|__rate_interval)\b", "", query.expression)


def test_metrics_that_other_programs_have_too_are_shown_of_feedmill_only() -> None:
    """The choice "All" is ``.*``, which finds every target of a Prometheus."""
    found = 0
    for board, panel, query in QUERIES:
        names = re.findall(r"\b(up|process_[a-z_]+)\{", query.expression)
        if names:
            found += 1
            joined = re.search(r"and on \(namespace, pod\) feedmill_[a-z_]+\{", query.expression)
            assert joined, (board.name, panel.title)
    assert found >= 5


@pytest.mark.parametrize("name", sorted(BOARDS_BY_NAME))
def test_every_variable_is_there_and_used(name: str) -> None:
    board = BOARDS_BY_NAME[name]
    used = {
        word for _, query in board.queries() for word in re.findall(r"\$(namespace|pipeline|feed)\b", query.expression)
    }
    made = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    variables = {variable["name"]: variable for variable in made["templating"]["list"]}
    assert set(variables) == used | {"datasource"}
    for variable in (each for each in variables.values() if each["name"] != "datasource"):
        metric = re.match(r"label_values\((\w+)", variable["query"])
        assert metric is not None
        assert metric[1] in KNOWN


@pytest.mark.parametrize("name", sorted(BOARDS_BY_NAME))
def test_the_json_is_what_grafana_reads(name: str) -> None:
    made = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert made["uid"] == f"feedmill-{name}"
    assert made["schemaVersion"] >= 36
    assert made["tags"] == ["feedmill"]
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert shown
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        assert panel["datasource"]["uid"] == "${datasource}"
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies over another one"
        taken |= cells
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])


def test_titles_are_used_once_in_a_row() -> None:
    for board in BOARDS:
        for row in board.rows:
            titles = [panel.title for panel in row.panels]
            assert len(set(titles)) == len(titles), (board.name, row.title)
