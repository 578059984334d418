"""Bringing objects to their manifests: nothing when nothing differs, everything undone that somebody did."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from memory_api import MemoryApi

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.reconcile.apply import Applier, Outcome, Refused, marked
from feedmill_operator.reconcile.pods import PodFacts, pod_facts
from feedmill_operator.reconcile.prune import prune
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.store import Ref, Store

OWNER = {"apiVersion": "feedmill.dev/v1alpha1", "kind": "ExchangeFeed", "name": "spot", "uid": "o", "controller": True}


def manifest(kind: Kind, name: str, **content: Any) -> Manifest:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": "ns",
            "labels": {names.MANAGED_BY: names.MANAGER},
            "ownerReferences": [OWNER],
        },
        **content,
    }


def deployment(image: str = "i:1", **pod: Any) -> Manifest:
    spec = {
        "replicas": 1,
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": image}], **pod},
        },
    }
    return manifest(kinds.DEPLOYMENT, "d", spec=spec)


def config(text: str = "x") -> Manifest:
    return manifest(kinds.CONFIG_MAP, "c", data={"resources.yaml": text})


class World:
    """The API server, what the watch has told of it, and an operator that may be started anew."""

    def __init__(self) -> None:
        self.api = MemoryApi()
        self.restart()

    def restart(self) -> None:
        self.store: Store[PodFacts] = Store(pod_facts)
        self.applier = Applier(self.api, self.store)  # type: ignore[arg-type]
        self.watch()

    def watch(self) -> None:
        """All that is there is told."""
        for (kind, _, _), found in self.api.objects.items():
            self.store.update(next(each for each in kinds.MADE if each.kind == kind), found)

    async def apply(self, wanted: Manifest) -> Outcome:
        return await self.applier.apply(wanted)

    def writes(self) -> list[str]:
        """Since the last time."""
        done = [call for call in self.api.calls() if not call.startswith("get ")]
        self.api.asked.clear()
        return done


@pytest.fixture
def world() -> World:
    return World()


async def test_made_once_then_left_alone(world: World) -> None:
    assert await world.apply(deployment()) is Outcome.CREATED
    assert world.writes() == ["apply Deployment d"]
    for _ in range(3):
        assert await world.apply(deployment()) is Outcome.NOTHING
    world.restart()
    assert await world.apply(deployment()) is Outcome.NOTHING
    assert world.writes() == []


async def test_a_status_is_no_reason_to_write(world: World) -> None:
    await world.apply(deployment())
    await world.api.patch_status(kinds.DEPLOYMENT, "ns", "d", {"status": {"replicas": 1}})
    world.watch()
    world.writes()
    assert await world.apply(deployment()) is Outcome.NOTHING
    assert world.writes() == []


async def test_another_manifest_is_applied(world: World) -> None:
    await world.apply(deployment())
    assert await world.apply(deployment("i:2")) is Outcome.CHANGED
    assert world.writes() == ["apply Deployment d", "apply Deployment d"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_field_no_longer_wanted_is_taken_away(world: World, restarted: bool) -> None:
    """Also when it went out of the spec while no operator ran: what is there covers what is wanted."""
    await world.apply(deployment(nodeSelector={"disk": "ssd"}))
    if restarted:
        world.restart()
    assert await world.apply(deployment()) is Outcome.CHANGED
    assert "nodeSelector" not in world.api.objects["Deployment", "ns", "d"]["spec"]["template"]["spec"]


EDITS: list[tuple[str, Manifest, Kind, Callable[[Manifest], object]]] = [
    (
        "other-image",
        deployment(),
        kinds.DEPLOYMENT,
        lambda o: o["spec"]["template"]["spec"]["containers"][0].update(image="x"),
    ),
    ("more", deployment(), kinds.DEPLOYMENT, lambda o: o["spec"]["template"]["spec"].update(nodeSelector={"a": "b"})),
    ("replicas", deployment(), kinds.DEPLOYMENT, lambda o: o["spec"].update(replicas=5)),
    ("no-label", deployment(), kinds.DEPLOYMENT, lambda o: o["metadata"]["labels"].clear()),
    ("no-owner", deployment(), kinds.DEPLOYMENT, lambda o: o["metadata"].update(ownerReferences=[])),
    ("other-data", config(), kinds.CONFIG_MAP, lambda o: o["data"].update({"resources.yaml": "y"})),
    ("more-data", config(), kinds.CONFIG_MAP, lambda o: o["data"].update(more="y")),
]


@pytest.mark.parametrize(("wanted", "kind", "edit"), [case[1:] for case in EDITS], ids=[case[0] for case in EDITS])
@pytest.mark.parametrize("restarted", [False, True])
async def test_an_edit_is_undone_once(
    world: World, wanted: Manifest, kind: Kind, edit: Callable[[Manifest], object], restarted: bool
) -> None:
    name = wanted["metadata"]["name"]
    await world.apply(wanted)
    before = world.api.objects[kind.kind, "ns", name]
    world.api.edit(kind, name, edit)
    (world.restart if restarted else world.watch)()
    world.writes()
    assert await world.apply(wanted) is Outcome.UNDONE
    after = world.api.objects[kind.kind, "ns", name]
    for part in ("spec", "data"):
        assert after.get(part) == before.get(part)
    for part in ("labels", "ownerReferences"):
        assert after["metadata"][part] == before["metadata"][part]
    assert len(world.writes()) == 1
    assert await world.apply(wanted) is Outcome.NOTHING
    world.restart()
    assert await world.apply(wanted) is Outcome.NOTHING
    assert world.writes() == []


async def test_after_a_replacement_fields_still_go(world: World) -> None:
    """What we own by a replacement an apply would leave: it is replaced from then on."""
    wanted = deployment(nodeSelector={"disk": "ssd"})
    await world.apply(wanted)
    world.api.edit(kinds.DEPLOYMENT, "d", lambda o: o["spec"]["template"]["spec"].update(tolerations=[]))
    world.watch()
    await world.apply(wanted)
    assert world.writes()[-1] == "replace Deployment d"
    await world.apply(deployment())
    assert world.writes() == ["replace Deployment d"]
    assert "nodeSelector" not in world.api.objects["Deployment", "ns", "d"]["spec"]["template"]["spec"]


async def test_a_foreign_manager_that_stays_costs_one_look_a_change(world: World) -> None:
    """Somebody who owns fields at our own values."""
    await world.apply(deployment())
    world.api.objects["Deployment", "ns", "d"]["metadata"]["managedFields"].append(
        {"manager": "argocd", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    )
    world.restart()
    assert await world.apply(deployment()) is Outcome.NOTHING
    world.writes()
    await world.api.patch_status(kinds.DEPLOYMENT, "ns", "d", {"status": {"replicas": 1}})
    world.watch()
    world.writes()
    assert await world.apply(deployment()) is Outcome.NOTHING
    assert world.writes() == []


async def test_labels_and_annotations_of_others_stay(world: World) -> None:
    await world.apply(deployment())

    def edit(found: Manifest) -> None:
        found["metadata"]["labels"]["theirs"] = "1"
        found["spec"]["paused"] = True

    world.api.edit(kinds.DEPLOYMENT, "d", edit)
    world.watch()
    assert await world.apply(deployment()) is Outcome.UNDONE
    found = world.api.objects["Deployment", "ns", "d"]
    assert found["metadata"]["labels"]["theirs"] == "1"
    assert "paused" not in found["spec"]


async def test_a_restart_by_kubectl_survives_a_replacement(world: World) -> None:
    await world.apply(deployment())

    def edit(found: Manifest) -> None:
        found["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now", "x": "y"}

    world.api.edit(kinds.DEPLOYMENT, "d", edit)
    world.watch()
    await world.apply(deployment())
    found = world.api.objects["Deployment", "ns", "d"]["spec"]["template"]["metadata"]["annotations"]
    assert found == {"kubectl.kubernetes.io/restartedAt": "now"}


async def test_what_was_deleted_is_made_again(world: World) -> None:
    await world.apply(config())
    await world.api.delete(kinds.CONFIG_MAP, "ns", "c")
    world.store.remove(kinds.CONFIG_MAP, "ns", "c")
    assert await world.apply(config()) is Outcome.CREATED


async def test_what_is_being_deleted_is_waited_for(world: World) -> None:
    await world.apply(config())
    world.api.edit(kinds.CONFIG_MAP, "c", lambda o: o["metadata"].update(deletionTimestamp="x", labels={}))
    world.watch()
    world.writes()
    assert await world.apply(config("new")) is Outcome.NOTHING
    assert world.writes() == []


# --- secrets ---------------------------------------------------------------------------------------------------------


def secret(password: str = "p") -> Manifest:
    return manifest(kinds.SECRET, "s", stringData={"password": password, "url": f"redis://:{password}@h"})


def decoded(world: World) -> dict[str, str]:
    found = world.api.objects["Secret", "ns", "s"]["data"]
    return {key: base64.b64decode(value).decode() for key, value in found.items()}


async def test_a_secret_is_created_never_applied(world: World) -> None:
    await world.apply(secret())
    assert world.writes() == ["create Secret s"]
    assert decoded(world) == {"password": "p", "url": "redis://:p@h"}
    assert await world.apply(secret()) is Outcome.NOTHING


async def test_a_secret_somebody_made_meanwhile_is_not_written_over(world: World) -> None:
    await world.apply(secret("theirs"))
    world.store.remove(kinds.SECRET, "ns", "s")
    with pytest.raises(ApiError) as error:
        await world.apply(secret("ours"))
    assert error.value.status == 409
    assert decoded(world)["password"] == "theirs"
    # And from then on it is known.
    assert world.store.get(kinds.SECRET, "ns", "s") is not None


async def test_a_secret_that_changed_under_our_feet_is_read_again(world: World) -> None:
    await world.apply(secret("old"))
    world.api.edit(kinds.SECRET, "s", lambda o: o["data"].update(password=base64.b64encode(b"new").decode()))
    with pytest.raises(ApiError):
        await world.apply(secret("another"))
    assert decoded(world)["password"] == "new"
    assert await world.apply(secret("new")) is Outcome.CHANGED
    assert decoded(world) == {"password": "new", "url": "redis://:new@h"}


async def test_a_key_more_in_a_secret_is_taken_away(world: World) -> None:
    await world.apply(secret())
    world.api.edit(kinds.SECRET, "s", lambda o: o["data"].update(more="eA=="))
    world.watch()
    assert await world.apply(secret()) is Outcome.UNDONE
    assert set(decoded(world)) == {"password", "url"}


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason", "word"),
    [
        (ApiError(403, "Forbidden", 'deployments "d" is forbidden: exceeded quota: q'), Reason.QUOTA_EXCEEDED, "quota"),
        (ApiError(403, "Forbidden", "denied by policy"), Reason.OBJECT_REFUSED, "denied by policy"),
        (ApiError(422, "Invalid", "spec.selector: field is immutable"), Reason.OBJECT_REFUSED, "immutable"),
        (ApiError(404, "NotFound", "no such kind"), Reason.OBJECT_REFUSED, "no such kind"),
    ],
)
async def test_what_the_server_will_not_take(world: World, error: ApiError, reason: Reason, word: str) -> None:
    world.api.fail["apply", "d"] = [error]
    with pytest.raises(Refused) as refused:
        await world.apply(deployment())
    assert refused.value.trouble.reason is reason
    assert word in refused.value.trouble.message
    assert "Deployment d" in refused.value.trouble.message


@pytest.mark.parametrize("status", [0, 409, 429, 500, 503])
async def test_what_may_go_better_next_time(world: World, status: int) -> None:
    world.api.fail["apply", "d"] = [ApiError(status, "x", "y")]
    with pytest.raises(ApiError):
        await world.apply(deployment())
    assert await world.apply(deployment()) is Outcome.CREATED


async def test_a_conflict_makes_it_look_again(world: World) -> None:
    await world.apply(config())
    world.api.edit(kinds.CONFIG_MAP, "c", lambda o: o["data"].update(a="1"))
    world.watch()
    world.api.edit(kinds.CONFIG_MAP, "c", lambda o: o["data"].update(b="2"))
    world.writes()
    assert await world.apply(config()) is Outcome.UNDONE
    assert world.writes() == ["replace ConfigMap c", "replace ConfigMap c"]
    assert set(world.api.objects["ConfigMap", "ns", "c"]["data"]) == {"resources.yaml"}


async def test_conflicts_without_end_are_left_to_the_back_off(world: World) -> None:
    await world.apply(config())
    world.api.edit(kinds.CONFIG_MAP, "c", lambda o: o["data"].update(a="1"))
    world.watch()
    world.api.fail["replace", "c"] = [ApiError(409, "Conflict", "modified") for _ in range(20)]
    with pytest.raises(ApiError):
        await world.apply(config())
    assert len(world.api.fail["replace", "c"]) == 16


async def test_a_job_is_run_again_when_it_cannot_be_changed(world: World) -> None:
    job = manifest(kinds.JOB, "j", spec={"template": {"spec": {"containers": [{"name": "c", "image": "1"}]}}})
    await world.apply(job)
    world.writes()
    world.api.fail["apply", "j"] = [ApiError(422, "Invalid", "field is immutable")]
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "2"
    assert await world.apply(job) is Outcome.CHANGED
    assert world.writes() == ["apply Job j", "delete-Background Job j", "apply Job j"]


async def test_a_statefulset_is_made_anew_around_its_volume(world: World) -> None:
    def wanted(size: str) -> Manifest:
        template = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}
        return manifest(kinds.STATEFUL_SET, "m", spec={"replicas": 1, "volumeClaimTemplates": [template]})

    await world.apply(wanted("1Gi"))
    claim = {
        "metadata": {"name": "data-m-0", "namespace": "ns"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
    }
    world.api.objects["PersistentVolumeClaim", "ns", "data-m-0"] = claim
    world.writes()
    world.api.fail["apply", "m"] = [ApiError(422, "Invalid", "updates to statefulset spec are forbidden")]
    assert await world.apply(wanted("2Gi")) is Outcome.CHANGED
    assert world.writes() == [
        "apply StatefulSet m",
        "patch PersistentVolumeClaim data-m-0",
        "delete-Orphan StatefulSet m",
        "apply StatefulSet m",
    ]
    grown = world.api.objects["PersistentVolumeClaim", "ns", "data-m-0"]
    assert grown["spec"]["resources"]["requests"]["storage"] == "2Gi"


async def test_what_the_server_added_to_a_volume_template_is_given_again(world: World) -> None:
    template = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    wanted = manifest(kinds.STATEFUL_SET, "m", spec={"replicas": 1, "volumeClaimTemplates": [template]})
    await world.apply(wanted)

    def edit(found: Manifest) -> None:
        found["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"] = "Filesystem"
        found["spec"]["minReadySeconds"] = 5

    world.api.edit(kinds.STATEFUL_SET, "m", edit)
    world.watch()
    assert await world.apply(wanted) is Outcome.UNDONE
    spec = world.api.objects["StatefulSet", "ns", "m"]["spec"]
    assert spec["volumeClaimTemplates"][0]["spec"]["volumeMode"] == "Filesystem"
    assert "minReadySeconds" not in spec


async def test_one_that_is_still_going_is_waited_for(world: World) -> None:
    job = manifest(kinds.JOB, "j", spec={"a": 1})
    await world.apply(job)
    job["spec"]["a"] = 2
    world.api.fail["apply", "j"] = [ApiError(422, "Invalid", "immutable"), ApiError(422, "Invalid", "immutable")]
    with pytest.raises(ApiError) as error:
        await world.apply(job)
    assert error.value.status == 409
    assert await world.apply(job) is Outcome.CREATED


async def test_a_volume_that_cannot_grow_is_told_and_nothing_is_deleted(world: World) -> None:
    template = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    wanted = manifest(kinds.STATEFUL_SET, "m", spec={"replicas": 1, "volumeClaimTemplates": [template]})
    await world.apply(manifest(kinds.STATEFUL_SET, "m", spec={"replicas": 1}))
    world.api.objects["PersistentVolumeClaim", "ns", "data-m-0"] = {
        "metadata": {"name": "data-m-0", "namespace": "ns"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
    }
    world.api.fail["apply", "m"] = [ApiError(422, "Invalid", "forbidden")]
    world.api.fail["patch", "data-m-0"] = [
        ApiError(403, "Forbidden", "only dynamically provisioned pvc can be resized")
    ]
    with pytest.raises(Refused) as refused:
        await world.apply(wanted)
    assert "allowVolumeExpansion" in refused.value.trouble.message
    assert ("StatefulSet", "ns", "m") in world.api.objects


def test_the_mark_is_of_the_manifest_alone() -> None:
    one = marked(config())["metadata"]["annotations"][names.DESIRED]
    assert marked(config())["metadata"]["annotations"][names.DESIRED] == one
    assert marked(config("y"))["metadata"]["annotations"][names.DESIRED] != one
    assert "annotations" not in config()["metadata"]


# --- pruning ---------------------------------------------------------------------------------------------------------


async def test_only_what_is_ours_and_unwanted_is_pruned(world: World) -> None:
    await world.apply(config())
    await world.apply(deployment())
    foreign = manifest(kinds.CONFIG_MAP, "stranger", data={})
    foreign["metadata"]["ownerReferences"] = []
    other = manifest(kinds.CONFIG_MAP, "other-owner", data={})
    other["metadata"]["ownerReferences"] = [{**OWNER, "uid": "another"}]
    unlabelled = manifest(kinds.CONFIG_MAP, "unlabelled", data={})
    unlabelled["metadata"]["labels"] = {}
    for each in (foreign, other, unlabelled):
        await world.api.create(kinds.CONFIG_MAP, each)
    world.watch()
    world.writes()
    kept = [Ref(kinds.DEPLOYMENT, "ns", "d")]
    gone = await prune(world.api, world.store, world.applier, "o", kept)  # type: ignore[arg-type]
    assert gone == [Ref(kinds.CONFIG_MAP, "ns", "c")]
    assert world.writes() == ["delete-Background ConfigMap c"]
    assert await prune(world.api, world.store, world.applier, "o", kept) == []  # type: ignore[arg-type]


async def test_volumes_are_never_pruned(world: World) -> None:
    claim = manifest(kinds.PVC, "data-m-0", spec={})
    world.store.update(kinds.PVC, {**claim, "metadata": {**claim["metadata"], "uid": "u", "resourceVersion": "1"}})
    assert await prune(world.api, world.store, world.applier, "o", ()) == []  # type: ignore[arg-type]
