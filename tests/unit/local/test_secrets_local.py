"""What becomes of a pipeline's references to Secrets on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.local.secrets import passed_over
from feedmill.resources.load import load_texts
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError


def pipelines(redis: str) -> list[FeedPipeline]:
    text = (
        "apiVersion: feedmill.dev/v1alpha1\nkind: FeedPipeline\nmetadata: {name: main}\n"
        f"spec: {{redis: {redis}, postgres: {{managed: {{storage: 1Gi}}}}}}\n"
    )
    return list(load_texts({"a.yaml": text}, local=True).pipelines.values())


PIPELINES = pipelines("{urlSecretRef: {name: r, key: url}}")


def test_a_reference_without_a_folder_of_secrets_is_told() -> None:
    assert passed_over(PIPELINES, {}, None) == [
        "pipeline main: spec.redis.urlSecretRef needs --secrets-dir (or REDIS_URL): an embedded server is used instead"
    ]
    assert passed_over(PIPELINES, {"REDIS_URL": "redis://h"}, None) == []
    assert passed_over(PIPELINES, {}, Path("secrets")) == []


def test_an_embedded_server_does_not_stand_in_for_one_with_tls() -> None:
    tls = pipelines("{urlSecretRef: {name: r, key: url}, tls: {caSecretRef: {name: r, key: ca}}}")
    with pytest.raises(ConfigError, match=r"pipeline main: spec.redis.tls: needs your own server"):
        passed_over(tls, {}, None)
