"""Entry point of ``feedmill run accounts``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.pool.service import Pool
from feedmill.pool.settings import PoolSettings, pool_settings
from feedmill.shared.reload import same_pipeline
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from feedmill.resources.account import ExchangeAccount
    from feedmill.resources.collection import Resources
    from feedmill.resources.pipeline import FeedPipeline


async def main(
    context: ServiceContext,
    pipeline: FeedPipeline,
    accounts: list[ExchangeAccount],
    replica: str,
    key_file: Path | None = None,
    secrets_dir: Path | None = None,
) -> None:
    """Listen to accounts, distribute and store what is heard, until ``context.stop`` is set; then drain.

    ``key_file``: the key-encryption keys of the credential store. ``secrets_dir``: Secrets of ``accounts``.
    """

    def settings_of(resources: Resources) -> PoolSettings:
        now = same_pipeline(resources, pipeline.key)
        return pool_settings(now, resources.accounts_of(now), replica, key_file, secrets_dir)

    await run(context, pool_settings(pipeline, accounts, replica, key_file, secrets_dir), settings_of)


async def run(
    context: ServiceContext,
    settings: PoolSettings,
    settings_of: Callable[[Resources], PoolSettings] | None = None,
) -> None:
    """The same from settings. ``settings_of``: those of newer resources; None = they never change."""
    pool = Pool(settings, context.redis_url, context.database_url, context.health, context.log)

    async def reconfigure(resources: Resources) -> None:
        assert settings_of is not None
        pool.reconfigure(settings_of(resources))

    if settings_of is not None:
        context.reconfigure = reconfigure
    await pool.run(context.stop)
