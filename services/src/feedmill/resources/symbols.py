"""Guesses what symbol somebody meant. Pure; only used to word a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_QUOTES = (
    "USDT",
    "USDC",
    "FDUSD",
    "TUSD",
    "BUSD",
    "USD",
    "EUR",
    "GBP",
    "TRY",
    "BRL",
    "JPY",
    "BTC",
    "ETH",
    "BNB",
    "DAI",
)


def _guesses(text: str) -> Iterator[str]:
    upper = text.strip().upper()
    yield upper
    dashed = re.sub(r"[\s/:_]+", "-", upper)
    yield dashed
    yield upper.replace("-", "_")
    for quote in _QUOTES:
        if upper.endswith(quote) and len(upper) > len(quote) and upper.isalnum():
            yield f"{upper[: -len(quote)]}-{quote}"
    expiring = re.fullmatch(r"([A-Z0-9]+?)(USDT|USDC|USD)[-_]([0-9]{6})", upper)
    if expiring:
        yield "-".join(expiring.groups())


def suggest_form(text: str) -> str | None:
    """``BTCUSDT``, ``btc/usdt`` -> ``BTC-USDT``; None when nothing is likely."""
    for guess in _guesses(text):
        if guess != text and re.fullmatch(r"[A-Z0-9]+(-[A-Z0-9]+)+", guess):
            return guess
    return None


def suggest_symbol(text: str, to_native: Callable[[str], str]) -> str | None:
    """The first guess that the venue accepts."""
    for guess in _guesses(text):
        if guess == text:
            continue
        try:
            to_native(guess)
        except ValueError:
            continue
        return guess
    return None
