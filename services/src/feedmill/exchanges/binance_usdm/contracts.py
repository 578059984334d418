"""What a contract of Binance USD-M is, by its row of ``exchangeInfo``. Dossier section 8."""

from __future__ import annotations

from feedmill.exchanges.times import to_ns

NEVER_MS = 4_133_404_800_000
"""deliveryDate of what is never delivered."""


def kind_of(native: str, contract: str, delivery_ms: int) -> tuple[str, int]:
    """Type, and expiry in ns (0 = never)."""
    perpetual = "PERPETUAL" in contract or (not contract and "_" not in native)
    expires = delivery_ms and delivery_ms < NEVER_MS
    return "Perpetual" if perpetual else "Future", to_ns(delivery_ms) if expires else 0
