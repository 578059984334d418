"""Alerts, of pipelines and of the operator: well-formed, on metrics and labels that exist, told when they should be."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from build_cases import ACCOUNT, FEED, MANAGED, OWN_FEED, account, feed, find, of_pipeline, pipeline
from tools.metrics.catalogue import catalogue

from feedmill_operator.build.inputs import ClusterFacts
from feedmill_operator.build.monitoring import ALERTS, Tells
from feedmill_operator.build.pipeline import build_pipeline

CHART_ALERTS = Path(__file__).parents[3] / "helm" / "feedmill" / "files" / "alerts.yaml"
OPERATORS = 'namespace="feedmill-system", pod=~"feedmill-operator-[^-]+-[^-]+"'
OF_PROMETHEUS = {
    "up": {"app_kubernetes_io_component", "feedmill_dev_feed", "feedmill_dev_shard"},
    "process_start_time_seconds": set[str](),
}
"""What Prometheus and its client make themselves, and the labels of its targets that PodMonitors give beside these."""
TARGETS = {"namespace", "pod", "feedmill_dev_pipeline"}


TELLING: dict[str, Any] = {
    "telegram": {"botTokenSecretRef": {"name": "telegram", "key": "token"}, "chatId": "1"},
}
BACKUP: dict[str, Any] = {
    "schedule": "0 3 * * *",
    "destination": {"b2": {"bucket": "backups", "credentialsSecretRef": {"name": "b2"}}},
    "encryption": {"keySecretRef": {"name": "backup-key", "key": "key"}},
    "continuous": {"enabled": True},
}
KNOWN = ClusterFacts(pod_monitor=True, prometheus_rule=True)


def made_of(*feeds: Any, accounts: int = 1, **spec: Any) -> list[dict[str, Any]]:
    """Rules of a pipeline."""
    inputs = of_pipeline(pipeline(MANAGED, **spec), *feeds, accounts=[account(ACCOUNT)] * accounts, facts=KNOWN)
    (group,) = find(build_pipeline(inputs), "PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


def rules() -> list[dict[str, Any]]:
    """Of a pipeline with all that there is to tell of."""
    return made_of(feed(FEED), feed(OWN_FEED), notifications=TELLING, backup=BACKUP)


def operator_rules() -> list[dict[str, Any]]:
    return list(yaml.safe_load(CHART_ALERTS.read_text(encoding="utf-8").replace("PODS", OPERATORS)))


EVERY = [*rules(), *operator_rules()]


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """All in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument)
    elif isinstance(node, promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.SubqueryExpr):
        yield from selectors(node.expr)
    else:
        assert isinstance(node, promql_parser.NumberLiteral), node


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Labels by the name of each metric of ours."""
    return {
        series: set(metric.labels) for metrics in catalogue().values() for metric in metrics for series in metric.series
    }


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule["alert"])
def test_an_alert_stands_on_metrics_and_labels_that_exist(rule: dict[str, Any], known: dict[str, set[str]]) -> None:
    labels: set[str] = set()
    found = list(selectors(promql_parser.parse(rule["expr"])))
    assert found
    for selector in found:
        labels |= known.get(selector.name) or OF_PROMETHEUS.get(selector.name) or set()
        assert selector.name in known.keys() | OF_PROMETHEUS.keys()
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked >= ({"namespace", "pod"} if rule in operator_rules() else {"namespace", "feedmill_dev_pipeline"})
        assert asked - TARGETS <= (known.get(selector.name) or OF_PROMETHEUS.get(selector.name) or set())
    told = set(re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]))
    assert told - TARGETS <= labels


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"


def test_a_pipeline_with_everything_has_all_of_them() -> None:
    assert [rule["alert"] for rule in rules()] == [alert.name for alert in ALERTS]


def test_names_are_used_once() -> None:
    names = [rule["alert"] for rule in EVERY]
    assert len(set(names)) == len(names)


def test_an_alert_notices_the_first_event_of_a_series() -> None:
    for alert in ALERTS:
        for counter, window in re.findall(r"increase\((feedmill_[a-z_]+\{.*?\}\})\[(\d+)m\]\)", alert.expression):
            half, lasts = int(window) // 2, int(alert.lasts.removesuffix("m"))
            assert (
                f" or ({counter} unless count_over_time({counter}[{half}m] offset {window}m)) > 0" in alert.expression
            ), alert.name
            assert half + lasts <= int(window), "else there are events of a process begun anew that it never tells of"
    assert sum("increase(" in alert.expression for alert in ALERTS) >= 3


def test_outcomes_of_a_refused_configuration_are_those_that_are_counted() -> None:
    (asked,) = re.findall(r'outcome=~"([a-z|]+)"', " ".join(alert.expression.split(" or ")[0] for alert in ALERTS))
    source = inspect.getsource(importlib.import_module("feedmill.shared.reload"))
    assert set(asked.split("|")) == set(re.findall(r'_refused\("([a-z]+)"', source))


def test_each_shard_that_is_to_run_is_missed_by_its_name() -> None:
    many = feed(FEED, receiver={"shards": 3}, instruments={"symbols": [f"A{n}-USDT" for n in range(40)]})
    (rule,) = [
        rule
        for rule in made_of(many, feed(OWN_FEED, suspend=True), accounts=0)
        if rule["alert"] == "FeedmillReceiverAbsent"
    ]
    found = re.findall(r'absent\(up\{[^}]*feedmill_dev_feed="(\w+)", feedmill_dev_shard="(\d+)"\}\)', rule["expr"])
    assert found == [("btc", "0"), ("btc", "1"), ("btc", "2")]


ABSENT = {
    "FeedmillReceiverAbsent": Tells.FEEDS,
    "FeedmillDistributorAbsent": Tells.FEEDS,
    "FeedmillProcessorAbsent": Tells.PROCESSORS,
    "FeedmillAccountsAbsent": Tells.ACCOUNTS,
    "FeedmillNotifierAbsent": Tells.NOTIFIER,
    "FeedmillBackupLogAbsent": Tells.BACKUP_LOG,
}
EVERYTHING = set(Tells) - {Tells.WORK}


@pytest.mark.parametrize(
    ("suspended", "feeds", "accounts", "pod_monitor", "missing"),
    [
        (False, "one", 1, "Auto", set()),
        (False, "one", 0, "Auto", {Tells.ACCOUNTS}),
        (False, "none", 1, "Auto", {Tells.FEEDS}),
        (False, "suspended", 1, "Auto", {Tells.FEEDS}),
        (True, "one", 1, "Auto", EVERYTHING - {Tells.FEEDS}),
        (True, "suspended", 1, "Auto", EVERYTHING),
        # Who scrapes otherwise may give other labels.
        (False, "one", 1, "Disabled", EVERYTHING),
    ],
)
def test_what_is_not_to_run_is_not_missed(
    suspended: bool, feeds: str, accounts: int, pod_monitor: str, missing: set[Tells]
) -> None:
    there = [] if feeds == "none" else [feed(FEED, suspend=feeds == "suspended")]
    monitoring = {"podMonitor": pod_monitor}
    spec: dict[str, Any] = {"suspend": suspended, "notifications": TELLING, "backup": BACKUP, "monitoring": monitoring}
    made = {rule["alert"] for rule in made_of(*there, accounts=accounts, **spec)}
    assert {name for name, tells in ABSENT.items() if tells in missing} == {alert.name for alert in ALERTS} - made


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ({}, {Tells.NOTIFIER, Tells.BACKUP_LOG}),
        ({"notifications": TELLING}, {Tells.BACKUP_LOG}),
        ({"backup": BACKUP}, {Tells.NOTIFIER}),
        ({"notifications": TELLING, "backup": BACKUP | {"suspend": True}}, {Tells.BACKUP_LOG}),
        ({"notifications": TELLING, "backup": BACKUP | {"continuous": {"enabled": False}}}, {Tells.BACKUP_LOG}),
        ({"notifications": TELLING, "backup": BACKUP | {"destination": {"folder": {"path": "b"}}}}, {Tells.BACKUP_LOG}),
    ],
)
def test_what_nobody_asked_for_is_not_missed(spec: dict[str, Any], missing: set[Tells]) -> None:
    made = {rule["alert"] for rule in made_of(feed(FEED), **spec)}
    assert {name for name, tells in ABSENT.items() if tells in missing} == {alert.name for alert in ALERTS} - made
