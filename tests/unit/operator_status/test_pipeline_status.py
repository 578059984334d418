"""What is said of a pipeline, fact by fact."""

from __future__ import annotations

import pytest
from status_facts import NOW, after, fresh_pod, good, pipeline, role, rollout, shown

from feedmill.resources.status import PipelineStatus
from feedmill_operator.reconcile.answer import Server
from feedmill_operator.reconcile.facts import Migration, PipelineFacts, Role
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.status import pipeline_status
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal

GOOD = {
    "Ready": "True/AllAvailable",
    "Accepted": "True/Valid",
    "Progressing": "False/Reconciled",
    "ProcessorAvailable": "True/Available",
    "RedisReachable": "True/Reachable",
    "PostgresReachable": "True/Reachable",
    "BackupHealthy": "Unknown/NotConfigured",
    "Suspended": "False/NotSuspended",
    "Paused": "False/NotPaused",
}
UP = Server(True, breaker="closed")
ABSENT = Role((rollout("main-processor", None, exists=False, current=False, ready=0, replicas=0, updated=0),))
RUNS = Migration("main-migration-2", done=False)
FAILED = Migration("main-migration-2", done=False, failed="relation x exists")
PULL = Migration("main-migration-2", done=False, trouble=Trouble(Reason.IMAGE_PULL_FAILED, "image cannot be pulled"))
UNKNOWN = {"RedisReachable": "Unknown/NobodyAnswered", "PostgresReachable": "Unknown/NobodyAnswered"}
MANAGED_DOWN = role(rollout("main-redis", None, ready=0, replicas=0, updated=0), pods=(), answers={})

CASES: list[tuple[str, PipelineFacts, dict[str, str]]] = [
    ("good", pipeline(), {}),
    ("nobody-answers", pipeline(processor=role(rollout("p", None), answers={})), UNKNOWN),
    ("no-use-for-servers", pipeline(processor=role(rollout("p", None), answers=good(redis=Server()))), UNKNOWN),
    ("postgres-away", pipeline(processor=role(rollout("p", None), answers=good(postgres=Server(False, "refused")))), {
        "Ready": "False/Unreachable", "PostgresReachable": "False/Unreachable",
    }),
    ("refused", pipeline(refusal=Refusal(Reason.SECRET_NOT_FOUND, "x"), processor=Role()), {
        "Ready": "False/SecretNotFound", "Accepted": "False/SecretNotFound", "Progressing": "False/NotAccepted",
        "ProcessorAvailable": "False/NotAccepted", **UNKNOWN,
    }),
    ("suspended", pipeline(suspended=True, processor=Role()), {
        "Ready": "False/Suspended", "Progressing": "False/Suspended", "ProcessorAvailable": "False/Suspended",
        "Suspended": "True/Suspended", **UNKNOWN,
    }),
    ("migrating-first", pipeline(migration=RUNS, migrated="", processor=ABSENT), {
        "Ready": "False/Migrating", "Progressing": "True/Migrating", "ProcessorAvailable": "False/Migrating", **UNKNOWN,
    }),
    ("migration-cannot-run", pipeline(migration=PULL, migrated="", processor=ABSENT), {
        "Ready": "False/ImagePullFailed", "Progressing": "True/Migrating",
        "ProcessorAvailable": "False/ImagePullFailed", **UNKNOWN,
    }),
    ("migration-failed-first", pipeline(migration=FAILED, migrated="", processor=ABSENT), {
        "Ready": "False/MigrationFailed", "Progressing": "False/MigrationFailed",
        "ProcessorAvailable": "False/MigrationFailed", **UNKNOWN,
    }),
    ("new-image-migrating", after(pipeline(), generation=2, migration=RUNS), {
        "Ready": "False/Migrating", "Progressing": "True/Migrating",
    }),
    ("new-image-failed", after(pipeline(), generation=2, migration=FAILED), {
        "Ready": "False/MigrationFailed", "Progressing": "False/MigrationFailed",
    }),
    ("another-database-same-generation", after(pipeline(), migration=RUNS), {"Progressing": "True/Migrating"}),
    ("managed-redis-down", pipeline(redis=MANAGED_DOWN, migration=RUNS, migrated="", processor=ABSENT), {
        "Ready": "False/ServerNotReady", "Progressing": "True/Migrating", "ProcessorAvailable": "False/Migrating",
        "RedisReachable": "False/ServerNotReady", "PostgresReachable": "Unknown/NobodyAnswered",
    }),
    ("managed-up", pipeline(redis=role(rollout("r", None)), postgres=role(rollout("p", None))), {}),
    ("unreadable-backup", pipeline(unreadable=True), {"BackupHealthy": "Unknown/NotAccepted"}),
    ("notifier-down", pipeline(notifier=role(rollout("n", None, ready=0), pods=(), answers={})), {
        "NotifierAvailable": "False/NotReady",
    }),
    ("notifier-up", pipeline(notifier=role(rollout("n", None))), {"NotifierAvailable": "True/Available"}),
    ("scaled-up", after(pipeline(), generation=2, processor=role(
        rollout("p", None, wanted=3, replicas=3, updated=3, ready=1), pods=(fresh_pod("a", None),),
        answers=good(postgres=UP))), {"Ready": "False/RollingOut", "Progressing": "True/RollingOut"}),
    ("later-down", after(pipeline(), processor=role(rollout("p", None, ready=0), pods=(), answers={})), {
        "Ready": "False/NotReady", "ProcessorAvailable": "False/NotReady", **UNKNOWN,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "differs"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_conditions(facts: PipelineFacts, differs: dict[str, str]) -> None:
    status = pipeline_status(facts, NOW)
    assert shown(status) == {**GOOD, **differs}
    assert all(item["observedGeneration"] == facts.generation for item in status["conditions"])
    PipelineStatus.model_validate(status)


def test_the_volume_of_a_managed_server_is_named() -> None:
    pod = fresh_pod(
        "main-postgres-0", None, phase="Pending", ready=False, ip="",
        unschedulable="pod has unbound immediate PersistentVolumeClaims", containers=(),
    )  # fmt: skip
    down = role(rollout("main-postgres", None, ready=0), pods=(pod,), answers={})
    status = pipeline_status(pipeline(postgres=down), NOW)
    assert shown(status)["Ready"] == "False/ServerNotReady"
    assert "kubectl -n ns get pvc" in status["conditions"][0]["message"]


def test_a_failed_migration_gives_its_last_words_and_the_way_out() -> None:
    message = pipeline_status(pipeline(migration=FAILED, processor=ABSENT), NOW)["conditions"][0]["message"]
    for word in ("relation x exists", "kubectl -n ns logs job/main-migration-2", "delete the Job"):
        assert word in message


def test_what_autoscalers_read() -> None:
    status = pipeline_status(
        pipeline(processor=role(rollout("p", None, wanted=2, replicas=3, updated=2, ready=1))), NOW
    )
    assert status["processor"] == {"replicas": 3, "updated": 2, "ready": 1, "selector": "a=b"}
    assert status["migration"] == "main-migration-1"
    assert status["feeds"] == 1
    assert status["image"] == "i:1"


@pytest.mark.parametrize(
    ("answers", "lag"),
    [
        ({"a": good(lag="<1s"), "b": good(lag="<10s")}, "<10s"),
        ({"a": good(lag="<1s"), "b": good(lag=None, standby=True)}, "<1s"),
        ({"a": good(lag=None, standby=True), "b": good(lag=None, standby=True)}, None),
        ({"a": good(lag="<1s"), "b": good(lag=None)}, None),
    ],
)
def test_lag(answers: dict[str, object], lag: str | None) -> None:
    pods = (fresh_pod("a", None), fresh_pod("b", None))
    facts = pipeline(processor=role(rollout("p", None, wanted=2), pods=pods, answers=answers))  # type: ignore[arg-type]
    assert pipeline_status(facts, NOW).get("lag") == lag
