"""A FeedPipeline from its first sight on: Secrets, migration, processors, managed servers, its feeds."""

from __future__ import annotations

import base64

import pytest
from flow_world import FEED, FEED_TEXT, IMAGE, PIPELINE, PIPELINE_TEXT, SERVERS, World

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Manifest
from feedmill_operator.reconcile.queue import Key

BASE = [
    "ConfigMap main-pipeline-config",
    "CronJob main-maintenance",
    *(
        f"NetworkPolicy main-{role}"
        for role in (names.DISTRIBUTOR, names.MAINTENANCE, names.MIGRATION, names.PROCESSOR, names.RECEIVER)
    ),
    "ServiceAccount main-feedmill",
]
PROCESSOR = "Deployment main-processor"
MANAGED = {"redis": {"managed": {}}, "postgres": {"managed": {}}}


def job(world: World) -> str:
    (name,) = world.names("Job")
    return f"Job {name}"


async def test_the_database_is_migrated_before_processors_are_made(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.settle()
    assert world.made(PIPELINE) == sorted([*BASE, job(world)])
    found = world.conditions(PIPELINE)
    assert found["Accepted"] == "True/Valid"
    assert found["Ready"] == "False/Migrating"
    assert found["Progressing"] == "True/Migrating"
    assert found["ProcessorAvailable"] == "False/Migrating"
    assert world.status(PIPELINE)["image"] == IMAGE
    assert "migration" not in world.status(PIPELINE)

    await world.migrated()
    assert world.made(PIPELINE) == sorted([*BASE, job(world), PROCESSOR])
    assert world.status(PIPELINE)["migration"] == job(world).split()[1]
    assert world.conditions(PIPELINE)["Ready"] == "False/Starting"

    await world.rolled_out()
    found = world.conditions(PIPELINE)
    assert found == {
        "Ready": "True/AllAvailable",
        "Accepted": "True/Valid",
        "Progressing": "False/Reconciled",
        "ProcessorAvailable": "True/Available",
        "RedisReachable": "Unknown/NobodyAnswered",
        "PostgresReachable": "Unknown/NobodyAnswered",
        "BackupHealthy": "Unknown/NotConfigured",
        "Suspended": "False/NotSuspended",
        "Paused": "False/NotPaused",
    }


async def test_a_migration_that_failed_is_told_with_its_words(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    await world.settle()
    failed = {"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}
    name = job(world).split()[1]
    await world.api.patch_status(kinds.JOB, "ns", name, {"status": {"conditions": [failed]}})
    await world.settle()
    assert world.conditions(PIPELINE)["Ready"] == "False/MigrationFailed"
    assert "BackoffLimitExceeded" in world.message(PIPELINE, "Ready")
    assert PROCESSOR not in world.made(PIPELINE)


@pytest.mark.parametrize(
    ("values", "reason", "words"),
    [
        (None, "SecretNotFound", ["spec.redis.urlSecretRef", "Secret servers in namespace ns", "redis"]),
        ({"redis": SERVERS["redis"]}, "SecretKeyMissing", ["spec.postgres.urlSecretRef", "servers", "key postgres"]),
        ({**SERVERS, "redis": "http://secret-word"}, "SecretInvalid", ["spec.redis.urlSecretRef", "servers", "redis"]),
    ],
)
async def test_without_its_secret_nothing_is_made(
    world: World, values: dict[str, str] | None, reason: str, words: list[str]
) -> None:
    if values is not None:
        await world.secret(values)
    await world.make(PIPELINE_TEXT)
    await world.settle()
    assert world.made(PIPELINE) == []
    assert world.conditions(PIPELINE)["Accepted"] == f"False/{reason}"
    assert world.conditions(PIPELINE)["Ready"] == f"False/{reason}"
    message = world.message(PIPELINE, "Accepted")
    assert [word for word in words if word not in message] == []
    assert "secret-word" not in str(world.status(PIPELINE))
    # The image is pinned from the first look on.
    assert world.status(PIPELINE)["image"] == IMAGE

    if values is not None:
        await world.api.delete(kinds.SECRET, "ns", "servers")
    await world.secret()
    await world.settle()
    assert world.conditions(PIPELINE)["Accepted"] == "True/Valid"
    assert world.made(PIPELINE) == sorted([*BASE, job(world)])


async def test_a_watched_secret_is_noticed_at_once(world: World) -> None:
    await world.secret({"redis": SERVERS["redis"]})
    world.edit(("Secret", "servers"), lambda found: found["metadata"].update(labels={names.WATCH: "true"}))
    await world.make(PIPELINE_TEXT)
    await world.settle(1)
    assert world.conditions(PIPELINE)["Accepted"] == "False/SecretKeyMissing"
    value = base64.b64encode(SERVERS["postgres"].encode()).decode()
    world.edit(("Secret", "servers"), lambda found: found["data"].update(postgres=value))
    await world.settle(1)
    assert world.conditions(PIPELINE)["Accepted"] == "True/Valid"


async def test_managed_servers_get_passwords_that_are_made_once(world: World) -> None:
    await world.make(PIPELINE_TEXT, **MANAGED)
    await world.settle()
    made = world.made(PIPELINE)
    for server in (names.REDIS, names.POSTGRES):
        assert {f"Secret main-{server}", f"Service main-{server}", f"StatefulSet main-{server}"} <= set(made)
    first = {server: world.get("Secret", f"main-{server}")["data"] for server in (names.REDIS, names.POSTGRES)}
    assert {frozenset(data) for data in first.values()} == {frozenset({"password", "url"})}
    assert first["redis"]["password"] != first["postgres"]["password"]
    password = base64.b64decode(first["redis"]["password"]).decode()
    assert len(password) >= 24
    assert password not in str([world.status(PIPELINE), world.told.events])
    world.writes()
    await world.stop()
    await world.start()
    await world.settle(600)
    assert {server: world.get("Secret", f"main-{server}")["data"] for server in first} == first
    assert world.writes() == []


async def test_a_password_somebody_changes_is_the_new_one(world: World) -> None:
    await world.make(PIPELINE_TEXT, **MANAGED)
    await world.settle()
    new = base64.b64encode(b"another-word").decode()
    world.edit(("Secret", "main-redis"), lambda found: found["data"].update(password=new))
    await world.settle()
    data = world.get("Secret", "main-redis")["data"]
    assert data["password"] == new
    assert "another-word" in base64.b64decode(data["url"]).decode()


async def test_looked_at_again_nothing_is_written(world: World) -> None:
    await world.usual()
    world.writes()
    world.controller.queue.add(Key("FeedPipeline", "ns", "main"))
    await world.settle(600)
    assert world.writes() == []


async def test_a_paused_pipeline_makes_nothing(world: World) -> None:
    await world.secret()
    await world.make(PIPELINE_TEXT)
    world.annotate(PIPELINE, names.PAUSE, "true")
    await world.settle()
    assert world.made(PIPELINE) == []
    world.writes()
    world.edit(PIPELINE, lambda found: found["spec"].update(processor={"replicas": 3}))
    await world.settle()
    assert world.made(PIPELINE) == []
    assert set(world.writes()) == {"status FeedPipeline main"}
    assert world.conditions(PIPELINE)["Paused"] == "True/Paused"
    assert world.conditions(PIPELINE)["Ready"].startswith("False/")
    world.annotate(PIPELINE, names.PAUSE, None)
    await world.settle()
    await world.migrated()
    assert world.made(PIPELINE) == sorted([*BASE, job(world), PROCESSOR, "PodDisruptionBudget main-processor"])


async def test_a_suspended_pipeline_has_no_processors_and_keeps_its_servers(world: World) -> None:
    await world.make(PIPELINE_TEXT, **MANAGED)
    await world.settle()
    await world.migrated()
    await world.rolled_out()
    world.edit(PIPELINE, lambda found: found["spec"].update(suspend=True))
    await world.settle()
    made = set(world.made(PIPELINE))
    assert not any(each.startswith("Deployment") for each in made)
    assert {"ConfigMap main-pipeline-config", "StatefulSet main-redis", "Secret main-redis"} <= made
    assert world.conditions(PIPELINE)["Ready"] == "False/Suspended"
    assert world.conditions(PIPELINE)["Suspended"] == "True/Suspended"


async def test_another_image_migrates_first_and_the_former_processors_go_on(world: World) -> None:
    await world.usual()
    former = job(world).split()[1]
    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:2"))
    await world.settle()
    assert image(world.get("Deployment", "main-processor")) == IMAGE
    assert former in world.names("Job")
    (new,) = [name for name in world.names("Job") if name != former]
    await world.migrated_to("services:2")
    assert world.names("Job") == [new]
    assert image(world.get("Deployment", "main-processor")) == "services:2"
    assert world.status(PIPELINE)["image"] == "services:2"
    assert world.status(PIPELINE)["migration"] == new
    # Its feeds follow.
    assert image(world.get("Deployment", "btc-receiver-0")) == "services:2"
    assert world.status(FEED)["image"] == "services:2"


async def test_managed_servers_keep_an_image_that_works_until_the_new_one_has_shown_that_it_does(world: World) -> None:
    """A word mistyped in spec.image must not stop Redis and PostgreSQL."""
    await world.make(PIPELINE_TEXT, **MANAGED)
    await world.settle()
    servers = [("StatefulSet", f"main-{server}") for server in (names.REDIS, names.POSTGRES)]
    # None is ready yet: one that cannot start gets the next image at once.
    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:1b"))
    await world.settle()
    assert [image(world.get(*each)) for each in servers] == ["services:1b"] * 2
    for _, name in servers:
        ready = {"status": {"replicas": 1, "readyReplicas": 1, "observedGeneration": 1}}
        await world.api.patch_status(kinds.STATEFUL_SET, "ns", name, ready)
    await world.migrated_to("services:1b")
    world.edit(PIPELINE, lambda found: found["spec"].update(image="services:2"))
    await world.settle(600)
    assert [image(world.get(*each)) for each in servers] == ["services:1b"] * 2
    await world.migrated_to("services:2")
    assert [image(world.get(*each)) for each in servers] == ["services:2"] * 2


async def test_an_operator_with_another_image_changes_no_pod(world: World) -> None:
    await world.usual()
    world.image = "services:3"
    world.writes()
    await world.stop()
    await world.start()
    await world.settle(600)
    assert world.writes() == []
    assert world.status(PIPELINE)["image"] == IMAGE


async def test_two_feeds_have_their_own_objects(world: World) -> None:
    await world.usual()
    other = FEED_TEXT.replace("name: btc", "name: eth")
    await world.make(other)
    await world.settle()
    assert world.made(("ExchangeFeed", "eth")) == [
        "ConfigMap eth-feed-config", "Deployment eth-distributor-0", "Deployment eth-receiver-0",
    ]  # fmt: skip
    assert world.status(PIPELINE)["feeds"] == 2
    assert world.configured("main-pipeline-config") == ["FeedPipeline main", "ExchangeFeed btc", "ExchangeFeed eth"]
    assert world.configured("eth-feed-config") == ["FeedPipeline main", "ExchangeFeed eth"]


async def test_backups_of_a_spec_that_is_refused_cannot_be_told(world: World) -> None:
    await world.secret()
    destination = {"b2": {"bucket": "b", "credentialsSecretRef": {"name": "b2"}}}
    await world.make(PIPELINE_TEXT, backup={"schedule": "0 3 * * *", "destination": destination})
    await world.settle()
    assert world.conditions(PIPELINE)["Accepted"] == "False/SpecInvalid"
    assert world.conditions(PIPELINE)["BackupHealthy"] == "Unknown/NotAccepted"


def image(workload: Manifest) -> str:
    containers = workload["spec"]["template"]["spec"]["containers"]
    (found,) = {each["image"] for each in containers}
    return str(found)
