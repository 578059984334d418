"""An ExchangeAccount from its first sight on: its Secret, its pipeline, the account receivers, what they say of it."""

from __future__ import annotations

from typing import Any

import pytest
from flow_world import ACCOUNT, ACCOUNT_TEXT, FEED_TEXT, KEYS, PIPELINE, PIPELINE_TEXT, World

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.reconcile.queue import Key

POOL = ["ConfigMap main-accounts-config", "Deployment main-accounts", "NetworkPolicy main-accounts"]
POD = "main-accounts-1"
GOOD = {"state": "listening", "key": "ok"}


def health(world: World, **said: Any) -> dict[str, Any]:
    """Of an account receiver that works with the newest configuration."""
    digest = world.get("ConfigMap", "main-accounts-config")["metadata"]["annotations"][names.CONFIG_HASH]
    return {
        "service": "accounts", "ready": True, "config": {"hash": digest}, "redis": {"reachable": True},
        "postgres": {"reachable": True},
        "accounts": {"listening": 3, "reconciling": 1, "connecting": 0, "waiting": 0, "refused": 2, "disabled": 1},
        "manifests": {"ns/fund": said} if said else {},
    }  # fmt: skip


async def listening(world: World) -> None:
    """A pipeline and an account that all is well with."""
    await world.secret()
    await world.secret(KEYS, "fund-key")
    await world.make(PIPELINE_TEXT)
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    await world.migrated()
    await world.rolled_out()
    await world.says(POD, names.ACCOUNTS, health(world, **GOOD))


def pool(world: World) -> list[str]:
    return [each for each in world.made(PIPELINE) if "main-accounts" in each]


async def test_an_account_brings_the_receivers_and_is_listened_to(world: World) -> None:
    await listening(world)
    assert pool(world) == POOL
    assert world.configured("main-accounts-config") == ["FeedPipeline main", "ExchangeAccount fund"]
    # Processors have nothing to do with it.
    assert world.configured("main-pipeline-config") == ["FeedPipeline main"]
    assert world.conditions(ACCOUNT) == {
        "Ready": "True/Listening",
        "Accepted": "True/Valid",
        "Listening": "True/Listening",
        "KeySound": "True/NothingFound",
        "Suspended": "False/NotSuspended",
    }
    assert world.status(ACCOUNT)["state"] == "Listening"
    assert world.status(ACCOUNT)["observedGeneration"] == 1
    assert world.conditions(PIPELINE)["AccountsAvailable"] == "True/Available"
    assert world.conditions(PIPELINE)["Ready"] == "True/AllAvailable"
    assert world.conditions(PIPELINE)["Progressing"] == "False/Reconciled"
    assert world.status(PIPELINE)["accounts"] == {
        "replicas": 1, "updated": 1, "ready": 1, "enabled": 6, "listening": 4, "refused": 2,
    }  # fmt: skip
    assert world.told.of("Ready")[-1] == "orders, fills, balances and positions are heard"
    # Nothing of it stands in the user's object but the status.
    assert world.made(ACCOUNT) == []
    assert set(world.get(*ACCOUNT)["metadata"]) & {"finalizers", "annotations"} == set()
    world.writes()
    await world.settle(600)
    assert world.writes() == []


async def test_without_accounts_there_are_no_receivers(world: World) -> None:
    await world.usual()
    assert pool(world) == []
    assert "AccountsAvailable" not in world.conditions(PIPELINE)
    assert "accounts" not in world.status(PIPELINE)


async def test_a_pipeline_that_asks_for_them_has_receivers_without_any_account(world: World) -> None:
    await world.secret()
    await world.secret({"keys": "k1 AAAA"}, "wrapping")
    wanted = {"replicas": 2, "keyEncryptionSecretRef": {"name": "wrapping", "key": "keys"}}
    await world.make(PIPELINE_TEXT, accounts=wanted)
    await world.settle()
    await world.migrated()
    assert pool(world) == sorted([*POOL, "PodDisruptionBudget main-accounts"])
    assert world.conditions(PIPELINE)["AccountsAvailable"] == "False/Starting"
    await world.rolled_out()
    assert world.conditions(PIPELINE)["AccountsAvailable"] == "True/Available"
    # Nobody has said how many accounts there are: that is not none.
    assert world.status(PIPELINE)["accounts"] == {"replicas": 2, "updated": 2, "ready": 2}


async def test_a_key_encryption_key_that_is_missing_is_named(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT, accounts={"keyEncryptionSecretRef": {"name": "wrapping", "key": "keys"}})
    await world.settle()
    assert world.conditions(PIPELINE)["Accepted"] == "False/SecretNotFound"
    message = world.message(PIPELINE, "Accepted")
    assert "spec.accounts.keyEncryptionSecretRef" in message
    assert "create secret generic wrapping --from-file=keys=FILE" in message


@pytest.mark.parametrize(
    ("values", "reason", "words"),
    [
        (None, "SecretNotFound", ["spec.credentialsSecretRef", "Secret fund-key in namespace ns", "--from-file"]),
        ({"apiSecret": "planted-secret"}, "SecretKeyMissing", ["no key apiKey", "it has: apiSecret"]),
        ({"apiKey": "planted-key"}, "SecretKeyMissing", ["no key apiSecret, or privateKey", "it has: apiKey"]),
        ({**KEYS, "privateKey": "planted-pem"}, "SecretInvalid", ["apiSecret and privateKey are both there"]),
        ({**KEYS, "apiKey": " \n"}, "SecretInvalid", ["key apiKey of Secret fund-key", "it is empty"]),
    ],
)
async def test_a_secret_that_cannot_be_used_is_named(
    world: World, values: dict[str, str] | None, reason: str, words: list[str]
) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    if values is not None:
        await world.secret(values, "fund-key")
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    found = world.conditions(ACCOUNT)
    assert found["Accepted"] == found["Ready"] == f"False/{reason}"
    message = world.message(ACCOUNT, "Accepted")
    assert [word for word in words if word not in message] == []
    assert world.told.of(reason) == [message]
    assert world.status(ACCOUNT)["state"] == "Refused"
    assert "planted" not in str([world.status(ACCOUNT), world.status(PIPELINE), world.told.events])
    # Its receivers are there all the same: they need no restart when the Secret comes.
    await world.migrated()
    assert pool(world) == POOL
    before = world.get("Deployment", "main-accounts")["spec"]["template"]
    if values is not None:
        await world.api.delete(kinds.SECRET, "ns", "fund-key")
    await world.secret(KEYS, "fund-key")
    await world.settle()
    assert world.conditions(ACCOUNT)["Accepted"] == "True/Valid"
    assert world.get("Deployment", "main-accounts")["spec"]["template"] == before


async def test_without_its_pipeline_it_waits_for_it(world: World) -> None:
    await world.secret(KEYS, "fund-key")
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    assert world.conditions(ACCOUNT)["Accepted"] == "False/PipelineNotFound"
    message = world.message(ACCOUNT, "Accepted")
    assert 'spec.pipelineRef.name: "main"' in message
    assert "an account and its pipeline share one namespace" in message
    assert world.conditions(ACCOUNT)["Listening"] == "False/NotAccepted"
    await world.make(PIPELINE_TEXT)
    await world.settle()
    assert world.conditions(ACCOUNT)["Accepted"] == "False/PipelineNotAccepted"
    await world.secret()
    await world.settle()
    assert world.conditions(ACCOUNT)["Accepted"] == "True/Valid"
    assert world.conditions(ACCOUNT)["Listening"] == "False/Migrating"


async def test_a_market_without_accounts_is_told(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.make(ACCOUNT_TEXT, exchange={"name": "binnance", "market": "Spot"})
    await world.settle()
    assert world.conditions(ACCOUNT)["Accepted"] == "False/ExchangeUnknown"
    assert "did you mean" in world.message(ACCOUNT, "Accepted")
    assert pool(world) == []


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"state": "reconciling"}, {"Ready": "True/Reconciling", "Listening": "True/Reconciling"}),
        ({"state": "connecting", "message": "the connection ended"}, {"Listening": "False/Connecting"}),
        (
            {"state": "Connecting", "reason": "ExchangeUnreachable", "message": "no route"},
            {"Ready": "False/ExchangeUnreachable", "Listening": "False/ExchangeUnreachable"},
        ),
        (
            {"state": "waiting", "reason": "SecretMissing", "message": "no file"},
            {"Accepted": "True/Valid", "Ready": "False/SecretPending", "Listening": "False/SecretPending"},
        ),
        (
            {"state": "refused", "reason": "RefusedByVenue", "message": "-2015: wrong key"},
            {"Accepted": "True/Valid", "Ready": "False/RefusedByVenue", "Listening": "False/RefusedByVenue"},
        ),
        ({"state": "refused", "message": "-2015: wrong key"}, {"Listening": "False/RefusedByVenue"}),
        (
            {"state": "refused", "reason": "MayWithdraw", "message": "take that right away", "key": "refused"},
            {"Listening": "False/MayWithdraw", "KeySound": "False/MayWithdraw"},
        ),
        (
            {"state": "refused", "reason": "ConnectionLimit", "message": "32 connections are all there are"},
            {"Ready": "False/ConnectionLimit", "Listening": "False/ConnectionLimit"},
        ),
        (
            {"state": "refused", "reason": "NameTaken", "message": "the credential store has it"},
            {"Accepted": "False/NameTaken", "Ready": "False/NameTaken", "Listening": "False/NotAccepted"},
        ),
        (
            {"state": "refused", "reason": "SecretInvalid", "message": "apiKey has white space"},
            {"Accepted": "False/SecretInvalid", "Listening": "False/NotAccepted"},
        ),
        (
            {"state": "listening", "key": "warning", "warning": "the key expires in 3 days: make a new one"},
            {"Ready": "True/Listening", "Listening": "True/Listening", "KeySound": "False/KeyWarning"},
        ),
        (
            {"state": "refused", "reason": "RefusedByVenue", "message": "the key has expired", "key": "refused"},
            {"Listening": "False/RefusedByVenue", "KeySound": "False/RefusedByVenue"},
        ),
        # Mended, and the word of the exchange about it is on its way.
        ({"state": "listening", "key": "refused"}, {"Ready": "True/Listening", "KeySound": "Unknown/NobodyAnswered"}),
        ({"state": "dancing"}, {"Ready": "Unknown/NobodyAnswered", "Listening": "Unknown/NobodyAnswered"}),
    ],
)
async def test_what_the_receivers_say_is_shown(world: World, said: dict[str, str], found: dict[str, str]) -> None:
    await listening(world)
    await world.says(POD, names.ACCOUNTS, health(world, **said))
    assert {kind: world.conditions(ACCOUNT)[kind] for kind in found} == found
    for kind in ("Ready", "Accepted", "Listening", "KeySound"):
        state, reason = world.conditions(ACCOUNT)[kind].split("/")
        told = [message for _, why, message in world.told.events if why == reason]
        if state == "False" and reason in ("RefusedByVenue", "MayWithdraw", "NameTaken", "KeyWarning"):
            assert world.message(ACCOUNT, kind) in told


async def test_of_two_members_the_one_that_listens_is_heard(world: World) -> None:
    """While an account moves, the one that gave it up may have a word left."""
    await listening(world)
    await world.says("main-accounts-0", names.ACCOUNTS, health(world, state="connecting", message="the other has it"))
    assert world.conditions(ACCOUNT)["Listening"] == "True/Listening"
    await world.says(POD, names.ACCOUNTS, health(world))
    assert world.conditions(ACCOUNT)["Listening"] == "False/Connecting"


async def test_a_word_about_the_former_spec_is_no_word(world: World) -> None:
    await listening(world)
    world.edit(ACCOUNT, lambda found: found["spec"].update(exchange={**found["spec"]["exchange"], "endpoints": {
        "stream": "wss://proxy.example/ws"}}))  # fmt: skip
    await world.settle()
    assert world.conditions(ACCOUNT)["Listening"] == "Unknown/ConfigPending"
    assert world.conditions(ACCOUNT)["Ready"] == "Unknown/ConfigPending"
    await world.says(POD, names.ACCOUNTS, health(world, **GOOD))
    assert world.conditions(ACCOUNT)["Ready"] == "True/Listening"
    # Another's change does not take back what was said of this one.
    await world.make(ACCOUNT_TEXT.replace("name: fund,", "name: other,"))
    await world.settle()
    assert world.conditions(ACCOUNT)["Ready"] == "True/Listening"


async def test_a_fill_is_shown_and_not_written_at_once(world: World) -> None:
    await listening(world)
    await world.says(POD, names.ACCOUNTS, health(world, **GOOD, lastFill="2026-11-26T10:15:42.123Z"))
    assert world.status(ACCOUNT)["lastFill"] == "2026-11-26T10:15:00Z"
    world.writes()
    await world.says(POD, names.ACCOUNTS, health(world, **GOOD, lastFill="2026-11-26T10:15:59Z"))
    await world.settle(600)
    assert world.writes() == []
    # A member that has just begun knows of none yet.
    await world.says(POD, names.ACCOUNTS, health(world, **GOOD))
    assert world.status(ACCOUNT)["lastFill"] == "2026-11-26T10:15:00Z"


async def test_a_suspended_account_stays_configured(world: World) -> None:
    await listening(world)
    before = world.get("Deployment", "main-accounts")["spec"]["template"]
    world.edit(ACCOUNT, lambda found: found["spec"].update(suspend=True))
    await world.settle()
    found = world.conditions(ACCOUNT)
    assert found["Ready"] == "False/Suspended"
    assert found["Suspended"] == "True/Suspended"
    assert found["Accepted"] == "True/Valid"
    await world.says(POD, names.ACCOUNTS, health(world, state="disabled"))
    assert world.conditions(ACCOUNT)["Listening"] == "False/Suspended"
    assert world.status(ACCOUNT)["state"] == "Suspended"
    assert world.get("Deployment", "main-accounts")["spec"]["template"] == before


async def test_a_suspended_pipeline_listens_to_nothing(world: World) -> None:
    await listening(world)
    world.edit(PIPELINE, lambda found: found["spec"].update(suspend=True))
    await world.settle()
    assert "Deployment main-accounts" not in world.made(PIPELINE)
    assert world.conditions(ACCOUNT)["Ready"] == "False/Suspended"
    assert "FeedPipeline main is suspended" in world.message(ACCOUNT, "Listening")
    assert world.status(ACCOUNT)["state"] == "Stopped"


async def test_receivers_that_do_not_work_are_told_of_each_account(world: World) -> None:
    await listening(world)
    status = {"status": {"readyReplicas": 0, "replicas": 1}}
    await world.api.patch_status(kinds.DEPLOYMENT, "ns", "main-accounts", status)
    await world.settle()
    assert world.conditions(ACCOUNT)["Listening"] == "False/NotReady"
    assert "no account receiver is ready" in world.message(ACCOUNT, "Listening")
    assert world.conditions(PIPELINE)["Ready"] == "False/NotReady"
    assert world.status(ACCOUNT)["state"] == "Stopped"


async def test_a_deleted_account_leaves_the_configuration_and_nothing_behind(world: World) -> None:
    await listening(world)
    await world.make(ACCOUNT_TEXT.replace("name: fund,", "name: other,").replace("fund-key", "other-key"))
    await world.settle()
    await world.api.delete(kinds.ACCOUNT, "ns", "fund")
    await world.settle()
    assert world.configured("main-accounts-config") == ["FeedPipeline main", "ExchangeAccount other"]
    assert "fund-key" not in str(world.get("Deployment", "main-accounts"))
    await world.api.delete(kinds.ACCOUNT, "ns", "other")
    await world.settle()
    assert pool(world) == []
    assert "AccountsAvailable" not in world.conditions(PIPELINE)


async def test_another_image_keeps_the_former_receivers_until_the_database_is_migrated(world: World) -> None:
    await listening(world)
    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:2"))
    await world.settle()
    assert _image(world) == "services:1"
    await world.migrated_to("services:2")
    assert _image(world) == "services:2"


async def test_a_paused_pipeline_takes_no_account(world: World) -> None:
    await world.usual()
    await world.secret(KEYS, "fund-key")
    world.annotate(PIPELINE, names.PAUSE, "true")
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    assert pool(world) == []
    assert world.conditions(ACCOUNT)["Accepted"] == "True/Valid"
    assert world.conditions(ACCOUNT)["Ready"].startswith("False/")
    world.annotate(PIPELINE, names.PAUSE, None)
    await world.settle()
    assert pool(world) == POOL


async def test_an_account_changes_nothing_of_feeds_and_processors(world: World) -> None:
    await world.usual()
    await world.secret(KEYS, "fund-key")
    await world.make(FEED_TEXT.replace("name: btc", "name: eth"))
    await world.settle()
    names_of = ("btc-receiver-0", "eth-receiver-0", "main-processor")
    before = [world.get("Deployment", name)["spec"] for name in names_of]
    world.writes()
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    assert [world.get("Deployment", name)["spec"] for name in names_of] == before
    applied = {each.split(" ", 1)[1] for each in world.writes() if each.startswith("apply")}
    assert applied == set(POOL)


async def test_that_pods_were_starting_is_no_word_of_theirs(world: World) -> None:
    await world.secret()
    await world.secret(KEYS, "fund-key")
    await world.make(PIPELINE_TEXT)
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    await world.migrated()
    assert world.conditions(ACCOUNT)["Listening"] == "False/Starting"
    await world.runs(POD, names.ACCOUNTS)
    await world.rolled_out()
    assert world.conditions(ACCOUNT)["Listening"] == "Unknown/NobodyAnswered"


async def test_a_deleted_pipeline_is_missed(world: World) -> None:
    await listening(world)
    await world.api.delete(kinds.PIPELINE, "ns", "main")
    await world.settle()
    assert world.conditions(ACCOUNT)["Ready"] == "False/PipelineNotFound"
    assert world.conditions(ACCOUNT)["Listening"] == "False/NotAccepted"
    assert world.status(ACCOUNT)["state"] == "Refused"


async def test_an_account_that_was_heard_is_not_forgotten_by_the_next_operator(world: World) -> None:
    """What was last said goes on to count until the receivers were asked, and no longer."""
    await listening(world)
    await world.stop()
    world.writes()
    clock = [1000.0]
    await world.start(answers_clock=lambda: clock[0])
    pod = await world.runs(POD, names.ACCOUNTS)
    await world.settle()
    assert world.conditions(ACCOUNT)["Ready"] == "True/Listening"
    assert not [each for each in world.writes() if "ExchangeAccount" in each]
    clock[0] += 46
    world.controller.queue.add(Key("FeedPipeline", "ns", "main"))
    await world.settle()
    assert world.conditions(ACCOUNT)["Ready"] == "Unknown/NobodyAnswered"
    assert world.conditions(ACCOUNT)["KeySound"] == "Unknown/NobodyAnswered"
    await world.answers_so(pod, health(world, **GOOD))
    assert world.conditions(ACCOUNT)["Ready"] == "True/Listening"


def _image(world: World) -> str:
    found: str = world.get("Deployment", "main-accounts")["spec"]["template"]["spec"]["containers"][0]["image"]
    return found
