"""Where spans go is known to every process, and nothing else of ``spec.monitoring`` is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from build_cases import FEED, MANAGED, OWN, feed, pipeline

from feedmill.resources.load import load_texts
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.tracing import TracingSettings
from feedmill_operator.build import config

TEXTS: dict[str, Callable[[FeedPipeline], str]] = {
    "feed": lambda of: config.feed_config_text(feed(FEED), of),
    "pipeline": lambda of: config.pipeline_config_text(of, [feed(FEED)]),
    "accounts": lambda of: config.accounts_config_text(of, []),
    "general": lambda of: config.general_config_text(of, [feed(FEED)], []),
}


@pytest.mark.parametrize("which", TEXTS)
def test_the_file_says_where_spans_go(which: str) -> None:
    of = pipeline(OWN)
    (got,) = load_texts({"resources.yaml": TEXTS[which](of)}).pipelines.values()
    assert TracingSettings.of(got) == TracingSettings.of(of) == TracingSettings("http://otel:4318", 1)
    assert got.spec.monitoring.model_dump(exclude={"tracing"}) == {
        name: field.default for name, field in type(got.spec.monitoring).model_fields.items() if name != "tracing"
    }


@pytest.mark.parametrize("which", TEXTS)
def test_a_pipeline_without_tracing_has_none(which: str) -> None:
    assert "monitoring" not in TEXTS[which](pipeline(MANAGED))
    (got,) = load_texts({"resources.yaml": TEXTS[which](pipeline(MANAGED))}).pipelines.values()
    assert TracingSettings.of(got) is None
