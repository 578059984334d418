"""Account receivers: when there are any, what they mount and read, and what restarts them."""

from __future__ import annotations

from typing import Any

import pytest
from build_cases import (
    ACCOUNT,
    CASES,
    FEED,
    MANAGED,
    OPTIONS,
    POOL,
    account,
    feed,
    find,
    of_pipeline,
    pipeline,
    templates,
)  # fmt: skip

from feedmill.plan import plan
from feedmill.resources.account import ExchangeAccount
from feedmill.resources.load import load_texts
from feedmill_operator import names
from feedmill_operator.build import config
from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.pipeline import build_pipeline

DEPLOYMENT = "Deployment/main-accounts"


def built(*accounts: ExchangeAccount, **spec: Any) -> list[Manifest]:
    return build_pipeline(of_pipeline(pipeline(MANAGED, **spec), feed(FEED), accounts=accounts))


def named(made: list[Manifest]) -> set[str]:
    return {f"{each['kind']}/{each['metadata']['name']}" for each in made}


def sources(made: list[Manifest]) -> list[tuple[str, bool]]:
    """(Secret, whether a pod starts without it), in the order of mounting."""
    volumes = templates(made)[DEPLOYMENT]["spec"]["volumes"]
    (found,) = [each["projected"]["sources"] for each in volumes if "projected" in each]
    return [(each["secret"]["name"], each["secret"].get("optional", False)) for each in found]


def test_there_are_some_where_somebody_asks_for_them() -> None:
    none = built()
    asked, declared, both = (
        built(accounts={}),
        built(account(ACCOUNT)),
        built(account(ACCOUNT), accounts={"replicas": 2}),
    )
    own = {DEPLOYMENT, "ConfigMap/main-accounts-config", "NetworkPolicy/main-accounts"}
    assert named(asked) - named(none) == own
    assert named(declared) - named(none) == own
    assert named(both) - named(none) == own | {"PodDisruptionBudget/main-accounts"}
    # All else is as it was; that they may reach the servers apart.
    changed = [each["metadata"]["name"] for each in none if each not in declared]
    assert changed == ["main-redis", "main-postgres"]
    assert {each["kind"] for each in none if each not in declared} == {"NetworkPolicy"}


@pytest.mark.parametrize("accounts", [[], [ACCOUNT], [ACCOUNT, OPTIONS]], ids=len)
@pytest.mark.parametrize("spec", [{}, {"accounts": {"replicas": 3}}], ids=str)
def test_local_mode_and_cluster_agree(accounts: list[str], spec: dict[str, Any]) -> None:
    """The same plan: as many processes, with the same arguments."""
    declared = [account(text) for text in accounts]
    of = pipeline(MANAGED, **spec)
    resources = load_texts({"resources.yaml": config.accounts_config_text(of, declared)})
    # How many there are is none of their own business.
    resources.pipelines[of.key] = of
    local = [each for each in plan(resources) if each.role == "accounts"]
    made = built(*declared, **spec)
    cluster = find(made, "Deployment", "main-accounts") if DEPLOYMENT in named(made) else None
    assert len(local) == (cluster["spec"]["replicas"] if cluster else 0)
    for each in local:
        assert cluster is not None
        args = cluster["spec"]["template"]["spec"]["containers"][0]["args"]
        assert list(each.args[:4]) == args[:4]


def test_they_read_the_pipeline_and_its_accounts_and_no_feeds() -> None:
    declared = [account(OPTIONS), account(ACCOUNT)]
    of = pipeline(MANAGED, accounts=POOL, egress="office", logLevel="Debug")
    text = config.accounts_config_text(of, declared)
    assert text == config.accounts_config_text(of, reversed(declared))
    loaded = load_texts({"resources.yaml": text})
    (got,) = loaded.pipelines.values()
    assert got.spec.redis == of.spec.redis
    assert got.spec.postgres == of.spec.postgres
    assert (got.spec.egress, got.spec.log_level) == ("office", of.spec.log_level)
    assert got.account_pool.permissions == of.account_pool.permissions
    assert got.account_pool.key_encryption_secret_ref is None, "told by the environment"
    assert {key: each.spec for key, each in loaded.accounts.items()} == {each.key: each.spec for each in declared}
    assert not loaded.feeds


def test_no_secret_is_needed_for_a_pod_to_start_but_the_servers() -> None:
    assert sources(built(account(ACCOUNT))) == [("main-postgres", False), ("main-redis", False), ("fund-key", True)]
    # Keys that stand in a Secret of the servers are optional all the same.
    assert sources(CASES["own-accounts-pipeline"]()) == [
        ("database-app", False), ("database-ca", False), ("servers", False),
        ("fund-key", True), ("servers", True), ("wrapping", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "rolls"),
    [
        ({"suspend": True}, False),
        ({"exchange": {"endpoints": {"stream": "wss://proxy.example/ws"}}}, False),
        ({"credentialsSecretRef": {"name": "other-key"}}, True),
    ],
    ids=["suspend", "endpoints", "another Secret"],
)
def test_what_of_an_account_restarts_them(changes: dict[str, Any], rolls: bool) -> None:
    before, after = built(account(ACCOUNT)), built(account(ACCOUNT, **changes))
    assert (templates(before)[DEPLOYMENT] != templates(after)[DEPLOYMENT]) is rolls
    differ = {f"{each['kind']}/{each['metadata']['name']}" for each in after if each not in before}
    assert differ == {"ConfigMap/main-accounts-config"} | ({DEPLOYMENT} if rolls else set())


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"replicas": 2}, [DEPLOYMENT, "PodDisruptionBudget/main-accounts"]),
        ({"permissions": {"withdraw": "Flag"}}, ["ConfigMap/main-accounts-config"]),
        ({"keyEncryptionSecretRef": {"name": "wrapping", "key": "keys"}}, [DEPLOYMENT]),
        ({"resources": {"limits": {"memory": "1Gi"}}}, [DEPLOYMENT]),
    ],
    ids=str,
)
def test_what_of_the_pool_touches_what(changes: dict[str, Any], differ: list[str]) -> None:
    before, after = built(account(ACCOUNT), accounts={}), built(account(ACCOUNT), accounts=changes)
    assert {f"{each['kind']}/{each['metadata']['name']}" for each in after if each not in before} == set(differ)


def test_defaults_written_out_change_nothing() -> None:
    """So that a first word of ``spec.accounts`` restarts nothing."""
    assert built(account(ACCOUNT)) == built(
        account(ACCOUNT), accounts={"replicas": 1, "permissions": {"checkEvery": "24h"}}
    )


def test_they_wait_for_the_migration_and_stop_with_their_pipeline() -> None:
    inputs = of_pipeline(pipeline(MANAGED), accounts=[account(ACCOUNT)], migrated=False)
    assert DEPLOYMENT not in named(build_pipeline(inputs))
    stopped = built(account(ACCOUNT), suspend=True)
    assert DEPLOYMENT not in named(stopped)
    assert "ConfigMap/main-accounts-config" in named(stopped)


def test_they_reach_the_venues_and_are_reached_by_the_operator_only() -> None:
    made = built(account(ACCOUNT))
    spec = find(made, "NetworkPolicy", "main-accounts")["spec"]
    assert {"protocol": "TCP", "port": 1, "endPort": 65535} in [
        port for rule in spec["egress"] for port in rule["ports"]
    ]
    (rule,) = spec["ingress"]
    assert [each["port"] for each in rule["ports"]] == [names.HEALTH_PORT]
    for server in (names.REDIS, names.POSTGRES):
        (entry,) = find(made, "NetworkPolicy", f"main-{server}")["spec"]["ingress"]
        (source,) = entry["from"]
        assert names.ACCOUNTS in source["podSelector"]["matchExpressions"][0]["values"]


def test_many_accounts_fit_and_too_many_are_refused_with_a_remedy() -> None:
    def numbered(number: int) -> ExchangeAccount:
        one = account(ACCOUNT)
        return one.model_copy(update={"metadata": one.metadata.model_copy(update={"name": f"account-{number:05}"})})

    of = pipeline(MANAGED)
    assert len(config.accounts_config_text(of, [numbered(each) for each in range(1000)]).encode()) <= config.MOST_BYTES
    with pytest.raises(config.ConfigTooLarge, match="the 9000 ExchangeAccounts of pipeline main has"):
        config.accounts_config_text(of, [numbered(each) for each in range(9000)])
