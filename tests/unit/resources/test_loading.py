"""Reading manifests: several documents, several files, folders; defaults of local mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.resources.checks import Venues
from feedmill.resources.load import ResourceError, load_files, load_texts

HEAD = "apiVersion: feedmill.dev/v1alpha1\n"
PIPELINE = (
    HEAD
    + """kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}}
"""
)


def feed(name: str, *, namespace: str = "default", pipeline: str = "main") -> str:
    return (
        f"{HEAD}kind: ExchangeFeed\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
        f"  pipelineRef: {{name: {pipeline}}}\n  exchange: {{name: binance, market: Spot}}\n"
        "  instruments: {symbols: [BTC-USDT]}\n  channels: [{name: Trades}]\n"
    )


def test_several_documents_in_one_file() -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: redis}\n"
    text = f"---\n{PIPELINE}---\n\n---\n{feed('one')}---\n{secret}---\n{feed('two')}...\n"
    resources = load_texts({"all.yaml": text})
    assert list(resources.feeds) == [("default", "one"), ("default", "two")]
    assert list(resources.pipelines) == [("default", "main")]
    assert resources.skipped == ["all.yaml:18: Secret redis"]
    pipeline = resources.pipelines["default", "main"]
    assert [item.metadata.name for item in resources.feeds_of(pipeline)] == ["one", "two"]
    assert resources.pipeline_of(resources.feeds["default", "one"]) is pipeline


def test_files_and_folders_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "feeds"
    folder.mkdir()
    (folder / "a.yaml").write_text(feed("one"))
    (folder / "b.yml").write_text(feed("two"))
    (folder / "notes.txt").write_text("not: [read")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "c.yaml").write_text("not: [read")
    (tmp_path / "pipeline.yaml").write_text(f"﻿{PIPELINE}", encoding="utf-8")
    (tmp_path / "link.yaml").symlink_to(folder / "a.yaml")
    monkeypatch.chdir(tmp_path)
    resources = load_files(["feeds", "pipeline.yaml", "feeds/a.yaml", Path("link.yaml")])
    assert sorted(resources.feeds) == [("default", "one"), ("default", "two")]
    assert list(resources.pipelines) == [("default", "main")]


def test_places_are_named_as_the_user_wrote_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feeds").mkdir()
    (tmp_path / "feeds" / "a.yaml").write_text(feed("Bad"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResourceError, match=r"^1 problem in the resources:\n  feeds/a\.yaml:3: metadata\.name: "):
        load_files(["feeds"], local=True)


def test_local_mode_makes_the_pipeline_a_feed_names() -> None:
    resources = load_texts({"f.yaml": f"{feed('one')}---\n{feed('two', namespace='team', pipeline='own')}"}, local=True)
    assert sorted(resources.pipelines) == [("default", "main"), ("team", "own")]
    assert all(pipeline.spec.redis.managed for pipeline in resources.pipelines.values())


def test_elsewhere_the_pipeline_must_be_there() -> None:
    with pytest.raises(ResourceError, match=r'"main": no FeedPipeline of that name in namespace default: add one'):
        load_texts({"f.yaml": feed("one")})
    # Also locally, as soon as there is any: a misspelt reference must not give a second pipeline in silence.
    with pytest.raises(ResourceError, match=r'"mian": no FeedPipeline .* did you mean main\?'):
        load_texts({"f.yaml": f"{feed('one', pipeline='mian')}---\n{PIPELINE}"}, local=True)


def test_a_broken_pipeline_is_not_told_missing_as_well() -> None:
    broken = PIPELINE.replace("redis: {managed: {}}", "redis: {}")
    with pytest.raises(ResourceError) as caught:
        load_texts({"f.yaml": f"{feed('one')}---\n{broken}"})
    assert [problem.path for problem in caught.value.problems] == ["spec.redis"]


def test_anchors_and_merge_keys() -> None:
    text = (
        f"{HEAD}kind: ExchangeFeed\nmetadata: {{name: one}}\nspec:\n  pipelineRef: {{name: main}}\n"
        "  exchange: {name: binance, market: Spot}\n  instruments: {symbols: [BTC-USDT]}\n"
        "  channels: [{name: Trades}]\n  receiver:\n    resources: &r {requests: {cpu: 1}}\n"
        "  distributor:\n    resources: {<<: *r, limits: {memory: 1Gi}}\n"
    )
    one = load_texts({"f.yaml": text}, local=True).feeds["default", "one"]
    assert one.spec.receiver.resources.requests == {"cpu": "1"}
    assert one.spec.distributor.resources.requests == {"cpu": "1"}
    assert one.spec.distributor.resources.limits == {"memory": "1Gi"}


def test_yaml_readings_nobody_means() -> None:
    """YAML 1.1 would make these a base-60 number and a truth value."""
    text = feed("one").replace(
        "  channels", "  receiver: {podTemplate: {metadata: {labels: {at: 12:30, on: off}}}}\n  channels"
    )
    with pytest.raises(ResourceError, match=r"labels\.on: false is not text"):
        load_texts({"f.yaml": text}, local=True)
    one = load_texts({"f.yaml": text.replace("on: off", "'on': 'off'")}, local=True).feeds["default", "one"]
    assert one.spec.receiver.pod_template is not None
    assert one.spec.receiver.pod_template.metadata.labels == {"at": "12:30", "on": "off"}


def test_an_adapter_that_cannot_be_loaded_is_a_problem_not_a_crash() -> None:
    def broken(exchange: str, market: str) -> None:
        raise ImportError("no module named acme")

    venues = Venues(lambda: ["binance/Spot"], broken)  # type: ignore[arg-type]
    with pytest.raises(ResourceError, match=r"the adapter binance/Spot cannot be loaded \(no module named acme\)"):
        load_texts({"f.yaml": feed("one")}, local=True, venues=venues)


def test_what_the_api_server_adds_is_accepted() -> None:
    text = feed("one").replace(
        "namespace: default}",
        "namespace: default, uid: abc, resourceVersion: '1', generation: 2, creationTimestamp: '2026-01-02T03:04:05Z',"
        " managedFields: [{manager: kubectl}]}",
    )
    status = "status: {observedGeneration: 2, ofANewerVersion: {}, conditions: [{type: Ready, status: 'True'}]}\n"
    assert load_texts({"f.yaml": text + status}, local=True).feeds["default", "one"].status is None
