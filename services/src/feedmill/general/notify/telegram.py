"""Telegram's Bot API: one message out, and what its answer asks of us. The token is part of the address: no error here
repeats an address, and no answer is logged as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from pydantic import SecretStr

from feedmill.general.notify.compose import Message
from feedmill.shared.http_body import read_body
from feedmill.shared.log import redact

TIMEOUT = 10.0
"""Seconds for one request."""
MOST_BYTES = 1 << 20
_OF_THE_CHAT = ("chat", "channel", "group", "topic", "peer", "user", "member", "rights", "kicked")
"""A refusal that speaks of these is none of the text: any other would be refused too."""
LONGEST_REST = 3600.0
"""A longer retry_after is believed up to this."""


class TelegramError(Exception):
    """A message was not taken. The text is for people."""


class TelegramAway(TelegramError):
    """It cannot be reached, has a trouble of its own, or something else answers in its place: may be otherwise soon.
    Whether it took the message is not known when the answer was lost."""


class Slower(TelegramError):
    """429: nothing before so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Telegram asks for a rest of {seconds:g} s")
        self.seconds = seconds


class Moved(TelegramError):
    """The group has become a supergroup with another id."""

    def __init__(self, chat: str) -> None:
        super().__init__(f"the group has become a supergroup: its chatId is {chat} now")
        self.chat = chat


class NotAllowed(TelegramError):
    """Token or chat are wrong, or the bot may not write there: only the user can help."""


class BadText(TelegramError):
    """This text is refused, and will be again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and what of the JSON is of use."""

    status: int
    ok: bool = False
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    result: Any = None


def judge(answer: Answer) -> None:
    """Nothing when the message was taken; else raises what the answer asks for."""
    if answer.ok:
        return
    said = answer.description or f"HTTP {answer.status}"
    parameters = answer.parameters or {}
    if answer.status == 429:
        rest = parameters.get("retry_after")
        seconds = float(rest) if isinstance(rest, (int, float)) and rest > 0 else 30.0
        raise Slower(min(seconds, LONGEST_REST))
    if isinstance(chat := parameters.get("migrate_to_chat_id"), int):
        raise Moved(str(chat))
    if answer.status in (401, 404):
        # 404 is what it says to a token of another form.
        raise NotAllowed("the bot's token is refused: make one with @BotFather and put it into the Secret")
    if answer.status == 403:
        raise NotAllowed(f"the bot may not write to the chat ({said}): add it to the chat, or unblock it")
    if answer.status == 400 and "chat not found" in said.lower():
        raise NotAllowed("the chat is not known to the bot: check chatId, and write to the bot or add it to the chat")
    if answer.status == 400 and "parse" not in said.lower() and any(word in said.lower() for word in _OF_THE_CHAT):
        raise NotAllowed(f"the bot may not write to the chat ({said}): give it the right to")
    if answer.status == 400:
        raise BadText(said)
    raise TelegramAway(f"Telegram has a trouble of its own ({said})")


class Telegram:
    """``base_url``: without the token. ``chat``: id or @name."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str, token: SecretStr, chat: str) -> None:
        self._http = http
        self._base_url = base_url
        self._token = token
        self.chat = chat

    async def send(self, message: Message) -> int:
        """Send; answers the message's id. Raises TelegramError.

        A text that it cannot read as MarkdownV2 is sent without marks: better plain than never.
        """
        try:
            return await self._send(message.marked, silent=message.silent, parse_mode="MarkdownV2")
        except BadText as error:
            if "parse" not in str(error).lower():
                raise
            return await self._send(message.plain, silent=message.silent)

    async def _send(self, text: str, *, silent: bool, **more: Any) -> int:
        body = {
            "chat_id": self.chat, "text": text, "disable_notification": silent,
            "link_preview_options": {"is_disabled": True}, **more,
        }  # fmt: skip
        result = await self.call("sendMessage", body)
        number = result.get("message_id") if isinstance(result, dict) else None
        return number if isinstance(number, int) else 0

    async def call(self, method: str, body: Mapping[str, Any] | None = None) -> Any:
        """What a method of the API answers. Raises TelegramError."""
        url = f"{self._base_url}/bot{self._token.get_secret_value()}/{method}"
        try:
            async with self._http.post(
                url, json=dict(body or {}), timeout=aiohttp.ClientTimeout(total=TIMEOUT), allow_redirects=False
            ) as response:
                answer = _read(response.status, await read_body(response, MOST_BYTES))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # The error's own text may hold the address, and so the token.
            raise TelegramAway(f"Telegram cannot be reached ({_kind(error)})") from None
        judge(answer)
        return answer.result


def _kind(error: BaseException) -> str:
    reason = getattr(getattr(error, "os_error", None), "strerror", None) or getattr(error, "strerror", None)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _read(status: int, body: bytes) -> Answer:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("ok"), bool):
        # Not Telegram: a proxy, or something else at that address. What it refuses says nothing of text, chat or token.
        return Answer(429 if status == 429 else 502, description=f"no answer of the Bot API, HTTP {status}")
    parameters = document.get("parameters")
    return Answer(
        status,
        ok=document.get("ok") is True and status < 400,
        # A proxy in between may repeat the address it was asked for.
        description=redact(str(document.get("description") or ""))[:300],
        parameters=parameters if isinstance(parameters, dict) else None,
        result=document.get("result"),
    )
