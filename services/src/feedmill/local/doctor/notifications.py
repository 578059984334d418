"""Are the bot and the chat of a manifest's notifications as they should be? Telegram is asked; nothing is sent."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from feedmill.general.notify.settings import notify_settings, read_token
from feedmill.general.notify.telegram import TelegramAway, TelegramError
from feedmill.general.notify.trying import bot_of, reach
from feedmill.local.doctor.check import Check, bad, ok, warn
from feedmill.plan import show_key
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError


async def checks(resources: Resources, secrets_dir: Path | None) -> list[Check]:
    """One line a pipeline that tells somebody."""
    telling = [item for _, item in sorted(resources.pipelines.items()) if item.spec.notifications is not None]
    return [await _one(resources, pipeline, secrets_dir) for pipeline in telling]


async def _one(resources: Resources, pipeline: FeedPipeline, secrets_dir: Path | None) -> Check:
    what = f"notifications of {show_key(pipeline.key)}"
    settings = notify_settings(resources, pipeline)
    if secrets_dir is None:
        return warn(
            what, "were not looked at", f"give --secrets-dir with {settings.token_ref.name}/{settings.token_ref.key}"
        )
    try:
        token = read_token(settings, secrets_dir)
        async with aiohttp.ClientSession() as http:
            reached = await reach(bot_of(http, settings, token))
    except ConfigError as error:
        return bad(what, "nobody would be told", str(error))
    except TelegramAway as error:
        return warn(what, str(error), "check the way to it; what is to be told waits until then")
    except TelegramError as error:
        return bad(what, "nobody would be told", str(error))
    return ok(what, f"{reached.bot} writes to {reached.chat}")
