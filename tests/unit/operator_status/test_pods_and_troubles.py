"""A pod's few facts, and what is said of one that does not work."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.shared.log import register_secret
from feedmill_operator import names
from feedmill_operator.reconcile import troubles
from feedmill_operator.reconcile.pods import LONGEST, PodFacts, pod_facts
from feedmill_operator.reconcile.reasons import Reason


def pod(container: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "spot-receiver-0-x",
            "namespace": "ns",
            "labels": {
                names.FEED: "spot", names.PIPELINE: "main", names.COMPONENT: "receiver", names.SHARD: "0",
                "pod-template-hash": "abc",
            },
        },
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {"name": "receiver", "image": "reg/fm:1", "ready": False, "restartCount": 0, **(container or {})}
            ],
            **status,
        },
    }  # fmt: skip


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def test_facts_of_a_running_pod() -> None:
    found = pod_facts(
        pod(
            {"ready": True, "state": {"running": {}}},
            phase="Running",
            podIP="10.0.0.1",
            conditions=[{"type": "Ready", "status": "True"}],
        )
    )
    assert found == PodFacts(
        namespace="ns", name="spot-receiver-0-x", pipeline="main", feed="spot", component="receiver", shard=0,
        template="abc", ip="10.0.0.1", node="n1", phase="Running", ready=True, containers=found.containers,
    )  # fmt: skip
    assert found.running
    assert found.containers[0].running
    assert troubles.of_pod(found) is None


def test_a_pod_of_which_nothing_is_known_yet() -> None:
    found = pod_facts({"metadata": {"name": "p", "namespace": "ns"}})
    assert found == PodFacts("ns", "p")
    assert not found.running


def test_messages_are_short_and_without_secrets() -> None:
    register_secret("hunter2hunter2")
    text = "x" * 400 + " redis://u:hunter2hunter2@h the end"
    said = pod_facts(pod({"state": {}, "lastState": ended(1, message=text)})).containers[0].exit_message
    assert len(said) == LONGEST
    assert said.endswith("the end")
    assert "hunter2" not in said


CASES: list[tuple[str, dict[str, Any], Reason | None, list[str]]] = [
    (
        "pull",
        pod(waiting("ImagePullBackOff", "Back-off pulling image")),
        Reason.IMAGE_PULL_FAILED,
        ["reg/fm:1", "spec.image"],
    ),
    ("pull-error", pod(waiting("ErrImagePull", "not found")), Reason.IMAGE_PULL_FAILED, ["not found", "describe pod"]),
    (
        "crash-loop",
        pod(waiting("CrashLoopBackOff", restartCount=4, lastState=ended(1, message="boom"))),
        Reason.CRASH_LOOPING,
        ["exit code 1", "boom", "logs spot-receiver-0-x --previous"],
    ),
    (
        "bad-config",
        pod(waiting("CrashLoopBackOff", lastState=ended(2, message="spec.channels[0]: no"))),
        Reason.CRASH_LOOPING,
        ["cannot use its configuration", "spec.channels[0]: no"],
    ),
    (
        "oom",
        pod(waiting("CrashLoopBackOff", lastState=ended(137, "OOMKilled"))),
        Reason.OUT_OF_MEMORY,
        ["limits.memory"],
    ),
    ("just-ended", pod({"state": ended(1, message="first")}), Reason.CRASH_LOOPING, ["first"]),
    ("ended-well", pod({"state": ended(0, "Completed")}), None, []),
    (
        "again-and-again",
        pod({"state": {"running": {}}, "restartCount": 3, "lastState": ended(1)}, phase="Running"),
        Reason.CRASH_LOOPING,
        ["exit code 1"],
    ),
    ("once", pod({"state": {"running": {}}, "restartCount": 1, "lastState": ended(1)}, phase="Running"), None, []),
    (
        "config",
        pod(waiting("CreateContainerConfigError", 'secret "redis" not found')),
        Reason.CONTAINER_CONFIG_ERROR,
        ['secret "redis" not found'],
    ),
    (
        "no-node",
        pod(
            conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
        ),
        Reason.UNSCHEDULABLE,
        ["0/3 nodes", "resources"],
    ),
    (
        "volume",
        pod(
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "pod has unbound immediate PersistentVolumeClaims",
                }
            ]
        ),
        Reason.VOLUME_PENDING,
        ["get pvc", "StorageClass"],
    ),
    ("evicted", pod(phase="Failed", reason="Evicted", message="disk"), Reason.EVICTED, ["Evicted", "disk"]),
    ("starting", pod(waiting("ContainerCreating")), None, []),
    ("fresh", pod({"state": {"running": {}}}, phase="Running"), None, []),
]


@pytest.mark.parametrize(("manifest", "reason", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_troubles(manifest: dict[str, Any], reason: Reason | None, words: list[str]) -> None:
    found = troubles.of_pod(pod_facts(manifest))
    assert (found.reason if found else None) is reason
    for word in words:
        assert found is not None
        assert word in found.message


def test_one_that_answers_is_not_judged_by_its_past() -> None:
    facts = pod_facts(pod({"state": {"running": {}}, "restartCount": 3, "lastState": ended(1)}, phase="Running"))
    assert troubles.of_pod(facts, answered=True) is None
    again = pod_facts(pod(waiting("CrashLoopBackOff", lastState=ended(1))))
    assert troubles.of_pod(again, answered=True) is not None


def test_one_that_is_going_is_no_trouble() -> None:
    manifest = pod(waiting("CrashLoopBackOff"))
    manifest["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert troubles.of_pod(pod_facts(manifest)) is None


def test_the_cause_comes_before_its_consequences() -> None:
    crash = troubles.Trouble(Reason.CRASH_LOOPING, "a")
    quota = troubles.of_refusal("spot-receiver-0", 'pods "x" is forbidden: exceeded quota: q', "ns")
    assert quota.reason is Reason.QUOTA_EXCEEDED
    assert troubles.worst([crash, quota]) is quota
    refused = troubles.of_refusal("spot-receiver-0", "violates PodSecurity", "ns")
    assert refused.reason is Reason.PODS_REFUSED
    assert "violates PodSecurity" in refused.message
    assert troubles.worst([]) is None
