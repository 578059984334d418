"""Makes a changed configuration reach running pods in a second or two instead of a minute.

The kubelet refreshes mounted ConfigMaps when it syncs a pod, about once a minute; it syncs one at once when the pod
object changes, as by an annotation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from feedmill.shared import log
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, KubeApi
from feedmill_operator.reconcile.answer import Answer
from feedmill_operator.reconcile.pods import PodFacts


def behind(
    pods: Iterable[PodFacts], answers: Mapping[str, Answer], config_hash: str, *, changed: bool
) -> list[PodFacts]:
    """Running pods that are to be told of ``config_hash``: all that were not told of it when it has just changed, else
    those that say they work with another. Pure.

    A pod that was made later has mounted it anyway; to tell it would cost a request and no more.
    """
    found = []
    for pod in pods:
        if not pod.running or not config_hash or pod.config_hash == config_hash:
            continue
        answer = answers.get(pod.name)
        told_other = answer is not None and answer.config_hash not in ("", config_hash)
        if changed or told_other:
            found.append(pod)
    return found


async def hasten(api: KubeApi, pods: Iterable[PodFacts], config_hash: str) -> None:
    """Annotate them. What fails only waits for the kubelet's own turn."""
    body = {"metadata": {"annotations": {names.CONFIG_HASH: config_hash}}}
    for pod in pods:
        try:
            await api.patch(kinds.POD, pod.namespace, pod.name, body)
        except ApiError as error:
            if error.status != 404:
                log.get_logger().warning("config.not_hastened", pod=pod.name, error=str(error))
