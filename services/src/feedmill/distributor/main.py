"""Entry point of ``feedmill run distributor``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from feedmill.distributor.service import Distributor
from feedmill.distributor.settings import DistributorSettings
from feedmill.shared.reload import same_feed
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.collection import Resources
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, feed: ExchangeFeed, pipeline: FeedPipeline, shard: int) -> None:
    """Dispatch one shard of ``feed`` until ``context.stop`` is set.

    Raises PlanError, UnknownVenue or ValueError for what the manifest cannot mean.
    """

    def settings_of(resources: Resources) -> DistributorSettings:
        return DistributorSettings.from_resources(*same_feed(resources, feed), shard)

    await run(context, DistributorSettings.from_resources(feed, pipeline, shard), settings_of)


async def run(
    context: ServiceContext,
    settings: DistributorSettings,
    settings_of: Callable[[Resources], DistributorSettings] | None = None,
) -> None:
    """The same from settings. ``settings_of``: those of newer resources; None = they never change."""
    distributor = Distributor(settings, context.redis_url, context.health, context.log)

    async def reconfigure(resources: Resources) -> None:
        assert settings_of is not None
        await distributor.reconfigure(settings_of(resources))

    if settings_of is not None:
        context.reconfigure = reconfigure
    await distributor.run(context.stop)
