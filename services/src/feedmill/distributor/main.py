"""Entry point of ``feedmill run distributor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedmill.distributor.service import Distributor
from feedmill.distributor.settings import DistributorSettings
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int) -> None:
    """Dispatch one shard of ``feed`` until ``context.stop`` is set.

    Raises PlanError, UnknownVenue or ValueError for what the manifest cannot mean.
    """
    await run(context, DistributorSettings.from_resources(feed, pipeline, shard))


async def run(context: ServiceContext, settings: DistributorSettings) -> None:
    """The same from settings."""
    await Distributor(settings, context.redis_url, context.health, context.log).run(context.stop)
