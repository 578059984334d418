"""What becomes of a pipeline's references to Secrets on one machine."""

from __future__ import annotations

from pathlib import Path

from feedmill.local.secrets import passed_over
from feedmill.resources.load import load_texts

PIPELINES = list(
    load_texts(
        {
            "a.yaml": "apiVersion: feedmill.dev/v1alpha1\nkind: FeedPipeline\nmetadata: {name: main}\n"
            "spec: {redis: {urlSecretRef: {name: r, key: url}}, postgres: {managed: {storage: 1Gi}}}\n"
        },
        local=True,
    ).pipelines.values()
)


def test_a_reference_without_a_folder_of_secrets_is_told() -> None:
    assert passed_over(PIPELINES, {}, None) == [
        "pipeline main: spec.redis.urlSecretRef needs --secrets-dir (or REDIS_URL): an embedded server is used instead"
    ]
    assert passed_over(PIPELINES, {"REDIS_URL": "redis://h"}, None) == []
    assert passed_over(PIPELINES, {}, Path("secrets")) == []
