"""Reconciles one ExchangeAccount: says how it is.

It owns nothing: the account receivers of its pipeline listen to it, and the pipeline's reconciler makes these.
"""

from __future__ import annotations

from feedmill.resources.account import ExchangeAccount
from feedmill_operator.kube import kinds
from feedmill_operator.reconcile import base, references
from feedmill_operator.reconcile.account_status import account_status
from feedmill_operator.reconcile.base import Tools, Work
from feedmill_operator.reconcile.catalog import PipelineView
from feedmill_operator.reconcile.facts import AccountFacts
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.validity import Refusal


class AccountReconciler:
    """See :class:`feedmill_operator.reconcile.ports.Reconciler`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        tools = self._tools
        body = await tools.api.get(kinds.ACCOUNT, key.namespace, key.name)
        if body is None or base.going(body):
            base.forget(tools, key)
            tools.catalog.accounts.forget(key.namespace, key.name)
            return None
        account = tools.catalog.accounts.of(body)
        view = base.view_of(tools, key, body)
        if view is None:
            # Its reconciler looks at the pipeline now, and rouses the account when it has.
            return None
        refusal = await self._refusal(key, account, view)
        pool = tools.catalog.pool(key.namespace, base.pipeline_of(body))
        generation = int(body["metadata"]["generation"])
        facts = AccountFacts(
            generation=generation,
            before=body.get("status") or {},
            refusal=refusal,
            suspended=isinstance(account, ExchangeAccount) and account.spec.suspend,
            trouble=pool.trouble if isinstance(view, PipelineView) else None,
            said=pool.of(f"{key.namespace}/{key.name}", generation),
            awaited=pool.awaited,
        )
        status = account_status(facts, base.now())
        wait = await base.finish(tools, key, kinds.ACCOUNT, body, status, Work())
        return base.soonest(wait, base.recheck(refusal))

    async def _refusal(
        self, key: Key, account: ExchangeAccount | Refusal, view: PipelineView | Refusal
    ) -> Refusal | None:
        """Raises ApiError."""
        if isinstance(account, Refusal):
            return account
        refusal = base.unaccepted(key.namespace, account.spec.pipeline_ref.name, view)
        if refusal is not None:
            return refusal
        name = account.spec.credentials_secret_ref.name
        secret = await self._tools.api.get(kinds.SECRET, key.namespace, name)
        return references.judge_credentials(name, secret, key.namespace)
