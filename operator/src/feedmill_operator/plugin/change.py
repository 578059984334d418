"""``kubectl feedmill pause | resume | restart``: annotations on the user's objects; the operator does the rest."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Manifest
from feedmill_operator.plugin import text
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.errors import WRONG, PluginError
from feedmill_operator.plugin.target import Target, annotations_of, everything, find_all

LOOK = 0.5
"""Seconds between two looks while waiting."""


def chosen(cluster: Cluster, namespace: str, wanted: Sequence[str], *, every: bool) -> list[Target]:
    """Those named, or all of the namespace; raises PluginError when neither or both were asked for."""
    if every and wanted:
        raise PluginError("give names or --all, not both", WRONG)
    if every:
        found = everything(cluster, namespace)
        if not found:
            text.tell(f"namespace {namespace} has no feed or pipeline")
        return found
    if not wanted:
        raise PluginError("name a feed or a pipeline (NAME, feed/NAME, pipeline/NAME), or give --all", WRONG)
    return find_all(cluster, namespace, wanted)


def pause(cluster: Cluster, targets: Sequence[Target]) -> int:
    done = 0
    for target in targets:
        if target.paused:
            text.say(f"{target} is paused already")
            continue
        cluster.annotate(target.kind, target.namespace, target.name, {names.PAUSE: "true"})
        text.say(f"{target} paused")
        done += 1
    if done:
        text.tell("the processes go on, the operator changes nothing until kubectl feedmill resume")
    return 0


def resume(cluster: Cluster, targets: Sequence[Target]) -> int:
    for target in targets:
        if names.PAUSE not in annotations_of(target.manifest):
            text.say(f"{target} is not paused")
            continue
        cluster.annotate(target.kind, target.namespace, target.name, {names.PAUSE: None})
        text.say(f"{target} resumed")
    return 0


def restart(cluster: Cluster, targets: Sequence[Target], *, wait: bool, timeout: int) -> int:
    """Roll the pods once: new ones are ready before old ones go. 1 when they were not all new within ``timeout``."""
    value = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    begun: list[Target] = []
    for target in targets:
        if target.suspended:
            text.say(f"{target} is suspended: it has no pods to restart")
            continue
        cluster.annotate(target.kind, target.namespace, target.name, {names.RESTART: value})
        if target.paused:
            text.say(f"{target} is paused: it will restart when it is resumed (kubectl feedmill resume {target})")
            continue
        text.say(f"{target} restarts")
        begun.append(target)
    if not wait:
        return 0
    results = [_restarted(cluster, target, value, timeout) for target in begun]
    return 0 if all(results) else 1


def _restarted(cluster: Cluster, target: Target, value: str, timeout: int) -> bool:
    def look() -> tuple[bool, str]:
        own = [
            item for item in cluster.list(kinds.DEPLOYMENT, target.namespace, _selector(target)) if target.owns(item)
        ]
        open_ones = [item for item in own if not rolled_out(item, value)]
        done = len(own) - len(open_ones)
        return bool(own) and not open_ones, f"{target}: {done} of {len(own)} deployments have new pods"

    return until(look, timeout, f"kubectl feedmill status {target} tells what holds it up")


def _selector(target: Target) -> str:
    return f"{names.MANAGED_BY}={names.MANAGER},{names.FEED if target.is_feed else names.PIPELINE}={target.name}"


def rolled_out(deployment: Manifest, value: str) -> bool:
    """Whether all its pods are of the template that carries out the restart ``value`` (or a later one)."""
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    carried = annotations_of(spec.get("template") or {}).get(names.RESTARTED, "")
    wanted = int(spec.get("replicas", 1))
    return (
        carried >= value
        and int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
        and int(status.get("updatedReplicas") or 0) >= wanted
        and int(status.get("replicas") or 0) <= wanted
        and int(status.get("availableReplicas") or 0) >= wanted
    )


def until(look: Callable[[], tuple[bool, str]], timeout: int, remedy: str) -> bool:
    """Ask ``look`` (done, progress) again and again, telling each new progress. False after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    told = ""
    while True:
        done, progress = look()
        if progress != told:
            text.tell(progress)
            told = progress
        if done:
            return True
        if time.monotonic() >= deadline:
            text.tell(f"not within {timeout} s: {remedy}")
            return False
        time.sleep(LOOK)
