"""The kinds that this version knows and does not carry out yet: it says so, and does nothing else."""

from __future__ import annotations

from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind
from feedmill_operator.reconcile import base
from feedmill_operator.reconcile.base import Tools
from feedmill_operator.reconcile.conditions import no
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.status import accepted_status

KINDS: tuple[Kind, ...] = (kinds.BACKUP, kinds.RESTORE)
_INSTEAD = {
    kinds.BACKUP: "no backup is made: back up PostgreSQL by other means (pg_dump, snapshots of its volume)",
    kinds.RESTORE: "nothing is restored: restore PostgreSQL by the means it was backed up with (pg_restore)",
}
"""What does not happen, and what to do."""
_BY_NAME = {kind.kind: kind for kind in KINDS}


class NotYetSupported:
    """See :class:`feedmill_operator.reconcile.ports.Reconciler`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        kind = _BY_NAME[key.kind]
        body = await self._tools.api.get(kind, key.namespace, key.name)
        if body is None or base.going(body):
            base.forget(self._tools, key)
            return None
        message = f"this version does not carry out objects of kind {kind.kind}: {_INSTEAD[kind]}. The object is kept"
        finding = no(Reason.NOT_YET_SUPPORTED, message)
        generation = int(body["metadata"]["generation"])
        status = accepted_status(body.get("status") or {}, generation, finding, base.now())
        self._tools.events.warning(body, finding.reason.value, message)
        return await self._tools.writer.write(key, kind, body, status)
