"""Joining the metrics of several processes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from feedmill.local.exposition import join, value_of


def text_of(value: float) -> str:
    registry = CollectorRegistry()
    Counter("feedmill_x_rows", "Rows.", ["table"], registry=registry).labels('tra"des').inc(value)
    Gauge("feedmill_x_rows_now", "A name that begins like the other's.", registry=registry).set(value)
    Histogram("feedmill_x_seconds", "Time.", buckets=(1.0, 2.0), registry=registry).observe(value)
    return generate_latest(registry).decode()


def test_joined_text_is_readable_and_whole() -> None:
    joined = join({"one": text_of(1), "two": text_of(5), "none": ""})
    families = {family.name: family for family in text_string_to_metric_families(joined)}
    assert joined.count("# TYPE feedmill_x_rows counter") == 0  # The text format names the counter with its _total.
    assert joined.count("# TYPE feedmill_x_rows_total counter") == 1
    rows = families["feedmill_x_rows"]
    found = {(sample.name, sample.labels["process"]): sample for sample in rows.samples}
    assert found[("feedmill_x_rows_total", "one")].value == 1
    assert found[("feedmill_x_rows_total", "two")].value == 5
    assert found[("feedmill_x_rows_total", "two")].labels["table"] == 'tra"des'
    buckets = [sample for sample in families["feedmill_x_seconds"].samples if sample.name.endswith("_bucket")]
    assert {(sample.labels["process"], sample.labels["le"]) for sample in buckets} == {
        (process, bound) for process in ("one", "two") for bound in ("1.0", "2.0", "+Inf")
    }
    assert {sample.labels["process"] for sample in families["feedmill_x_rows_now"].samples} == {"one", "two"}


def test_value_is_the_sum_over_labels() -> None:
    text = 'a_total 1\na_total{x="} 9"} 2.5\nab_total 7\nb{le="1"} 3 1700000000\n'
    assert value_of(text, "a_total") == 3.5
    assert value_of(text, "b") == 3
    assert value_of(text, "c") is None
