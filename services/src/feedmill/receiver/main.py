"""Entry point of ``feedmill run receiver``."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

from feedmill.exchanges.registry import get_venue
from feedmill.receiver.service import Receiver
from feedmill.receiver.settings import ReceiverSettings
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int, replica: str) -> None:
    """Capture one shard of ``feed`` until ``context.stop`` is set, then drain.

    Raises UnknownVenue, ValueError for what the manifest cannot mean, and Undrained when stopping lost something.
    """
    settings = ReceiverSettings.from_resources(feed, pipeline, shard, replica)
    await run(context, settings)


async def run(context: ServiceContext, settings: ReceiverSettings) -> None:
    """The same from settings."""
    venue = get_venue(settings.exchange, settings.market)
    if settings.ssl_context is None and settings.stream_url.startswith("wss:"):
        # One for all: reading the machine's certificates holds the loop for 15 ms and takes 1 MiB each time.
        settings = replace(settings, ssl_context=ssl.create_default_context())
    receiver = Receiver(
        settings,
        venue.feed(settings.stream_url, authenticated=settings.authenticated),
        venue.rest(settings.rest_url),
        context.redis_url,
        context.health,
        context.log,
    )
    await receiver.run(context.stop)
