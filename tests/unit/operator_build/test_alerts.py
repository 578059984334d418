"""Alerts, of pipelines and of the operator: well-formed, on metrics and labels that exist, told when they should be."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from build_cases import ACCOUNT, CASES, FEED, MANAGED, account, feed, find, of_pipeline, pipeline
from prometheus_client import REGISTRY

from feedmill_operator.build.inputs import ClusterFacts
from feedmill_operator.build.monitoring import ALERTS, Tells
from feedmill_operator.build.pipeline import build_pipeline

CHART_ALERTS = Path(__file__).parents[3] / "helm" / "feedmill" / "files" / "alerts.yaml"
CHOSEN = 'namespace="feeds", feedmill_dev_pipeline="main"'
OPERATORS = 'namespace="feedmill-system", pod=~"feedmill-operator-[^-]+-[^-]+"'
OF_PROMETHEUS = {
    "up": {"app_kubernetes_io_component", "feedmill_dev_feed", "feedmill_dev_shard"},
    "process_start_time_seconds": set[str](),
}
"""What Prometheus and its client make themselves, and the labels of its targets that PodMonitors give beside these."""
TARGETS = {"namespace", "pod", "feedmill_dev_pipeline"}


def rules() -> list[dict[str, Any]]:
    """Of a pipeline with a feed and an account."""
    (group,) = find(CASES["monitored-pipeline"](), "PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


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
    for module in ("receiver.metrics", "distributor.metrics", "processor.measures", "pool.measures", "shared.reload"):
        importlib.import_module(f"feedmill.{module}")
    importlib.import_module("feedmill_operator.metrics")
    registered = REGISTRY._names_to_collectors
    return {
        name: set(getattr(collector, "_labelnames", ()))
        for name, collector in registered.items()
        if name.startswith("feedmill_")
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


def test_a_pipeline_with_a_feed_and_an_account_has_all_of_them() -> None:
    assert [rule["alert"] for rule in rules()] == [alert.name for alert in ALERTS]


def test_names_are_used_once() -> None:
    names = [rule["alert"] for rule in EVERY]
    assert len(set(names)) == len(names)


def test_an_alert_notices_the_first_event_of_a_series() -> None:
    for alert in ALERTS:
        for counter, window in re.findall(r"increase\((feedmill_[a-z_]+\{.*?\}\})\[(\d+m)\]\)", alert.expression):
            assert f" or ({counter} unless {counter} offset {window}) > 0" in alert.expression, alert.name
    assert sum("increase(" in alert.expression for alert in ALERTS) >= 3


def test_outcomes_of_a_refused_configuration_are_those_that_are_counted() -> None:
    (asked,) = re.findall(r'outcome=~"([a-z|]+)"', " ".join(alert.expression.split(" or ")[0] for alert in ALERTS))
    source = inspect.getsource(importlib.import_module("feedmill.shared.reload"))
    assert set(asked.split("|")) == set(re.findall(r'_refused\("([a-z]+)"', source))


ABSENT = {
    "FeedmillReceiverAbsent": Tells.FEEDS,
    "FeedmillDistributorAbsent": Tells.FEEDS,
    "FeedmillProcessorAbsent": Tells.PROCESSORS,
    "FeedmillAccountsAbsent": Tells.ACCOUNTS,
}


@pytest.mark.parametrize(
    ("suspended", "feeds", "accounts", "pod_monitor", "missing"),
    [
        (False, "one", 1, "Auto", set()),
        (False, "one", 0, "Auto", {Tells.ACCOUNTS}),
        (False, "none", 1, "Auto", {Tells.FEEDS}),
        (False, "suspended", 1, "Auto", {Tells.FEEDS}),
        (True, "one", 1, "Auto", {Tells.PROCESSORS, Tells.ACCOUNTS}),
        (True, "suspended", 1, "Auto", {Tells.FEEDS, Tells.PROCESSORS, Tells.ACCOUNTS}),
        # Who scrapes otherwise may give other labels.
        (False, "one", 1, "Disabled", {Tells.FEEDS, Tells.PROCESSORS, Tells.ACCOUNTS}),
    ],
)
def test_what_is_not_to_run_is_not_missed(
    suspended: bool, feeds: str, accounts: int, pod_monitor: str, missing: set[Tells]
) -> None:
    there = [] if feeds == "none" else [feed(FEED, suspend=feeds == "suspended")]
    wanted = pipeline(MANAGED, suspend=suspended, monitoring={"podMonitor": pod_monitor})
    facts = ClusterFacts(pod_monitor=True, prometheus_rule=True)
    inputs = of_pipeline(wanted, *there, accounts=[account(ACCOUNT)] * accounts, facts=facts)
    (group,) = find(build_pipeline(inputs), "PrometheusRule")["spec"]["groups"]
    made = {rule["alert"] for rule in group["rules"]}
    assert {name for name, tells in ABSENT.items() if tells in missing} == {alert.name for alert in ALERTS} - made


# --- with Prometheus' own tool, where it is installed ---

RECEIVER, DISTRIBUTOR, PROCESSOR, ACCOUNTS = (
    f'{{{CHOSEN}, pod="{role}-1", app_kubernetes_io_component="{role}"%s}}'
    for role in ("receiver", "distributor", "processor", "accounts")
)
SHARD = ', feedmill_dev_feed="btc", feedmill_dev_shard="0"'
UP, DOWN, NONE = "1x60", "0x60", "_x60"
OPERATOR = '{namespace="feedmill-system", pod="feedmill-operator-5d4f-x2x%d"%s}'


def up(receiver: str, distributor: str, processor: str, accounts: str = "1x60") -> dict[str, str]:
    """Series of the targets of a pipeline with one feed of one shard, and accounts."""
    return {
        "up" + RECEIVER % SHARD: receiver,
        "up" + DISTRIBUTOR % SHARD: distributor,
        "up" + PROCESSOR % "": processor,
        "up" + ACCOUNTS % "": accounts,
    }


def leader(first: str, second: str) -> dict[str, str]:
    return {
        "feedmill_operator_leader" + OPERATOR % (1, ""): first,
        "feedmill_operator_leader" + OPERATOR % (2, ""): second,
    }


@pytest.mark.parametrize(
    ("series", "firing"),
    [
        (up(UP, UP, UP) | leader(UP, DOWN), set()),
        (up(DOWN, UP, UP) | leader(UP, DOWN), {"FeedmillReceiverAbsent", "FeedmillPodDown"}),
        (up(NONE, UP, UP) | leader(UP, DOWN), {"FeedmillReceiverAbsent"}),
        (up(UP, DOWN, UP) | leader(UP, DOWN), {"FeedmillDistributorAbsent", "FeedmillPodDown"}),
        (up(NONE, NONE, UP) | leader(UP, DOWN), {"FeedmillReceiverAbsent"}),
        (up(UP, UP, NONE) | leader(UP, DOWN), {"FeedmillProcessorAbsent"}),
        (up(UP, UP, DOWN) | leader(UP, DOWN), {"FeedmillProcessorAbsent", "FeedmillPodDown"}),
        (up(UP, UP, UP, NONE) | leader(UP, DOWN), {"FeedmillAccountsAbsent"}),
        (
            up(UP, UP, UP)
            | leader(UP, DOWN)
            | {
                "feedmill_account_accounts" + ACCOUNTS % ', exchange="binance", market="Spot", state="refused"': "1x60",
                "feedmill_account_accounts" + ACCOUNTS % ', exchange="binance", market="Spot", state="waiting"': "0x60",
            },
            {"FeedmillAccountsRefused"},
        ),
        # A second replica makes good for the first.
        (
            up(DOWN, UP, UP) | leader(UP, DOWN) | {"up" + (RECEIVER % SHARD).replace("receiver-1", "receiver-2"): UP},
            {"FeedmillPodDown"},
        ),
        (
            up(UP, UP, UP) | leader(UP, DOWN) | {"process_start_time_seconds" + RECEIVER % SHARD: "0+0x30 1 2 3 4x26"},
            {"FeedmillPodRestarting"},
        ),
        (
            up(UP, UP, UP) | leader(UP, DOWN) | {"process_start_time_seconds" + RECEIVER % SHARD: "0+0x40 1x20"},
            set(),
        ),
        (up(UP, UP, UP) | leader(DOWN, DOWN), {"FeedmillOperatorAbsent"}),
        (up(UP, UP, UP), {"FeedmillOperatorAbsent"}),
        (
            up(UP, UP, UP)
            | leader(UP, DOWN)
            | {"feedmill_operator_watch_probe_age_seconds" + OPERATOR % (1, ""): "5x30 30+60x30"},
            {"FeedmillOperatorDeaf"},
        ),
        (
            up(UP, UP, UP)
            | leader(UP, DOWN)
            | {
                "feedmill_operator_reconcile_seconds_count"
                + OPERATOR % (1, ', kind="ExchangeFeed", result="failed"'): "0+1x60"
            },
            {"FeedmillOperatorReconcileErrors"},
        ),
    ],
)
def test_they_fire_when_they_should(series: dict[str, str], firing: set[str], tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    groups = {"groups": [{"name": "all", "rules": EVERY}]}
    (tmp_path / "rules.yaml").write_text(json.dumps(groups))
    now = "55m"
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": now,
                        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
                    }
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(json.dumps(tests))
    done = subprocess.run([promtool, "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
