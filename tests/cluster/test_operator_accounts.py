"""ExchangeAccounts on the real API server with its controllers: as users see them, and what is made for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.cluster import Cluster
from clusterkit.waiting import holds, until
from clusterkit.world import World

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("operator")]
KEYS = {"apiKey": "planted-key-7f3a", "apiSecret": "planted-secret-91bc"}


@pytest.fixture
def world(kwok_cluster: Cluster, namespace: str) -> World:
    world = World(kwok_cluster, namespace)
    world.secrets()
    return world


def configured(world: World) -> list[str]:
    """What account receivers are told, as "Kind name"."""
    found = world.one("configmaps", "main-accounts-config")
    documents = yaml.safe_load_all(found["data"]["resources.yaml"]) if found else ()
    return [f"{each['kind']} {each['metadata']['name']}" for each in documents]


def pool(world: World) -> Object:
    return world.cluster.api.need("deployments", world.namespace, "main-accounts")


def mounted(world: World) -> dict[str, bool]:
    """Secret -> whether a pod starts without it."""
    (volume,) = [each for each in pool(world)["spec"]["template"]["spec"]["volumes"] if each["name"] == "secrets"]
    return {each["secret"]["name"]: each["secret"].get("optional", False) for each in volume["projected"]["sources"]}


def uids(world: World, component: str) -> set[str]:
    return {each["metadata"]["uid"] for each in world.pods(component)}


def words(world: World, *arguments: str) -> list[list[str]]:
    """Output of kubectl, line by line."""
    return [line.split() for line in world.cluster.kubectl(*arguments, "-n", world.namespace).stdout.splitlines()]


def test_an_account_as_its_user_meets_it(world: World) -> None:
    """From a manifest without a Secret to receivers that run, by kubectl alone."""
    world.pipeline()
    world.ready("fpl/main")
    assert world.one("deployments", "main-accounts") is None
    world.account()
    said = world.wait("xa/fund", "Accepted", "False", reason="SecretNotFound")
    assert "create secret generic fund-key --from-file=apiKey --from-file=apiSecret" in said["message"]
    head, line = words(world, "get", "exchangeaccounts")
    assert head == ["NAME", "EXCHANGE", "MARKET", "READY", "REASON", "STATE", "FILL", "AGE"]
    assert line[:6] == ["fund", "binance", "Spot", "False", "SecretNotFound", "Refused"]
    until(lambda: world.events("xa/fund"), what="an Event")
    described = world.cluster.kubectl("describe", "xa", "fund", "-n", world.namespace).stdout
    for word in ("Accepted", "Listening", "KeySound", "Suspended", "Warning", "SecretNotFound", "fund-key"):
        assert word in described
    # Its receivers run already, and take the Secret without being touched when it comes.
    until(lambda: world.pods("accounts"), what="an account receiver")
    template, pods = pool(world)["spec"]["template"], uids(world, "accounts")
    world.secret("fund-key", apiKey=KEYS["apiKey"])
    said = world.wait("xa/fund", "Accepted", "False", reason="SecretKeyMissing")
    assert "no key apiSecret, or privateKey" in said["message"]
    world.cluster.api.merge("secrets", world.namespace, "fund-key", {"stringData": KEYS})
    world.wait("xa/fund", "Accepted")
    # Nobody answers on simulated nodes: unknown stays unknown.
    assert world.wait("xa/fund", "Listening", "Unknown")["reason"] == "NobodyAnswered"
    assert world.status("xa/fund")["state"] == "Unknown"
    assert pool(world)["spec"]["template"] == template
    assert uids(world, "accounts") == pods
    world.ready("fpl/main")
    # Which the pipeline does not wait for to be Ready.
    world.wait("fpl/main", "AccountsAvailable")
    until(lambda: world.status("fpl/main")["accounts"] == {"replicas": 1, "updated": 1, "ready": 1})
    # No value of the Secret has gone anywhere.
    seen = json.dumps([*world.made().values(), world.get("xa/fund"), world.get("fpl/main"), world.events("xa/fund")])
    assert not [value for value in KEYS.values() if value in seen]


def test_what_is_made_and_mounted(world: World) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    world.cluster.api.request(
        "PATCH", f"/api/v1/namespaces/{world.namespace}", {"metadata": {"labels": label}},
        "application/merge-patch+json",
    )  # fmt: skip
    world.secret("wrapping", keys="k1 0000")
    world.secret("fund-key", **KEYS)
    world.pipeline(accounts={"replicas": 2, "keyEncryptionSecretRef": {"name": "wrapping", "key": "keys"}})
    world.account()
    world.ready("fpl/main")
    until(lambda: len(world.pods("accounts")) == 2, what="two account receivers")
    assert mounted(world) == {"redis": False, "postgres": False, "fund-key": True, "wrapping": True}
    container = pool(world)["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][:4] == ["run", "accounts", "--pipeline", f"{world.namespace}/main"]
    assert {"name": "FEEDMILL_KEK_FILE", "value": "/etc/feedmill/secrets/wrapping/keys"} in container["env"]
    assert world.one("poddisruptionbudgets", "main-accounts") is not None
    assert world.one("networkpolicies", "main-accounts") is not None
    owners = {reference["name"] for item in world.made().values() for reference in item["metadata"]["ownerReferences"]}
    assert owners == {"main"}, "an account owns nothing"


def test_accounts_come_and_go_without_finalizers(world: World) -> None:
    for name in ("fund", "hedge"):
        world.secret(f"{name}-key", **KEYS)
    world.pipeline()
    world.account()
    world.account("hedge", suspend=True)
    until(lambda: configured(world) == ["FeedPipeline main", "ExchangeAccount fund", "ExchangeAccount hedge"])
    until(lambda: world.pods("accounts"))
    until(lambda: {"fund-key", "hedge-key"} <= set(mounted(world)))
    # Its processors come later, after the migration: they are counted below.
    world.ready("fpl/main")
    assert world.wait("xa/hedge", "Ready", "False")["reason"] == "Suspended"
    found = world.get("xa/fund")
    assert found is not None
    assert not found["metadata"].keys() & {"finalizers", "annotations"}
    processors = uids(world, "processor")
    world.delete("xa/fund")
    assert world.get("xa/fund") is None, "nobody holds it up"
    until(lambda: configured(world) == ["FeedPipeline main", "ExchangeAccount hedge"])
    until(lambda: "fund-key" not in mounted(world))
    world.delete("xa/hedge")
    until(lambda: world.one("deployments", "main-accounts") is None, what="the receivers to go")
    until(lambda: not [name for _, name in world.made() if name.startswith("main-accounts")])
    assert uids(world, "processor") == processors


def test_suspending_is_reloaded_and_another_secret_rolls(world: World) -> None:
    for name in ("fund-key", "other-key"):
        world.secret(name, **KEYS)
    world.pipeline()
    world.account()
    until(lambda: world.pods("accounts"), 60)
    world.ready("fpl/main")
    pods = uids(world, "accounts")

    def digest() -> str:
        found = world.cluster.api.need("configmaps", world.namespace, "main-accounts-config")
        return str(found["metadata"]["annotations"]["feedmill.dev/config-hash"])

    def told(pod: Object) -> bool:
        return (pod["metadata"].get("annotations") or {}).get("feedmill.dev/config-hash") == digest()

    before = digest()
    world.patch("xa/fund", {"spec": {"suspend": True}})
    until(lambda: digest() != before, what="another configuration")
    until(lambda: all(told(each) for each in world.pods("accounts")), what="the pods to be told of it")
    assert uids(world, "accounts") == pods
    world.patch("xa/fund", {"spec": {"credentialsSecretRef": {"name": "other-key"}}})
    until(lambda: "other-key" in mounted(world))
    until(lambda: len(found := uids(world, "accounts")) == 1 and not found & pods, what="new pods")


@pytest.mark.parametrize(
    ("spec", "reason", "word"),
    [
        ({"pipelineRef": {"name": "nowhere"}}, "PipelineNotFound", "nowhere"),
        ({"exchange": {"name": "kraken", "market": "Spot"}}, "ExchangeUnknown", "kraken"),
    ],
)
def test_what_cannot_be_carried_out_is_named(world: World, spec: dict[str, Any], reason: str, word: str) -> None:
    world.secret("fund-key", **KEYS)
    world.pipeline()
    world.account(**spec)
    said = world.wait("xa/fund", "Accepted", "False", reason=reason)
    assert word in said["message"]
    assert world.condition("xa/fund", "Ready")["reason"] == reason
    events = until(lambda: [each for each in world.events("xa/fund") if each["reason"] == reason], what="an Event")
    assert [each["type"] for each in events] == ["Warning"]
    assert world.one("deployments", "main-accounts") is None


def test_its_place_never_changes(world: World) -> None:
    """The API server refuses it itself, with the reason."""
    world.account()
    for spec in ({"exchange": {"market": "UsdM"}}, {"pipelineRef": {"name": "other"}}):
        done = world.cluster.kubectl(
            "patch", "xa/fund", "--type=merge", "-p", json.dumps({"spec": spec}), "-n", world.namespace, check=False
        )
        assert done.returncode != 0
        assert "immutable" in done.stderr


def test_a_missing_key_encryption_key_is_named(world: World) -> None:
    world.pipeline(accounts={"keyEncryptionSecretRef": {"name": "wrapping", "key": "keys"}})
    said = world.wait("fpl/main", "Accepted", "False", reason="SecretNotFound")
    assert "spec.accounts.keyEncryptionSecretRef" in said["message"]
    assert not world.pods()
    world.secret("wrapping", keys="k1 0000")
    world.ready("fpl/main", timeout=90)


def test_nothing_is_done_again_and_again(world: World) -> None:
    world.secret("fund-key", **KEYS)
    world.pipeline()
    world.account()
    until(lambda: world.pods("accounts"), 60)
    world.ready("fpl/main")
    world.wait("fpl/main", "AccountsAvailable")
    world.wait("xa/fund", "Listening", "Unknown")
    world.settled()

    def versions() -> list[str]:
        found = [item for (plural, _), item in sorted(world.made().items()) if plural in ("configmaps", "deployments")]
        return [each["metadata"]["resourceVersion"] for each in (*found, world.get("xa/fund") or {})]

    # Statuses are written a moment after what they tell, by the controllers, and by the operator within 5 s.
    seen: list[list[str]] = [[]]

    def same() -> bool:
        seen.append(versions())
        return seen[-1] == seen[-2]

    until(same, 90, every=6.0, what="all to stand still")
    world.patch("xa/fund", {"metadata": {"labels": {"a": "b"}}})
    before = versions()
    holds(lambda: versions() == before, 5)


def test_a_sample_of_every_field_is_taken(world: World) -> None:
    document = samples.full("ExchangeAccount")
    document["metadata"] = {"name": "mine", "namespace": world.namespace}
    world.cluster.api.create("exchangeaccounts", document)
    assert world.wait("xa/mine", "Accepted", "False")["message"]
