"""Why pods do not work, in words for people: what is wrong, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from feedmill_operator.reconcile.pods import ContainerFacts, PodFacts
from feedmill_operator.reconcile.reasons import Reason

_PULL = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
                   "RegistryUnavailable"})  # fmt: skip
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError"})
BAD_CONFIGURATION = 2
"""Exit code of a service that cannot use its configuration: trying again does not help."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong."""

    reason: Reason
    message: str


_WEIGHT = {
    reason: weight
    for weight, reason in enumerate(
        (
            Reason.QUOTA_EXCEEDED,
            Reason.PODS_REFUSED,
            Reason.IMAGE_PULL_FAILED,
            Reason.CONTAINER_CONFIG_ERROR,
            Reason.OUT_OF_MEMORY,
            Reason.CRASH_LOOPING,
            Reason.EVICTED,
            Reason.VOLUME_PENDING,
            Reason.UNSCHEDULABLE,
            Reason.ROLLOUT_STALLED,
        )
    )
}


def worst(troubles: Iterable[Trouble]) -> Trouble | None:
    """The one to tell first; by name of the pod among equals, so that the words do not change from look to look."""
    return min(troubles, key=lambda each: (_WEIGHT.get(each.reason, len(_WEIGHT)), each.message), default=None)


def of_pods(pods: Sequence[PodFacts], answered: Collection[str] = ()) -> list[Trouble]:
    """What is wrong with each of the pods that is not ready. ``answered``: names of those that say themselves how they
    are."""
    return [
        found for pod in pods if not pod.ready and (found := of_pod(pod, answered=pod.name in answered)) is not None
    ]


def of_pod(pod: PodFacts, *, answered: bool = False) -> Trouble | None:
    """What is wrong with a pod, None when nothing is known to be (it may just be starting).

    ``answered``: its process answers, so how it ended some time ago does not matter.
    """
    look = f"kubectl -n {pod.namespace}"
    if pod.deleting:
        return None
    if pod.phase == "Failed" and pod.reason:
        return Trouble(Reason.EVICTED, f"pod {pod.name} ended: {pod.reason}{_colon(pod.message)}")
    if pod.unschedulable:
        if "PersistentVolumeClaim" in pod.unschedulable or "persistentvolumeclaim" in pod.unschedulable:
            return Trouble(
                Reason.VOLUME_PENDING,
                f"pod {pod.name} waits for its volume: {pod.unschedulable}: see `{look} get pvc` and whether the "
                "cluster has a default StorageClass (`kubectl get storageclass`)",
            )
        return Trouble(
            Reason.UNSCHEDULABLE,
            f"pod {pod.name} finds no node: {pod.unschedulable}: add room, or ask for less (resources, podTemplate)",
        )
    for container in pod.containers:
        found = _of_container(pod, container, look, answered=answered)
        if found is not None:
            return found
    return None


def _of_container(pod: PodFacts, container: ContainerFacts, look: str, *, answered: bool) -> Trouble | None:
    if container.waiting in _PULL:
        return Trouble(
            Reason.IMAGE_PULL_FAILED,
            f"image {container.image or 'of the pods'} cannot be pulled ({container.waiting}"
            f"{_colon(_unrepeated(container))}): check spec.image of the pipeline, and podTemplate.spec."
            f"imagePullSecrets if the registry needs a login; see `{look} describe pod {pod.name}`",
        )
    if container.waiting in _CONFIG:
        return Trouble(
            Reason.CONTAINER_CONFIG_ERROR,
            f"pod {pod.name} cannot start its container ({container.waiting}{_colon(container.waiting_message)}): "
            f"see `{look} describe pod {pod.name}`",
        )
    if container.ready or not _crashing(container, answered=answered):
        return None
    log = f"see `{look} logs {pod.name} --previous`"
    if container.exit_reason == "OOMKilled":
        return Trouble(
            Reason.OUT_OF_MEMORY,
            f"pod {pod.name} was ended for using more memory than its limit: raise resources.limits.memory; {log}",
        )
    if container.exit_code == BAD_CONFIGURATION:
        return Trouble(
            Reason.CRASH_LOOPING,
            f"pod {pod.name} cannot use its configuration{_colon(container.exit_message)}; {log}",
        )
    code = "" if container.exit_code is None else f" (exit code {container.exit_code})"
    return Trouble(Reason.CRASH_LOOPING, f"pod {pod.name} keeps ending{code}{_colon(container.exit_message)}; {log}")


def _crashing(container: ContainerFacts, *, answered: bool) -> bool:
    """It waits to be started again, has just ended with an error, or did so again and again and says nothing."""
    if container.waiting == "CrashLoopBackOff":
        return True
    if container.exit_code in (None, 0) or container.waiting:
        return False
    return not container.running or (container.restarts >= 2 and not answered)


def _unrepeated(container: ContainerFacts) -> str:
    """What the kubelet says beyond "Back-off pulling image ..."."""
    message = container.waiting_message
    return "" if message.startswith("Back-off pulling image") and "Err" not in message else message


def of_refusal(name: str, message: str, namespace: str) -> Trouble:
    """A controller could not make pods (FailedCreate)."""
    if "exceeded quota" in message:
        return Trouble(
            Reason.QUOTA_EXCEEDED,
            f"{name} cannot make its pods: {message}: raise the quota (`kubectl -n {namespace} describe quota`) or ask "
            "for less",
        )
    return Trouble(
        Reason.PODS_REFUSED,
        f"{name} cannot make its pods{_colon(message)}: see `kubectl -n {namespace} get events`",
    )


def _colon(text: str) -> str:
    return f": {text}" if text else ""
