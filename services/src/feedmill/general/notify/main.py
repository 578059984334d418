"""Entry point of ``feedmill run notify``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.general.notify.processes import Place
from feedmill.general.notify.service import Notifier
from feedmill.general.notify.settings import notify_settings, read_token
from feedmill.shared.reload import same_pipeline
from feedmill.shared.service import ServiceContext

if TYPE_CHECKING:
    from pydantic import SecretStr

    from feedmill.general.notify.settings import NotifySettings
    from feedmill.resources.collection import Resources
    from feedmill.resources.pipeline import FeedPipeline


async def main(
    context: ServiceContext,
    pipeline: FeedPipeline,
    settings: NotifySettings,
    token: SecretStr,
    secrets_dir: Path | None,
    place: Place | None,
) -> None:
    """Tell what is to be told, until ``context.stop`` is set. What was not sent by then waits in PostgreSQL."""
    notifier = Notifier(settings, token, secrets_dir, place, context.database_url, context.health, context.log)

    async def reconfigure(resources: Resources) -> None:
        newer = notify_settings(resources, same_pipeline(resources, pipeline.key))
        notifier.reconfigure(newer, await asyncio.to_thread(read_token, newer, secrets_dir))

    context.reconfigure = reconfigure
    await notifier.run(context.stop)
