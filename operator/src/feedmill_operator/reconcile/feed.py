"""Reconciles one ExchangeFeed: its configuration, receivers and distributors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build.feed import build_feed
from feedmill_operator.build.inputs import FeedInputs, Owner
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.reconcile import base, observe, references, status
from feedmill_operator.reconcile.base import Tools, Work
from feedmill_operator.reconcile.catalog import PipelineView
from feedmill_operator.reconcile.facts import FeedFacts, Role
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.validity import Refusal


class FeedReconciler:
    """See :class:`feedmill_operator.reconcile.ports.Reconciler`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        tools = self._tools
        body = await tools.api.get(kinds.FEED, key.namespace, key.name)
        if body is None or base.going(body):
            base.forget(tools, key)
            tools.catalog.feeds.forget(key.namespace, key.name)
            return None
        feed = tools.catalog.feeds.of(body)
        view = base.view_of(tools, key, body)
        if view is None:
            # Its reconciler looks at the pipeline now, and rouses the feed when it has.
            return None
        try:
            refusal = await self._refusal(key, feed, view)
        except ApiError as error:
            return await self._observe(key, body, feed, None, view, [], Work(error=error))
        pipeline = view.pipeline if isinstance(view, PipelineView) else None
        if isinstance(feed, Refusal) or isinstance(view, Refusal) or pipeline is None:
            return await self._observe(key, body, feed, refusal, view, [], Work())
        manifests = self._build(body, feed, pipeline, view.image)
        work = Work()
        if refusal is None and not base.paused(body):
            work = await base.carry_out(tools, manifests, str(body["metadata"]["uid"]))
        return await self._observe(key, body, feed, refusal, view, manifests, work)

    async def _refusal(self, key: Key, feed: ExchangeFeed | Refusal, view: PipelineView | Refusal) -> Refusal | None:
        if isinstance(feed, Refusal):
            return feed
        refusal = base.unaccepted(key.namespace, feed.spec.pipeline_ref.name, view)
        if refusal is not None or isinstance(view, Refusal) or view.pipeline is None:
            return refusal
        wanted = references.of_feed(feed)
        return await references.check(self._tools.api, view.pipeline, wanted, key.namespace)

    def _build(
        self, body: Mapping[str, Any], feed: ExchangeFeed, pipeline: FeedPipeline, image: str
    ) -> Sequence[Manifest]:
        metadata = body["metadata"]
        owner = Owner(kinds.FEED.kind, str(metadata["name"]), str(metadata["uid"]))
        made = build_feed(
            FeedInputs(
                feed=feed,
                pipeline=pipeline,
                owner=owner,
                image=image,
                facts=self._tools.facts.current,
                restart=base.restart(body),
            )
        )
        return list(made)

    async def _observe(
        self,
        key: Key,
        body: Mapping[str, Any],
        feed: ExchangeFeed | Refusal,
        refusal: Refusal | None,
        view: PipelineView | Refusal,
        manifests: Sequence[Manifest],
        work: Work,
    ) -> float | None:
        tools = self._tools
        before = body.get("status") or {}
        paused = base.paused(body)
        suspended = isinstance(feed, ExchangeFeed) and feed.spec.suspend
        tools.answers.track(key, tools.store.pods(key.namespace, **{names.FEED: key.name}))
        receiver, distributor = self._roles(key, body, manifests if refusal is None else [], suspended=suspended)
        wanted = base.config_hash(manifests, names.feed_config(key.name))
        if refusal is not None or paused or not manifests:
            wanted = base.live_config_hash(tools, key.namespace, names.feed_config(key.name))
        image = view.image if isinstance(view, PipelineView) else ""
        facts = FeedFacts(
            generation=int(body["metadata"]["generation"]),
            before=before,
            refusal=refusal,
            suspended=suspended,
            paused=paused,
            problems=work.troubles,
            failure=work.failure,
            image=image if refusal is None and not paused else str(before.get("image") or ""),
            config_hash=wanted,
            instruments=_instruments(feed, receiver),
            receiver=receiver,
            distributor=distributor,
        )
        if refusal is None and not paused and manifests:
            await base.spread_config(tools, key, (receiver, distributor), wanted, changed=work.config_changed)
        wait = await base.finish(tools, key, kinds.FEED, body, status.feed_status(facts, base.now()), work)
        return base.soonest(wait, base.recheck(refusal))

    def _roles(
        self, key: Key, body: Mapping[str, Any], manifests: Sequence[Manifest], *, suspended: bool
    ) -> tuple[Role, Role]:
        tools = self._tools
        answers = tools.answers.of(key)
        found = []
        for component in (names.RECEIVER, names.DISTRIBUTOR):
            rollouts = observe.rollouts(tools.store, manifests, component)
            if not manifests and not suspended:
                rollouts = observe.present(tools.store, str(body["metadata"]["uid"]), component)
            found.append(
                observe.role(tools.store, key.namespace, component, rollouts, answers, **{names.FEED: key.name})
            )
        return found[0], found[1]


def _instruments(feed: ExchangeFeed | Refusal, receiver: Role) -> int | None:
    if isinstance(feed, Refusal):
        return None
    if feed.spec.instruments.symbols is not None:
        return len(feed.spec.instruments.symbols)
    return max((each.selected for each in receiver.answers.values() if each.selected is not None), default=None)
