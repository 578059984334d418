"""Are the bot and the chat of a pipeline as they should be? Asked without sending anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import SecretStr

from feedmill.general.notify.markdown import clean
from feedmill.general.notify.settings import NotifySettings
from feedmill.general.notify.telegram import Telegram


@dataclass(frozen=True, slots=True)
class Reached:
    """As people know them."""

    bot: str
    chat: str


def bot_of(http: aiohttp.ClientSession, settings: NotifySettings, token: SecretStr) -> Telegram:
    return Telegram(http, settings.base_url, token, settings.chat)


async def reach(telegram: Telegram) -> Reached:
    """Who the bot is, and which chat it would write to. Raises TelegramError."""
    bot = await telegram.call("getMe")
    chat = await telegram.call("getChat", {"chat_id": telegram.chat})
    user = clean(str(bot.get("username") or "?")) if isinstance(bot, dict) else "?"
    return Reached(
        f"@{user}", f"{clean(str(chat.get('type')))} {name_of(chat)}" if isinstance(chat, dict) else "the chat"
    )


def name_of(chat: Mapping[str, Any]) -> str:
    """Of a chat, as people know it; it is theirs, so nothing in it may move the terminal."""
    parts = [chat.get("title"), chat.get("first_name"), chat.get("last_name")]
    user = f"@{chat['username']}" if chat.get("username") else ""
    name = " ".join(str(part) for part in (*parts, user) if part)
    return clean(name) or "(no name)"
