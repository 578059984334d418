"""Entry point of ``feedmill run receiver``."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.exchanges.base import Venue
from feedmill.exchanges.registry import get_venue
from feedmill.plan import shard_subscriptions
from feedmill.receiver.selector import Selector
from feedmill.receiver.service import Receiver
from feedmill.receiver.settings import ReceiverSettings
from feedmill.shared.selection.follower import Follower
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(
    context: ServiceContext, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int, replica: str,
    spill_dir: Path | None = None,
) -> None:  # fmt: skip
    """Capture one shard of ``feed`` until ``context.stop`` is set, then drain.

    ``spill_dir``: this receiver's own folder for the time Redis is away or full; None = memory only.
    Raises UnknownVenue, ValueError for what the manifest cannot mean, SpillInUse, and Undrained when stopping lost
    something.
    """

    def settings_of(feed: ExchangeFeed, pipeline: FeedPipeline, symbols: tuple[str, ...] | None) -> ReceiverSettings:
        settings = ReceiverSettings.from_resources(feed, pipeline, shard, replica, spill_dir)
        return replace(settings, subscriptions=tuple(shard_subscriptions(feed, shard, symbols=symbols)))

    async def take_up(feed: ExchangeFeed, pipeline: FeedPipeline, symbols: tuple[str, ...] | None) -> None:
        before = receiver.settings
        now = _with_tls(settings_of(feed, pipeline, symbols), before.ssl_context)
        other_feed = other_rest = None
        if now.stream_url != before.stream_url:
            other_feed = venue.feed(now.stream_url, authenticated=now.authenticated)
        if now.rest_url != before.rest_url:
            other_rest = venue.rest(now.rest_url)
        receiver.reconfigure(now, other_feed, other_rest)

    settings = settings_of(feed, pipeline, None)
    venue = get_venue(settings.exchange, settings.market)
    receiver = _make(context, settings, venue)
    follower = Follower(feed, pipeline, context.redis_url, take_up, context.health, context.log)
    selector = Selector(
        follower, venue, receiver.desk, lambda: venue.rest(receiver.settings.rest_url), context.redis_url,
        name=f"{settings.shard}-{replica}", log=context.log,
    )  # fmt: skip
    context.health.detail("selector", selector.document)
    context.reconfigure = follower.reconfigure
    beside = [
        asyncio.create_task(work, name=name) for name, work in (("follow", follower.run()), ("select", selector.run()))
    ]
    work = asyncio.create_task(receiver.run(context.stop), name="receive")
    try:
        # None of those beside ends by itself: what one raises is a fault of this code.
        done, _ = await asyncio.wait((work, *beside), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (work, *beside):
            task.cancel()
        await asyncio.gather(work, *beside, return_exceptions=True)


def _make(context: ServiceContext, settings: ReceiverSettings, venue: Venue) -> Receiver:
    settings = _with_tls(settings, None)
    return Receiver(
        settings,
        venue.feed(settings.stream_url, authenticated=settings.authenticated),
        venue.rest(settings.rest_url),
        context.redis_url,
        context.health,
        context.log,
    )


def _with_tls(settings: ReceiverSettings, made: ssl.SSLContext | None) -> ReceiverSettings:
    """One context for all: reading the machine's certificates holds the loop for 15 ms and takes 1 MiB each time."""
    if settings.ssl_context is not None or not settings.stream_url.startswith("wss:"):
        return settings
    return replace(settings, ssl_context=made or ssl.create_default_context())
