"""Accounts fall into slots, the unit of leases. Pure: the slot of an account never changes with what else there is."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

SLOTS = 64
"""Constant: members of two versions must agree."""


def slot_of(account: str) -> int:
    """Of ``namespace/name``."""
    return zlib.crc32(account.encode()) % SLOTS


def slots_of(accounts: Iterable[str]) -> set[int]:
    """The slots that have accounts."""
    return {slot_of(account) for account in accounts}
