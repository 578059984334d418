"""What a key at a venue may do, and what we make of that: pure. Asking the venue is behind :class:`KeyReader`.

Feedmill only reads. A key that may take money out is worth stealing, so it is refused unless the account's policy says
otherwise; what makes a stolen key worth more than it must be is warned of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from feedmill.shared.clock import SECOND

if TYPE_CHECKING:
    # At run time it would bring cryptography into every process that knows a venue.
    from feedmill.accounts.fields import Secrets

EXPIRES_SOON_NS = 14 * 86_400 * SECOND
MAY_WITHDRAW = "the key may withdraw"
"""How the finding begins that only a policy allows."""
_RENEW = "make a new one, then feedmill accounts rotate-key (of an ExchangeAccount: write it into its Secret)"


class Level(StrEnum):
    UNKNOWN = "unknown"
    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Permissions:
    """As a venue states them; None = it does not say."""

    read: bool | None = None
    trade: bool | None = None
    withdraw: bool | None = None
    transfer: bool | None = None
    """Between accounts of one owner, or to another user of the venue."""
    ip_bound: bool | None = None
    expires_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a key: the worst of its findings."""

    level: Level
    findings: tuple[str, ...] = ()
    """Each with its remedy, the worst first."""

    def __str__(self) -> str:
        return "; ".join(self.findings)


NOT_READ = Verdict(Level.UNKNOWN, ("the exchange was not asked what the key may do",))


def judge(found: Permissions, *, allow_withdraw: bool, now_ns: int) -> Verdict:
    """Whether a key is used. ``allow_withdraw``: the account's policy."""
    refused: list[str] = []
    warned: list[str] = []
    if found.read is False:
        refused.append("the key may not read the account: allow reading at the exchange")
    if found.expires_ns is not None and found.expires_ns <= now_ns:
        refused.append(f"the key has expired: {_RENEW}")
    if found.withdraw:
        text = f"{MAY_WITHDRAW}: take that right away at the exchange"
        if allow_withdraw:
            warned.append(f"{text} (allowed by your policy)")
        else:
            refused.append(
                f"{text}, or say --allow-withdraw (for all accounts: spec.accounts.permissions.withdraw: Flag)"
            )
    if found.expires_ns is not None and now_ns < found.expires_ns <= now_ns + EXPIRES_SOON_NS:
        hours = (found.expires_ns - now_ns) // (3600 * SECOND)
        left = f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
        warned.append(f"the key expires in {left}: {_RENEW}")
    if found.transfer:
        warned.append("the key may transfer between accounts: take that right away at the exchange")
    if found.trade:
        warned.append("the key may trade, which Feedmill never does: a key that only reads is enough")
    if found.ip_bound is False:
        warned.append("the key works from any address: bind it to yours at the exchange")
    if refused:
        return Verdict(Level.REFUSED, (*refused, *warned))
    if warned:
        return Verdict(Level.WARNING, tuple(warned))
    if found.withdraw is None:
        return Verdict(Level.UNKNOWN, ("the exchange does not say whether the key may withdraw",))
    return Verdict(Level.OK)


def deribit_scope(scope: str) -> Permissions:
    """Permissions by the ``scope`` of an answer to ``public/auth``: words such as ``trade:read wallet:none ip:A``.

    A word that is left out is a right that was not granted, once any right is named (``connection mainaccount`` names
    none: nothing is known then).
    """
    words = dict(word.partition(":")[::2] for word in scope.split())
    rights = {name: words.get(name, "none") for name in ("trade", "account", "wallet")}
    if not any(name in words for name in rights):
        return Permissions(ip_bound=True if "ip" in words else None)
    return Permissions(
        read="read" in rights["account"],
        trade=rights["trade"] == "read_write",
        withdraw=rights["wallet"] == "read_write",
        # The scope may narrow the address; a key's own list of addresses is not in it.
        ip_bound=True if "ip" in words else None,
    )


class KeyReader(Protocol):
    """Asks one market what a key may do. Raises OSError or TimeoutError when it is away."""

    async def __call__(self, endpoints: Mapping[str, str], environment: str, secrets: Secrets) -> Permissions: ...
