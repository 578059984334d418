"""Entry point of ``feedmill run receiver``."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.exchanges.registry import get_venue
from feedmill.receiver.service import Receiver
from feedmill.receiver.settings import ReceiverSettings
from feedmill.shared.reload import same_feed
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.collection import Resources
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

    def settings_of(resources: Resources) -> ReceiverSettings:
        return ReceiverSettings.from_resources(*same_feed(resources, feed), shard, replica, spill_dir)

    await run(context, ReceiverSettings.from_resources(feed, pipeline, shard, replica, spill_dir), settings_of)


async def run(
    context: ServiceContext,
    settings: ReceiverSettings,
    settings_of: Callable[[Resources], ReceiverSettings] | None = None,
) -> None:
    """The same from settings. ``settings_of``: those of newer resources; None = they never change."""
    venue = get_venue(settings.exchange, settings.market)
    settings = _with_tls(settings, None)
    receiver = Receiver(
        settings,
        venue.feed(settings.stream_url, authenticated=settings.authenticated),
        venue.rest(settings.rest_url),
        context.redis_url,
        context.health,
        context.log,
    )

    async def reconfigure(resources: Resources) -> None:
        assert settings_of is not None
        before = receiver.settings
        now = _with_tls(settings_of(resources), before.ssl_context)
        feed = rest = None
        if now.stream_url != before.stream_url:
            feed = venue.feed(now.stream_url, authenticated=now.authenticated)
        if now.rest_url != before.rest_url:
            rest = venue.rest(now.rest_url)
        receiver.reconfigure(now, feed, rest)

    if settings_of is not None:
        context.reconfigure = reconfigure
    await receiver.run(context.stop)


def _with_tls(settings: ReceiverSettings, made: ssl.SSLContext | None) -> ReceiverSettings:
    """One context for all: reading the machine's certificates holds the loop for 15 ms and takes 1 MiB each time."""
    if settings.ssl_context is not None or not settings.stream_url.startswith("wss:"):
        return settings
    return replace(settings, ssl_context=made or ssl.create_default_context())
