"""Deletes what a custom resource owns and no longer wants. Volumes are never among it."""

from __future__ import annotations

from collections.abc import Collection

from feedmill.shared import log
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import KubeApi
from feedmill_operator.reconcile.apply import Applier
from feedmill_operator.reconcile.pods import PodFacts
from feedmill_operator.reconcile.store import Live, Ref, Store


def unwanted(owned: Collection[Live], wanted: Collection[Ref]) -> list[Live]:
    """Of what carries our label and the owner's uid; nothing that is going already. Pure."""
    return [
        live
        for live in owned
        if live.ref not in wanted
        and live.kind in kinds.MADE
        and live.labels.get(names.MANAGED_BY) == names.MANAGER
        and not live.deleting
    ]


async def prune(
    api: KubeApi, store: Store[PodFacts], applier: Applier, owner_uid: str, wanted: Collection[Ref]
) -> list[Ref]:
    """Delete it; gives what was deleted. Raises ApiError."""
    gone: list[Ref] = []
    for live in unwanted(store.owned(owner_uid), wanted):
        await api.delete(live.kind, live.namespace, live.name, uid=live.uid)
        store.remove(live.kind, live.namespace, live.name, live.uid)
        applier.forget(live.ref)
        gone.append(live.ref)
        log.get_logger().info("object.pruned", kind=live.kind.kind, namespace=live.namespace, name=live.name)
    return gone
