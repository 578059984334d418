"""examples/kubernetes: what is ours loads, and what is shown there is what the operator and the plugin expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from feedmill.plan import plan
from feedmill.resources.load import load_files
from feedmill_operator import names

FOLDER = Path(__file__).parents[3] / "examples" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_object_is_complete(path: Path) -> None:
    for document in documents(path):
        assert document["apiVersion"]
        where = document["metadata"].get("namespace")
        assert (where is None) == (document["kind"] == "Namespace"), "kubectl apply -f must not depend on a context"
    assert f"kubectl apply -f examples/kubernetes/{path.name}" in path.read_text(encoding="utf-8")


def test_the_managed_pipeline_and_its_feeds_load() -> None:
    found = load_files([FOLDER / "managed-pipeline.yaml", FOLDER / "feeds.yaml"])
    assert list(found.pipelines) == [("feeds", "main")]
    assert sorted(name for _, name in found.feeds) == ["binance-spot", "binance-usdm", "deribit"]
    roles = [workload.role for workload in plan(found)]
    assert roles.count("receiver") == roles.count("distributor") == 4


def test_accounts_bring_account_receivers_to_the_pipeline() -> None:
    path = FOLDER / "accounts.yaml"
    found = load_files([FOLDER / "managed-pipeline.yaml", path])
    text = path.read_text(encoding="utf-8")
    assert [workload.role for workload in plan(found)].count("accounts") == 1
    for account in found.accounts.values():
        assert f"kubectl create secret generic {account.spec.credentials_secret_ref.name} -n feeds" in text
    assert f"{names.WATCH}=true" in text


def test_the_pipeline_on_own_servers_names_secrets_of_its_file() -> None:
    path = FOLDER / "own-servers.yaml"
    (pipeline,) = load_files([path]).pipelines.values()
    secrets = {item["metadata"]["name"]: item for item in documents(path) if item["kind"] == "Secret"}
    spec = pipeline.spec
    assert spec.redis.tls is not None
    for reference in (spec.redis.url_secret_ref, spec.postgres.url_secret_ref, spec.redis.tls.ca_secret_ref):
        assert reference is not None
        assert reference.key in secrets[reference.name]["stringData"]
        assert secrets[reference.name]["metadata"]["labels"][names.WATCH] == "true"


def test_the_pipeline_with_backups_is_whole_and_its_head_makes_every_secret() -> None:
    path = FOLDER / "backups.yaml"
    (pipeline,) = load_files([path]).pipelines.values()
    backup, notifications = pipeline.spec.backup, pipeline.spec.notifications
    assert backup is not None
    assert backup.destination.credentials is not None
    assert notifications is not None
    assert notifications.telegram is not None
    text = path.read_text(encoding="utf-8")
    made = (backup.encryption.key_secret_ref.name, backup.destination.credentials.name,
            notifications.telegram.bot_token_secret_ref.name)  # fmt: skip
    for secret in made:
        assert f"create secret generic {secret} --from-file=" in text
    assert len(set(made)) == 3


def test_the_network_policy_selects_the_operators_pods() -> None:
    *_, policy = documents(FOLDER / "network-policies.yaml")
    (peer,) = policy["spec"]["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"] == {names.MANAGED_BY: names.MANAGER}
