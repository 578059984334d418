"""What the watches told, kept compactly: objects as JSON bytes, pods as the few facts somebody asks for.

1,000 feeds have some 6,000 objects. As parsed dictionaries they would take hundreds of megabytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from feedmill_operator import metrics, names
from feedmill_operator.kube.api import Kind, Manifest

Facts = TypeVar("Facts")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_OUR_OWNERS = f"{names.GROUP}/"
_CONTENT = ("f:spec", "f:data", "f:stringData", "f:binaryData", "f:rules")
"""What of an object is ours alone: others may add labels and annotations."""
_ROLLOUT_RESTART: Mapping[str, Any] = {
    "f:template": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}
}
_ASSIGNED = {"f:volumeName", "f:clusterIP", "f:clusterIPs", "f:nodeName"}
"""What the cluster itself fills in by writing the spec."""


class Ref(NamedTuple):
    """Where an object is kept."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Live:
    """An object as the API server has it."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_uid: str
    """uid of the custom resource of ours that controls it; empty = none."""
    foreign: bool
    """Another manager than ours owns fields of its content (of spec, data, rules)."""
    replaced: bool
    """We replaced its content once: what we own by that an apply no longer takes away."""
    deleting: bool
    pipeline: str
    """Name of the FeedPipeline it belongs to: by label, or by ``spec.pipelineRef``."""
    body: bytes = field(repr=False)
    """JSON of the object without managedFields and status."""
    status_body: bytes = field(repr=False)
    """JSON of its status."""

    @classmethod
    def of(cls, kind: Kind, obj: Mapping[str, Any]) -> Live:
        metadata: Mapping[str, Any] = obj["metadata"]
        shown = {key: value for key, value in metadata.items() if key != "managedFields"}
        body = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
        # Items of lists come without them.
        body.setdefault("apiVersion", kind.api_version)
        body.setdefault("kind", kind.kind)
        body["metadata"] = shown
        return cls(
            kind=kind,
            namespace=sys.intern(metadata.get("namespace", "")),
            name=sys.intern(metadata["name"]),
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
            generation=int(metadata.get("generation") or 0),
            labels=_interned(metadata.get("labels")),
            annotations=_interned(metadata.get("annotations")),
            owner_uid=sys.intern(_owner(metadata)),
            foreign=is_foreign(metadata.get("managedFields") or ()),
            replaced=is_replaced(metadata.get("managedFields") or ()),
            deleting="deletionTimestamp" in metadata,
            pipeline=sys.intern(_pipeline(obj)),
            body=_encode(body),
            status_body=_encode(obj.get("status") or {}),
        )

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.namespace, self.name)

    @property
    def manifest(self) -> Manifest:
        """A fresh dictionary: without managedFields and status."""
        done: Manifest = _decode(self.body)
        return done

    @property
    def status(self) -> Mapping[str, Any]:
        """A fresh dictionary."""
        done: Mapping[str, Any] = _decode(self.status_body)
        return done


def is_foreign(managed: Any) -> bool:
    """Whether another manager than ours owns content, by an object's ``managedFields``.

    Writers of subresources (status, ``kubectl scale``), of labels and annotations, what the cluster assigns and
    ``kubectl rollout restart`` do not count: the first are told by comparing, the last is the user's good right.
    """
    for entry in managed:
        if entry.get("manager") == names.FIELD_MANAGER or entry.get("subresource"):
            continue
        fields = entry.get("fieldsV1") or {}
        for part in _CONTENT:
            owned = fields.get(part)
            if owned is None or owned == _ROLLOUT_RESTART:
                continue
            if isinstance(owned, dict) and owned and owned.keys() <= _ASSIGNED:
                continue
            return True
    return False


def is_replaced(managed: Any) -> bool:
    """Whether we own content by a replacement, which server-side apply takes for another manager's."""
    return any(
        entry.get("manager") == names.FIELD_MANAGER
        and entry.get("operation") == "Update"
        and not entry.get("subresource")
        and any(part in (entry.get("fieldsV1") or {}) for part in _CONTENT)
        for entry in managed
    )


@dataclass(frozen=True, slots=True)
class _Pod(Generic[Facts]):
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    facts: Facts


class Store(Generic[Facts]):
    """Objects by kind, by owner; pods by namespace. ``pod_facts``: what to keep of a pod."""

    def __init__(self, pod_facts: Callable[[Mapping[str, Any]], Facts]) -> None:
        self._pod_facts = pod_facts
        self._kinds: dict[Kind, dict[tuple[str, str], Live]] = {}
        self._owned: dict[str, set[Ref]] = {}
        self._pods: dict[tuple[str, str], _Pod[Facts]] = {}
        self._pods_by: dict[tuple[str, str, str], dict[str, _Pod[Facts]]] = {}
        """Pods by name, by (namespace, label, value) of the labels below."""

    # Objects.

    def update(self, kind: Kind, obj: Mapping[str, Any]) -> Live:
        """Keep ``obj`` unless a newer version of it is kept already; gives what is kept then.

        The same :class:`Live` as before means: no news. What an apply answered may be put in too: the watch's event of
        it is no news then.
        """
        metadata = obj["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        objects = self._kinds.setdefault(kind, {})
        before = objects.get(place)
        if (
            before is not None
            and before.uid == metadata.get("uid", "")
            and not _newer(metadata.get("resourceVersion", ""), before.resource_version)
        ):
            return before
        if before is not None:
            self._disown(before)
        live = Live.of(kind, obj)
        objects[(live.namespace, live.name)] = live
        if live.owner_uid:
            self._owned.setdefault(live.owner_uid, set()).add(live.ref)
        metrics.stored.labels(kind.kind).set(len(objects))
        return live

    def remove(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> Live | None:
        """Gives what was kept. ``uid``: only that one (the name may be in use again)."""
        objects = self._kinds.get(kind, {})
        before = objects.get((namespace, name))
        if before is None or (uid is not None and before.uid != uid):
            return None
        del objects[(namespace, name)]
        self._disown(before)
        metrics.stored.labels(kind.kind).set(len(objects))
        return before

    def _disown(self, live: Live) -> None:
        if (owned := self._owned.get(live.owner_uid)) is not None:
            owned.discard(live.ref)
            if not owned:
                del self._owned[live.owner_uid]

    def get(self, kind: Kind, namespace: str, name: str) -> Live | None:
        return self._kinds.get(kind, {}).get((namespace, name))

    def owned(self, owner_uid: str) -> list[Live]:
        """What a custom resource controls, by kind and name."""
        found = (self.get(*ref) for ref in self._owned.get(owner_uid, ()))
        return sorted((live for live in found if live is not None), key=lambda live: (live.kind.kind, live.name))

    def of_kind(self, kind: Kind, namespace: str | None = None) -> list[Live]:
        """All of a kind, or those of a namespace."""
        objects = self._kinds.get(kind, {})
        return [live for (where, _), live in objects.items() if namespace is None or where == namespace]

    def versions(self, kind: Kind) -> dict[tuple[str, str], tuple[str, str]]:
        """(uid, resourceVersion) by (namespace, name), pods included."""
        if kind.kind == "Pod":
            return {place: (pod.uid, pod.resource_version) for place, pod in self._pods.items()}
        return {place: (live.uid, live.resource_version) for place, live in self._kinds.get(kind, {}).items()}

    # Pods.

    def update_pod(self, obj: Mapping[str, Any]) -> bool:
        """Whether facts or labels are others than before."""
        metadata = obj["metadata"]
        place = (sys.intern(metadata["namespace"]), metadata["name"])
        before = self._pods.get(place)
        uid, version = metadata.get("uid", ""), metadata.get("resourceVersion", "")
        if before is not None and before.uid == uid and not _newer(version, before.resource_version):
            return False
        pod = _Pod(uid, version, _interned(metadata.get("labels")), self._pod_facts(obj))
        if before is not None:
            self._unindex(place, before)
        self._pods[place] = pod
        for around in self._around(place, pod):
            self._pods_by.setdefault(around, {})[place[1]] = pod
        metrics.stored.labels("Pod").set(len(self._pods))
        return before is None or before.facts != pod.facts or before.labels != pod.labels

    def remove_pod(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """Whether it was kept."""
        before = self._pods.get((namespace, name))
        if before is None or (uid is not None and before.uid != uid):
            return False
        self._unindex((namespace, name), self._pods.pop((namespace, name)))
        metrics.stored.labels("Pod").set(len(self._pods))
        return True

    def pods(self, namespace: str, **labels: str) -> list[Facts]:
        """Facts of the pods with these labels, by name: ``pods("ns", **{names.FEED: "spot"})``."""
        return [pod.facts for _, pod in sorted(self._matching(namespace, labels), key=lambda item: item[0])]

    def pod_labels(self, namespace: str, name: str) -> Mapping[str, str]:
        """Empty when it is not kept."""
        pod = self._pods.get((namespace, name))
        return pod.labels if pod is not None else {}

    def _matching(self, namespace: str, labels: Mapping[str, str]) -> Iterator[tuple[str, _Pod[Facts]]]:
        for label in _INDEXED:
            if label in labels:
                pods = self._pods_by.get((namespace, label, labels[label]), {}).items()
                break
        else:
            pods = {name: pod for (where, name), pod in self._pods.items() if where == namespace}.items()
        for name, pod in pods:
            if all(pod.labels.get(label) == value for label, value in labels.items()):
                yield name, pod

    def _around(self, place: tuple[str, str], pod: _Pod[Facts]) -> Iterator[tuple[str, str, str]]:
        for label in _INDEXED:
            if label in pod.labels:
                yield (place[0], label, pod.labels[label])

    def _unindex(self, place: tuple[str, str], pod: _Pod[Facts]) -> None:
        for around in self._around(place, pod):
            there = self._pods_by.get(around, {})
            there.pop(place[1], None)
            if not there:
                self._pods_by.pop(around, None)


_INDEXED = (names.FEED, names.PIPELINE)


def _interned(found: Any) -> Mapping[str, str]:
    return {sys.intern(str(key)): sys.intern(str(value)) for key, value in (found or {}).items()}


def _pipeline(obj: Mapping[str, Any]) -> str:
    labels = obj["metadata"].get("labels") or {}
    reference = (obj.get("spec") or {}).get("pipelineRef") or {}
    return str(reference.get("name") or labels.get(names.PIPELINE) or "")


def _owner(metadata: Mapping[str, Any]) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and str(owner.get("apiVersion", "")).startswith(_OUR_OWNERS):
            return str(owner["uid"])
    return ""


def _newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is later than another (numbers that grow, as KEP-5504 promises; else: another one)."""
    try:
        return int(version) > int(than)
    except ValueError:
        return version != than
