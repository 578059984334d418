"""``FeedPipeline.spec.notifications``: who is told when something is wrong, of what, and when not."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from feedmill.resources.base import Boolean, Hint, Integer, Model, Rule
from feedmill.resources.common import SecretKeyRef
from feedmill.resources.types import AccountEvent, Severity, TimeOfDay, TimeZone


class QuietHours(Model):
    """Hours in which only what is Critical is sent; the rest is kept until they end."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.from != self.to", "from and to are the same: write hours that end at another time", ".to"),
    )

    from_: Annotated[TimeOfDay, Field(alias="from")]
    """When they begin, such as `22:00`."""
    to: TimeOfDay
    """When they end, such as `07:00`; before `from` = on the next day."""
    time_zone: TimeZone = TimeZone("UTC")
    """The zone of both."""


class Telegram(Model):
    """Messages to a Telegram chat."""

    bot_token_secret_ref: SecretKeyRef
    """The bot's token."""
    chat_id: Annotated[
        str,
        Field(pattern=r"^(-?[0-9]{1,20}|@\w{5,32})$"),
        Hint('write it in quotes, such as "-1001234567"'),
    ]
    """Chat, channel or user: a number in quotes, or `@name`."""
    minimum_severity: Severity = Severity.WARNING
    """What is less than this is not sent. What `accountEvents` asks for is sent anyway."""
    account_events: Annotated[
        list[AccountEvent], Field(max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = Field(default_factory=list)
    """What of the accounts is told beside what is wrong with them: fills, changes of orders, transfers. Default:
    nothing."""
    mask_accounts: Boolean = False
    """True: accounts are named by the first letter and a short fingerprint only."""
    quiet_hours: QuietHours | None = None
    """Hours in which only what is Critical is sent."""
    per_minute: Annotated[Integer, Field(ge=1, le=60)] = 20
    """Most messages a minute. What comes together is put into one message."""
    base_url: Annotated[
        str,
        Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", max_length=512),
        Hint("write http:// or https:// and a host, without credentials, such as https://api.telegram.org"),
    ] = "https://api.telegram.org"
    """Where the Bot API is: another one for a local Bot API server or a proxy of it."""


class Notifications(Model):
    """Who is told when something is wrong."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.telegram)", "name where to send to (telegram), or leave notifications out"),
    )

    telegram: Telegram | None = None
    """Messages to a Telegram chat."""
