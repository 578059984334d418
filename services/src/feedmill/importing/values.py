"""Values as other programs wrote them, as the exact texts that are stored: pure.

A float is taken for the shortest decimal text that gives that float again (0.1 for 0.1), which is what its writer saw.
Raises ValueError with what is expected; the caller names the place.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

_QUOTES = (
    *("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "DAI", "USD", "EUR", "GBP", "TRY", "BRL", "JPY", "AUD"),
    *("BTC", "ETH", "BNB"),
)
_STATUSES = {
    "new": "new", "open": "new", "pending": "new", "pendingnew": "new", "accepted": "new", "untriggered": "untriggered",
    "partiallyfilled": "partially_filled", "partial": "partially_filled",
    "filled": "filled", "closed": "filled", "done": "filled",
    "canceled": "cancelled", "cancelled": "cancelled", "rejected": "rejected",
    "expired": "expired", "expiredinmatch": "expired",
}  # fmt: skip
_EARLIEST, _LATEST = 1_230_000_000 * 10**9, 4_102_444_800 * 10**9
"""2009 and 2100: what is outside is another unit, or another column."""


def trim(number: Decimal) -> str:
    """Without exponent and useless zeros. Raises ValueError where it is no finite number of sane size."""
    if not number.is_finite() or (number and not -40 < number.adjusted() < 40) or len(number.as_tuple().digits) > 60:
        raise ValueError("is not a finite number of at most 40 digits")
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


_plain = re.compile(r"-?(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,20})?").fullmatch


def decimal(value: object) -> str:
    if isinstance(value, (str, Decimal)) and _plain(text := str(value)):  # Most are; the same as below, but quick.
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return "0" if text == "-0" else text
    if isinstance(value, float):
        text = repr(value)
        if "e" in text or "n" in text:  # An exponent, or nan and inf.
            return trim(Decimal(text))
        return text.removesuffix(".0") if value else "0"
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        return trim(Decimal(value))
    if isinstance(value, str):
        try:
            return trim(Decimal(value.strip()))
        except InvalidOperation:
            raise ValueError("is not a number") from None
    raise ValueError("is not a number")


def moment(value: object) -> str:
    """ns since the epoch of a number (s, ms, us or ns, by its size), an ISO text (UTC by default) or a datetime."""
    if isinstance(value, str) and not re.fullmatch(r"\s*\d+(\.\d*)?\s*", value):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError("is not a time: write 2026-01-31T12:00:00Z or seconds since 1970") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        since = (value if value.tzinfo else value.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        ns = ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
    elif type(value) is int and 10**9 < value < 10**15:
        ns = value * (10**9 if value < 10**11 else 10**6 if value < 10**14 else 10**3)
    elif type(value) is float and 10**9 < value < 10**14:  # The same as below, without Decimal.
        whole, _, part = repr(value).partition(".")
        digits = 9 if value < 10**11 else 6
        ns = int(whole + part[:digits].ljust(digits, "0"))
    else:
        number = Decimal(decimal(value))
        unit = next(factor for most, factor in ((11, 9), (14, 6), (17, 3), (99, 0)) if number < 10**most)
        ns = int(number * 10**unit)
    if not _EARLIEST < ns < _LATEST:
        raise ValueError("is no time between 2009 and 2100")
    return str(ns)


def side(value: object) -> str:
    """1 = buy, 2 = sell."""
    word = str(value).strip().lower()
    if word in ("buy", "b", "bid", "long"):
        return "1"
    if word in ("sell", "s", "ask", "short"):
        return "2"
    raise ValueError("is not a side: buy or sell")


def flag(value: object) -> str:
    word = str(value).strip().lower()
    if word in ("1", "true", "t", "yes", "maker"):
        return "true"
    if word in ("0", "false", "f", "no", "taker"):
        return "false"
    raise ValueError("is not true or false")


def word(value: object) -> str:
    if type(value) is int and -(10**18) < value < 10**18:
        return str(value)
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        text = str(value).strip()
        if text and "\x00" not in text and len(text) <= 500 and text.isprintable():
            return text
    elif isinstance(value, float) and value.is_integer():  # An id that went through a table of floats.
        return str(int(value))
    raise ValueError("is not a text of 1 to 500 letters")


def account(value: object) -> str:
    """A name as ours are: Main Account -> main-account."""
    namespace, slash, name = word(value).rpartition("/")
    made = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (namespace, name)]
    if not made[1] or (slash and not made[0]) or max(map(len, made)) > 63:
        raise ValueError("is not a name of an account: at most 63 letters and digits")
    return f"{made[0]}/{made[1]}" if slash else made[1]


def count(value: object) -> str:
    text = decimal(value)
    if not re.fullmatch(r"\d{1,18}", text):
        raise ValueError("is not a whole number")
    return text


def status(value: object) -> str:
    text = word(value)
    return _STATUSES.get(re.sub(r"[^a-z]", "", text.lower()), f"unknown:{text}")


def symbol(value: object) -> str:
    """BTC-USDT of BTC/USDT, BTC_USDT, BTC/USDT:USDT, BTCUSDT; other names (BTC-PERPETUAL, options) as they are."""
    text = word(value).upper().partition(":")[0]
    parts = re.split(r"[/_-]", text)
    if len(parts) == 1:
        quote = next((quote for quote in _QUOTES if text.endswith(quote) and len(text) > len(quote)), "")
        if not quote:
            raise ValueError("is not a symbol: write it with a dash, such as BTC-USDT")
        parts = [text[: -len(quote)], quote]
    if not all(re.fullmatch(r"[A-Z0-9.]+", part) for part in parts) or len(parts) > 6:
        raise ValueError("is not a symbol: write it with a dash, such as BTC-USDT")
    return "-".join(parts)
