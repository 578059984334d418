"""Deribit's JSON numbers as exact decimal text, and the hash that stands for an update id. No float anywhere."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from hashlib import blake2b

import msgspec

from feedmill.exchanges.base import MapError

MAX_EXPONENT = 100
"""Beyond this an exponent is no price; written out it would only eat memory."""
_text = msgspec.json.Decoder(str)


def decimal_text(raw: msgspec.Raw) -> str:
    """``1054.0`` -> "1054.0", ``2.2e3`` -> "2200". Text is passed on as it is: PostgreSQL judges single rows.

    Raises MapError for null, true, objects and lists.
    """
    text = str(raw, "utf-8")
    first = text[0]
    if first in "-0123456789":
        return plain(text) if "e" in text or "E" in text else text
    if first == '"':
        return _text.decode(raw)
    raise MapError("bad_field", f"expected a number, got {text[:40]}")


def plain(text: str) -> str:
    """A number with an exponent, written out."""
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise MapError("bad_field", f"exponent of {text[:40]}") from error
    if abs(number.adjusted()) > MAX_EXPONENT:
        raise MapError("bad_field", f"exponent of {text[:40]}")
    return format(number, "f")


def side(price: msgspec.Raw, size: msgspec.Raw) -> tuple[str, str]:
    """Best price and size; both empty where the venue says null or 0: that side is empty."""
    if bytes(price) == b"null":
        return "", ""
    text = decimal_text(price)
    if not text.strip("-0."):
        return "", ""
    return text, "" if bytes(size) == b"null" else decimal_text(size)


def canonical(text: str) -> str:
    """Equal numbers give equal text: ``1.0`` and ``1``, ``0.50`` and ``0.5``."""
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def ticker_seq(instrument: str, timestamp_ms: int, bid: str, bid_size: str, ask: str, ask_size: str) -> int:
    """The 63-bit hash that stands for a quote's missing update id (``events.Ticker.seq``).

    First 8 bytes of blake2b over ``instrument|timestamp|bid|bid_size|ask|ask_size`` (canonical numbers, "" for an
    empty side), big-endian, without the lowest bit.
    """
    numbers = "|".join(map(canonical, (bid, bid_size, ask, ask_size)))
    digest = blake2b(f"{instrument}|{timestamp_ms}|{numbers}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
