"""``kubectl feedmill reload``: have the pods take the newest configuration now, and see that they do.

A changed manifest reaches the pods by their mounted ConfigMap, which the kubelet refreshes within about a minute. A
change of a pod's annotations makes it do so at once. The processes say in ``/health`` which configuration they use.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.plugin import text
from feedmill_operator.plugin.ask import Answer, ask_all
from feedmill_operator.plugin.change import until
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.errors import PluginError
from feedmill_operator.plugin.target import Target, find, labels_of, pods

CONFIG_FILE = "resources.yaml"
_HOT = (names.RECEIVER, names.DISTRIBUTOR, names.PROCESSOR, names.ACCOUNTS, names.NOTIFY, names.BACKUP)
"""Roles that take a change while they run; a Job reads it when it starts."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one target's pods are. Pure: see :func:`progress`."""

    taken: int
    total: int
    lines: tuple[str, ...]
    """Of the pods that have not taken it: why."""

    @property
    def done(self) -> bool:
        return self.taken == self.total


def run(cluster: Cluster, targets: Sequence[Target], *, wait: bool, timeout: int) -> int:
    """1 when not all pods had taken it within ``timeout`` seconds."""
    results = [_reload(cluster, target, wait, timeout) for target in targets]
    return 0 if all(results) else 1


def _reload(cluster: Cluster, target: Target, wait: bool, timeout: int) -> bool:
    if target.suspended:
        text.say(f"{target} is suspended: it has no pods; they start with the newest configuration")
        return True
    if not until(lambda: _written(cluster, target), timeout, "is the operator running? kubectl feedmill status"):
        return False
    wanted = _wanted(cluster, target)
    own = _own(cluster, target)
    if not own:
        raise PluginError(f"{target} has no pods that could reload: see kubectl feedmill status {target}")
    _touch(cluster, own, wanted)
    if not wait:
        text.say(f"{target}: {len(own)} pods asked to take configuration {_told(wanted)}")
        return True
    touched = {_uid(pod) for pod in own}

    def look() -> tuple[bool, str]:
        nonlocal wanted
        newest, now = _wanted(cluster, target), _own(cluster, target)
        if newest != wanted:
            wanted = newest
            touched.clear()
        _touch(cluster, [pod for pod in now if _uid(pod) not in touched], wanted)
        touched.update(_uid(pod) for pod in now)
        found = progress(ask_all(cluster, now), wanted)
        told = f"{target}: {found.taken} of {found.total} pods work with configuration {_told(wanted)}"
        return found.done and found.total > 0, "\n".join([told, *(f"  {line}" for line in found.lines)])

    return until(look, timeout, f"kubectl feedmill logs {target} --level warning tells why")


def progress(answers: Sequence[Answer], wanted: Mapping[str, str]) -> Progress:
    """Which pods say that they work with the configuration ``wanted`` of their role."""
    lines = []
    taken = 0
    for answer in answers:
        section = (answer.health or {}).get("config")
        if answer.why:
            lines.append(f"{answer.pod}: {answer.why}")
        elif not isinstance(section, dict):
            lines.append(f"{answer.pod}: does not say which configuration it works with (an older image?)")
        elif section.get("hash") == wanted.get(answer.role):
            taken += 1
        elif section.get("error"):
            lines.append(f"{answer.pod}: stays with {section.get('hash')}: {section['error']}")
        else:
            word = "is taking the new one up" if section.get("pending") else "has not seen the new one yet"
            lines.append(f"{answer.pod}: works with {section.get('hash')}, {word}")
    return Progress(taken, len(answers), tuple(lines))


def _written(cluster: Cluster, target: Target) -> tuple[bool, str]:
    """Whether the operator has turned the newest spec into a ConfigMap."""
    fresh = find(cluster, target.namespace, str(target))
    generation = int(fresh.manifest["metadata"].get("generation") or 0)
    seen = int((fresh.manifest.get("status") or {}).get("observedGeneration") or 0)
    if seen >= generation:
        return True, ""
    if fresh.paused:
        raise PluginError(
            f"{target} is paused, so its last change is not carried out: kubectl feedmill resume {target}"
        )
    return False, f"{target}: waiting for the operator to work on the last change"


def _wanted(cluster: Cluster, target: Target) -> dict[str, str]:
    """Role -> hash of its newest configuration."""
    name = names.feed_config(target.name) if target.is_feed else names.pipeline_config(target.name)
    found = _hash(cluster, target, name)
    if found is None:
        raise PluginError(
            f"the operator has made no configuration of {target} (ConfigMap {name}): "
            f"see kubectl feedmill status {target}"
        )
    wanted = dict.fromkeys(_HOT, found)
    if not target.is_feed:
        wanted[names.ACCOUNTS] = _hash(cluster, target, names.accounts_config(target.name)) or ""
        general = _hash(cluster, target, names.general_config(target.name)) or ""
        wanted |= {names.NOTIFY: general, names.BACKUP: general}
    return wanted


def _hash(cluster: Cluster, target: Target, config_map: str) -> str | None:
    from feedmill.resources.confighash import config_hash

    found = cluster.read(kinds.CONFIG_MAP, target.namespace, config_map)
    return None if found is None else config_hash({CONFIG_FILE: str((found.get("data") or {}).get(CONFIG_FILE, ""))})


def _told(wanted: Mapping[str, str]) -> str:
    """The hash; of a pipeline with account receivers, backups or notifications all of them."""
    main = wanted[names.PROCESSOR]
    others = {"account receivers": wanted[names.ACCOUNTS], "backups and notifications": wanted[names.BACKUP]}
    told = [f"{who}: {digest}" for who, digest in others.items() if digest not in ("", main)]
    return f"{main} ({', '.join(told)})" if told else main


def _own(cluster: Cluster, target: Target) -> list[Manifest]:
    return [
        pod
        for pod in pods(cluster, target.namespace)
        if target.owns(pod)
        and labels_of(pod).get(names.COMPONENT) in _HOT
        and not pod["metadata"].get("deletionTimestamp")
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]


def _touch(cluster: Cluster, own: Sequence[Manifest], wanted: Mapping[str, str]) -> None:
    """RELOAD differs each time: the hash alone may stand there already, and then nothing would change."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for pod in own:
        try:
            cluster.annotate(
                kinds.POD,
                str(pod["metadata"]["namespace"]),
                str(pod["metadata"]["name"]),
                {names.CONFIG_HASH: wanted[labels_of(pod)[names.COMPONENT]], names.RELOAD: now},
            )
        except ApiError as error:
            if error.status != 404:  # Gone meanwhile.
                raise


def _uid(pod: Manifest) -> str:
    return str(pod["metadata"].get("uid") or pod["metadata"]["name"])
