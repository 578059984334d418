"""The page of metrics is the code's, and every metric has a name, a unit and labels as agreed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.metrics import catalogue
from tools.metrics.catalogue import LABELS, MODULES, Metric
from tools.metrics.page import page

ROOT = Path(__file__).parents[3]
FOUND = catalogue.catalogue()
EVERY = [metric for metrics in FOUND.values() for metric in metrics]
WHO = "|".join(
    (
        "account",
        "backup",
        "config",
        "database",
        "distributor",
        "local",
        "maintenance",
        "notify",
        "operator",
        "process",
        "processor",
        "receiver",
        "secret",
        "tracing",
    )
)
MADE = re.compile(r"^\w+ = (?:Counter|Gauge|Histogram)\(|REGISTRY\.register\(", re.MULTILINE)


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs` and commit it"


def test_a_time_of_day_that_is_not_known_yet_is_not_1970() -> None:
    code = """
import importlib, math, sys
from prometheus_client import REGISTRY
for module in sys.argv[1:]:
    importlib.import_module(module)
for family in REGISTRY.collect():
    if family.name.startswith("feedmill_") and family.name.endswith("_timestamp_seconds"):
        print(family.name, [sample.value for sample in family.samples if not math.isnan(sample.value)])
"""
    modules = [name for each in MODULES.values() for name in each]
    full = [name if name.startswith("feedmill_operator.") else f"feedmill.{name}" for name in modules]
    done = subprocess.run([sys.executable, "-c", code, *full], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) >= 4
    assert [line for line in lines if not line.endswith(" []")] == []


def test_no_module_makes_metrics_that_are_not_in_the_page() -> None:
    sources = {"feedmill": ROOT / "services/src/feedmill", "feedmill_operator": ROOT / "operator/src/feedmill_operator"}
    making = set()
    for package, folder in sources.items():
        for path in folder.rglob("*.py"):
            if MADE.search(path.read_text(encoding="utf-8")):
                parts = path.relative_to(folder).with_suffix("").parts
                making.add(".".join(parts if package == "feedmill" else (package, *parts)))
    assert making == {module for modules in MODULES.values() for module in modules}


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_names_units_and_labels(metric: Metric) -> None:
    assert re.fullmatch(rf"feedmill_({WHO})_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    # Base units only: what is measured in another one would be read wrongly beside its neighbours.
    assert not re.search(r"_(ms|millis|milliseconds|minutes|hours|kb|kib|mb|mib|percent)(_|$)", metric.name)
    assert not re.search(r"_(bucket|count|sum|created|info)$", metric.name), "a part of a histogram is called so"
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_rows")), metric.name
    assert set(metric.labels) <= LABELS.keys()
    assert metric.text[0].isupper() or metric.text[0].isdigit()
    assert metric.text.endswith("."), metric.text


def test_names_are_used_once_and_labels_are_used() -> None:
    names = [metric.name for metric in EVERY]
    assert len(set(names)) == len(names)
    assert {label for metric in EVERY for label in metric.labels} == LABELS.keys()


def test_no_label_can_hold_what_grows_without_bound() -> None:
    endless = {
        "account",
        "address",
        "chat",
        "error",
        "file",
        "instrument",
        "key",
        "message",
        "object",
        "path",
        "symbol",
    }
    assert not LABELS.keys() & endless
