"""What every object of ours carries: labels, owner, name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from feedmill_operator import names
from feedmill_operator.build.inputs import Manifest, Owner


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object belongs: namespace, pipeline, perhaps a feed and a shard; and who owns it."""

    namespace: str
    pipeline: str
    owner: Owner
    feed: str = ""
    shard: int | None = None

    def labels(self, component: str) -> dict[str, str]:
        """Of every object of this place."""
        found = {
            names.NAME: "feedmill",
            names.INSTANCE: self.feed or self.pipeline,
            names.COMPONENT: component,
            names.PART_OF: "feedmill",
            names.MANAGED_BY: names.MANAGER,
            names.PIPELINE: self.pipeline,
        }
        if self.feed:
            found[names.FEED] = self.feed
        if self.shard is not None:
            found[names.SHARD] = str(self.shard)
        return found

    def selector(self, component: str) -> dict[str, str]:
        """Of its pods. Immutable in Kubernetes: never add to it."""
        found = {names.COMPONENT: component, (names.FEED if self.feed else names.PIPELINE): self.feed or self.pipeline}
        if self.shard is not None:
            found[names.SHARD] = str(self.shard)
        return found


@dataclass(frozen=True, slots=True)
class Head:
    """Kind and name of an object to be made."""

    api_version: str
    kind: str
    name: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """More than those of the place."""


def manifest(place: Place, head: Head, component: str, **content: object) -> Manifest:
    """An object with labels and owner; ``content``: spec, data, ..."""
    metadata: Manifest = {
        "name": head.name,
        "namespace": place.namespace,
        "labels": place.labels(component) | dict(head.labels),
        "ownerReferences": [place.owner.reference()],
    }
    if head.annotations:
        metadata["annotations"] = dict(head.annotations)
    return {"apiVersion": head.api_version, "kind": head.kind, "metadata": metadata, **content}
