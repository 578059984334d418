"""Backups on the real API server: a schedule's Jobs become objects, objects become Jobs, and ``kubectl get`` tells it.

The nodes are simulated: Jobs end at once, and what their pods would say stands in for them where it matters.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.cluster import Cluster
from clusterkit.operator import Operator
from clusterkit.waiting import holds, until
from clusterkit.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BACKUP: dict[str, Any] = {
    "schedule": "* * * * *",
    "timeZone": "Asia/Kolkata",
    "verify": {"schedule": "* * * * *"},
    "destination": {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "s3"}}},
    "encryption": {"keySecretRef": {"name": "backup-key", "key": "keys"}},
}
RARE = {**BACKUP, "schedule": "0 0 1 1 *", "verify": {"schedule": "0 0 1 1 *"}}
A_MINUTE = 180.0
"""Seconds within which something that is due every minute has been due, also on a slow machine."""


@pytest.fixture
def backed(kwok_cluster: Cluster, namespace: str) -> World:
    """A namespace with all the Secrets of a backup."""
    world = World(kwok_cluster, namespace)
    world.secrets()
    world.secret("s3", accessKeyId="planted-id", secretAccessKey="planted-secret")
    world.secret("backup-key", keys="first planted-key")
    return world


def nowhere(backup: Object) -> Object:
    """Its pods wait for a node that never comes, until a test says how they end."""
    return {**backup, "podTemplate": {"spec": {"nodeSelector": {"disk": "none-such"}}}}


def make(world: World, kind: str, name: str, **spec: Any) -> None:
    plural = {"FeedBackup": "feedbackups", "FeedRestore": "feedrestores"}[kind]
    metadata = {"name": name, "namespace": world.namespace}
    asked = {"pipelineRef": {"name": "main"}} | spec
    body = {"apiVersion": samples.VERSION, "kind": kind, "metadata": metadata, "spec": asked}
    world.cluster.api.create(plural, body)


def phase(world: World, what: str) -> str:
    return str(world.status(what).get("phase", ""))


def ends(world: World, job: str, said: Object, *, good: bool = True) -> None:
    """The pod of a Job, which no node took, ends and says so."""
    pods = until(lambda: [p for p in world.pods("backup-run") if p["metadata"]["labels"].get("job-name") == job])
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"exitCode": 0 if good else 2, "reason": "Completed" if good else "Error", "message": json.dumps(said),
             "startedAt": now, "finishedAt": now}  # fmt: skip
    status = {
        "phase": "Succeeded" if good else "Failed",
        "containerStatuses": [
            {"name": "backup-run", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": ended}},
        ],
    }  # fmt: skip
    where = f"/api/v1/namespaces/{world.namespace}/pods/{pods[0]['metadata']['name']}/status"
    world.cluster.api.request("PATCH", where, {"status": status}, "application/merge-patch+json")


SAID = {
    "phase": "Succeeded", "progress": 100, "backupId": "20261126T030000Z-logical-3f9a1c", "destination": "s3:backups",
    "object": "ns/main/logical/20261126T030000Z-logical-3f9a1c/data", "sizeBytes": 5_368_709_120, "sha256": "ab" * 32,
    "rows": 1234, "contentAt": "2026-11-26T03:00:00Z", "keyId": "first", "schemaVersion": "0003",
    "message": "1234 rows of 20 tables",
}  # fmt: skip


def test_what_a_schedule_makes_is_seen_and_one_at_a_time(backed: World, operator: Operator) -> None:
    # Nothing is due before it was looked at: a minute may begin while the pipeline gets ready.
    backed.pipeline(backup=RARE)
    backed.ready("fpl/main")
    assert backed.condition("fpl/main", "BackupHealthy")["reason"] == "NeverBackedUp"
    backed.patch("fpl/main", {"spec": {"backup": BACKUP}})

    def ended(plural: str) -> list[Object]:
        found = backed.cluster.api.list(plural, backed.namespace)
        return [each for each in found if (each.get("status") or {}).get("phase") == "Succeeded"]

    (backup, *_) = until(lambda: ended("feedbackups"), A_MINUTE, what="a FeedBackup of the schedule")
    (drill, *_) = until(lambda: ended("feedrestores"), A_MINUTE, what="a drill of the schedule")
    assert backup["metadata"]["name"].startswith("main-backup-")
    assert backup["spec"] == {"pipelineRef": {"name": "main"}, "kind": "Logical"}
    assert drill["spec"] == {"pipelineRef": {"name": "main"}, "mode": "Verify"}
    assert backup["status"]["job"] == backup["metadata"]["name"]
    assert backed.one("jobs", backup["metadata"]["name"]) is not None
    backed.wait("fpl/main", "BackupHealthy")
    shown = backed.cluster.kubectl("get", "fbk,frs", "-n", backed.namespace).stdout
    assert [word for word in ("KIND", "STATUS", "SIZE", "COMPLETED", "MODE", "TO") if word not in shown] == []
    assert "Succeeded" in shown
    # What its owner deletes does not come again.
    backed.delete(f"fbk/{backup['metadata']['name']}")
    holds(lambda: backed.get(f"fbk/{backup['metadata']['name']}") is None, 5)
    backed.patch("fpl/main", {"spec": {"backup": {"suspend": True}}})
    backed.wait("fpl/main", "BackupHealthy", "Unknown", reason="Suspended")
    until(lambda: all(each["spec"]["suspend"] for each in crons(backed)), what="the schedules to stand still")
    assert operator.errors() == []


def crons(world: World) -> list[Object]:
    found = world.cluster.api.list("cronjobs", world.namespace)
    return [each for each in found if "maintenance" not in each["metadata"]["name"]]


def test_a_backup_of_ones_own_says_what_came_of_it(backed: World, operator: Operator) -> None:
    backed.pipeline(backup=nowhere(RARE))
    backed.ready("fpl/main")
    make(backed, "FeedBackup", "now")
    until(lambda: backed.status("fbk/now").get("job") == "fbk-now")
    backed.wait("fbk/now", "Accepted")
    assert phase(backed, "fbk/now") == "Pending"
    ends(backed, "fbk-now", SAID)
    backed.wait("fbk/now", "Complete")
    status = backed.status("fbk/now")
    assert {name: status[name] for name in SAID} == SAID
    shown = backed.cluster.kubectl("get", "fbk", "now", "-n", backed.namespace).stdout.splitlines()[1].split()
    assert shown[:5] == ["now", "main", "Logical", "Succeeded", "5.0Gi"]
    until(lambda: backed.status("fpl/main").get("backup", {}).get("lastSuccess") == "2026-11-26T03:00:00Z", 90)
    # Another image begins nothing anew.
    uid = (backed.one("jobs", "fbk-now") or {})["metadata"]["uid"]
    backed.patch("fpl/main", {"spec": {"image": "registry.example.com/feedmill/services:2"}})
    holds(lambda: (backed.one("jobs", "fbk-now") or {})["metadata"]["uid"] == uid, 3)
    make(backed, "FeedBackup", "later")
    ends(backed, "fbk-later", {"phase": "Failed", "message": "the bucket backups does not exist"}, good=False)
    said = backed.wait("fbk/later", "Complete", "False", reason="RunFailed")
    assert said["message"] == "the bucket backups does not exist"
    backed.wait("fpl/main", "BackupHealthy", "False", reason="BackupFailed")
    shown = backed.cluster.kubectl("get", "fpl,fbk,frs,cronjob,job", "-n", backed.namespace, "-o", "yaml").stdout
    assert "planted" not in shown
    assert operator.errors() == []


def test_an_object_that_is_made_anew_is_a_run_of_its_own(backed: World, operator: Operator) -> None:
    """`kubectl replace --force`: the former's Job goes later than its object."""
    backed.pipeline(backup=nowhere(RARE))
    backed.ready("fpl/main")
    make(backed, "FeedBackup", "now")
    until(lambda: backed.status("fbk/now").get("job") == "fbk-now")
    ends(backed, "fbk-now", SAID)
    backed.wait("fbk/now", "Complete")
    former = (backed.one("jobs", "fbk-now") or {})["metadata"]["uid"]
    backed.delete("fbk/now")
    make(backed, "FeedBackup", "now")
    until(lambda: backed.status("fbk/now").get("job") == "fbk-now")
    assert (backed.one("jobs", "fbk-now") or {})["metadata"]["uid"] != former
    assert phase(backed, "fbk/now") == "Pending"
    assert "backupId" not in backed.status("fbk/now")
    assert operator.errors() == []


def test_a_job_of_ones_own_made_of_the_schedule_is_seen_where_its_name_may_be(
    backed: World, operator: Operator
) -> None:
    backed.pipeline(backup=nowhere(RARE))
    backed.ready("fpl/main")
    for name in ("my.backup", "mine"):
        backed.cluster.kubectl("create", "job", "--from=cronjob/main-backup", name, "-n", backed.namespace)
    until(lambda: backed.one("feedbackups", "mine") is not None, what="the FeedBackup of the one that may")
    assert [each["metadata"]["name"] for each in backed.cluster.api.list("feedbackups", backed.namespace)] == ["mine"]
    backed.ready("fpl/main")
    assert operator.errors() == []


def test_a_restore_waits_until_nobody_works_with_the_database(backed: World, operator: Operator) -> None:
    backed.pipeline(backup=RARE)
    backed.ready("fpl/main")
    make(backed, "FeedRestore", "back", mode="Restore", toTime="2026-11-25T03:00:00Z")
    said = backed.wait("frs/back", "Accepted", "False", reason="PipelineAtWork")
    assert "suspend" in said["message"]
    assert backed.one("jobs", "frs-back") is None
    backed.patch("fpl/main", {"spec": {"suspend": True}})
    until(lambda: phase(backed, "frs/back") == "Succeeded", 120, what="the restore")
    args = (backed.one("jobs", "frs-back") or {})["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:4] == ["backup", "restore", "--to", "2026-11-25T03:00:00Z"]
    assert not backed.pods("processor")
    backed.patch("fpl/main", {"spec": {"suspend": False}})
    backed.ready("fpl/main")
    assert operator.errors() == []


def test_what_cannot_be_carried_out_says_why_until_it_can(backed: World, operator: Operator) -> None:
    make(backed, "FeedBackup", "now")
    backed.wait("fbk/now", "Accepted", "False", reason="PipelineNotFound")
    backed.pipeline()
    backed.wait("fbk/now", "Accepted", "False", reason="BackupNotConfigured")
    backed.patch("fpl/main", {"spec": {"backup": {**RARE, "destination": {"folder": {"path": "/backups"}}}}})
    backed.wait("fbk/now", "Accepted", "False", reason="FolderWithoutClaim")
    gone = {**RARE, "encryption": {"keySecretRef": {"name": "not-yet", "key": "keys"}}}
    backed.patch("fpl/main", {"spec": {"backup": {**gone, "destination": {"folder": None, **RARE["destination"]}}}})
    backed.wait("fbk/now", "Accepted", "False", reason="SecretNotFound")
    # The pipeline itself goes on.
    backed.ready("fpl/main")
    backed.wait("fpl/main", "BackupHealthy", "False", reason="SecretNotFound")
    backed.secret("not-yet", keys="first planted-key")
    until(lambda: phase(backed, "fbk/now") == "Succeeded", 120, what="the backup")
    assert operator.errors() == []


def test_backups_go_on_while_the_operator_is_away(backed: World, operator: Operator) -> None:
    backed.pipeline(backup=BACKUP)
    backed.ready("fpl/main")
    until(lambda: len(crons(backed)) == 3, what="the schedules")
    assert operator.stop() == 0
    before = {each["metadata"]["name"] for each in backed.cluster.api.list("feedbackups", backed.namespace)}

    def done() -> list[Object]:
        found = backed.cluster.api.list("jobs", backed.namespace, "feedmill.dev/run=logical")
        new = [each for each in found if each["metadata"]["name"] not in before]
        return [each for each in new if (each.get("status") or {}).get("succeeded")]

    (job, *_) = until(done, A_MINUTE, what="a Job without the operator")
    name = job["metadata"]["name"]
    assert backed.get(f"fbk/{name}") is None
    operator.start().ready()
    until(lambda: phase(backed, f"fbk/{name}") == "Succeeded", 120, what="the Job to be taken up")


def test_what_notifies_and_what_uploads_the_log_are_one_pod_each(backed: World, operator: Operator) -> None:
    backed.secret("telegram", token="123:planted")
    telegram = {"botTokenSecretRef": {"name": "telegram", "key": "token"}, "chatId": "-1001"}
    backed.pipeline(backup={**RARE, "continuous": {"enabled": True}}, notifications={"telegram": telegram})
    backed.ready("fpl/main")
    backed.wait("fpl/main", "NotifierAvailable")
    until(lambda: len(backed.pods("notify")) == len(backed.pods("backup")) == 1, what="one pod each")
    service = backed.one("services", "main-health")
    assert service is not None
    backed.patch("fpl/main", {"spec": {"notifications": None, "backup": None}})
    until(lambda: not backed.pods("notify") and not backed.pods("backup") and not crons(backed), 60)
    until(lambda: backed.one("services", "main-health") is None)
    until(lambda: not backed.condition("fpl/main", "NotifierAvailable"))
    assert operator.errors() == []
