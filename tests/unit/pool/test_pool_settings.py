"""Manifests -> what a member of the pool works by."""

from __future__ import annotations

from pathlib import Path

from feedmill.accounts.store import Name
from feedmill.pool.settings import PoolSettings, pool_settings
from feedmill.resources.load import load_files

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  egress: desk
  accounts:
    replicas: 3
    keyEncryptionSecretRef: {name: kek, key: keys}
    permissions: {withdraw: Flag, checkEvery: 6h}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {name: options}
spec:
  pipelineRef: {name: main}
  exchange: {name: deribit, market: Derivatives, environment: Testnet, endpoints: {rest: "https://here"}}
  credentialsSecretRef: {name: deribit-key}
  suspend: true
"""


def settings(tmp_path: Path, key_file: Path | None, secrets: Path | None) -> PoolSettings:
    path = tmp_path / "feed.yaml"
    path.write_text(MANIFEST)
    resources = load_files([path])
    pipeline = resources.pipelines["default", "main"]
    return pool_settings(pipeline, resources.accounts_of(pipeline), "r2", key_file, secrets)


def test_what_the_manifests_say(tmp_path: Path) -> None:
    found = settings(tmp_path, None, tmp_path)
    assert (found.pipeline, found.replica, found.egress, found.members) == (("default", "main"), "r2", "desk", 3)
    assert (found.allow_withdraw, found.check_every) == (True, 6 * 3600)
    assert found.key_file == tmp_path / "kek" / "keys"
    [declared] = found.declared
    assert (declared.name, declared.secret, declared.enabled) == (Name("default", "options"), "deribit-key", False)
    assert declared.venue == "deribit/Derivatives/Testnet"
    assert declared.endpoints == {"rest": "https://here"}


def test_a_key_file_of_the_command_line_goes_first_and_without_a_folder_there_is_none(tmp_path: Path) -> None:
    assert settings(tmp_path, tmp_path / "other", tmp_path).key_file == tmp_path / "other"
    assert settings(tmp_path, None, None).key_file is None
