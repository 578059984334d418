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

KINDS: tuple[Kind, ...] = (kinds.ACCOUNT, kinds.BACKUP, kinds.RESTORE)
_WHAT = {
    kinds.ACCOUNT: ("account events (orders, fills, balances, positions)", "0.2"),
    kinds.BACKUP: ("backups", "0.2"),
    kinds.RESTORE: ("restores", "0.2"),
}
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
        what, version = _WHAT[kind]
        message = (
            f"{what} are not carried out by this version of Feedmill: planned for {version}. The object is kept and "
            "does nothing until then"
        )
        finding = no(Reason.NOT_YET_SUPPORTED, message)
        generation = int(body["metadata"]["generation"])
        status = accepted_status(body.get("status") or {}, generation, finding, base.now())
        self._tools.events.warning(body, finding.reason.value, message)
        return await self._tools.writer.write(key, kind, body, status)
