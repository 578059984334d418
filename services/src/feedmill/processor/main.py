"""Entry point of ``feedmill run processor``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from feedmill.processor.service import Processor
from feedmill.processor.settings import ProcessorSettings, processor_settings
from feedmill.shared.reload import Refused, same_pipeline
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.collection import Resources
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, pipeline: FeedPipeline, feeds: list[ExchangeFeed], replica: str) -> None:
    """Store the events of all ``feeds`` until ``context.stop`` is set, then what was read by then.

    Raises UnknownVenue for a feed without an adapter.
    """

    def settings_of(resources: Resources) -> ProcessorSettings:
        now = same_pipeline(resources, pipeline.key)
        return processor_settings(now, resources.feeds_of(now), replica)

    await run(context, processor_settings(pipeline, feeds, replica), settings_of)


async def run(
    context: ServiceContext,
    settings: ProcessorSettings,
    settings_of: Callable[[Resources], ProcessorSettings] | None = None,
) -> None:
    """The same from settings. ``settings_of``: those of newer resources; None = they never change."""
    processor = Processor(settings, context.redis_url, context.database_url, context.health, context.log)

    async def reconfigure(resources: Resources) -> None:
        assert settings_of is not None
        now = settings_of(resources)
        _check_venues(processor.settings, now)
        await processor.reconfigure(now)

    if settings_of is not None:
        context.reconfigure = reconfigure
    await processor.run(context.stop)


def _check_venues(before: ProcessorSettings, now: ProcessorSettings) -> None:
    """The rows of a shard belong to one market. Raises Refused."""
    venues = {shard.ref: shard.venue for shard in before.shards}
    for shard in now.shards:
        if (known := venues.get(shard.ref, shard.venue)) != shard.venue:
            raise Refused(
                f"ExchangeFeed {shard.ref.namespace}/{shard.ref.feed}: spec.exchange changed from {known} to"
                f" {shard.venue}, which is another feed: give it another name"
            )
