"""Entry point of ``feedmill run distributor``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from feedmill.distributor.service import Distributor
from feedmill.distributor.settings import DistributorSettings
from feedmill.shared.selection.follower import Follower
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int) -> None:
    """Dispatch one shard of ``feed`` until ``context.stop`` is set.

    Raises PlanError, UnknownVenue or ValueError for what the manifest cannot mean.
    """

    async def take_up(feed: ExchangeFeed, pipeline: FeedPipeline, symbols: tuple[str, ...] | None) -> None:
        await distributor.reconfigure(DistributorSettings.from_resources(feed, pipeline, shard, symbols))

    settings = DistributorSettings.from_resources(feed, pipeline, shard)
    distributor = Distributor(settings, context.redis_url, context.health, context.log)
    follower = Follower(feed, pipeline, context.redis_url, take_up, context.health, context.log)
    context.reconfigure = follower.reconfigure
    following = asyncio.create_task(follower.run(), name="follow the selection")
    try:
        await distributor.run(context.stop)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
