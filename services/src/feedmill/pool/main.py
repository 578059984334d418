"""Entry point of ``feedmill run accounts``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.pool.service import Pool
from feedmill.pool.settings import PoolSettings, pool_settings
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.pipeline import FeedPipeline


async def main(context: ServiceContext, pipeline: FeedPipeline, replica: str, key_file: Path | None) -> None:
    """Listen to accounts, distribute and store what is heard, until ``context.stop`` is set; then drain.

    ``key_file``: the key-encryption keys of the credential store; None = its secrets cannot be opened.
    """
    await run(context, pool_settings(pipeline, replica), key_file)


async def run(context: ServiceContext, settings: PoolSettings, key_file: Path | None) -> None:
    """The same from settings."""
    pool = Pool(settings, context.redis_url, context.database_url, key_file, context.health, context.log)
    await pool.run(context.stop)
