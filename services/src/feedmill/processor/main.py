"""Entry point of ``feedmill run processor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedmill.processor.service import Processor
from feedmill.processor.settings import ProcessorSettings, processor_settings
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.feed import ExchangeFeed
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, pipeline: FeedPipeline, feeds: list[ExchangeFeed], replica: str) -> None:
    """Store the events of all ``feeds`` until ``context.stop`` is set, then what was read by then.

    Raises UnknownVenue for a feed without an adapter.
    """
    await run(context, processor_settings(pipeline, feeds, replica))


async def run(context: ServiceContext, settings: ProcessorSettings) -> None:
    """The same from settings."""
    processor = Processor(settings, context.redis_url, context.database_url, context.health, context.log)
    await processor.run(context.stop)
