"""Instruments that the simulated venues list."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from feedmill.simulator.config import ConfigError
from feedmill.simulator.texts import decimals_of

NEVER_BINANCE_MS = 4133404800000
NEVER_DERIBIT_MS = 32503708800000
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

# canonical: (price, tick, lot)
_PAIRS: dict[str, tuple[str, str, str]] = {
    "BTC-USDT": ("76900", "0.01", "0.00001"),
    "ETH-USDT": ("2500", "0.01", "0.0001"),
    "SOL-USDT": ("150", "0.01", "0.001"),
    "BNB-USDT": ("600", "0.01", "0.001"),
    "XRP-USDT": ("0.5", "0.0001", "0.1"),
    "ADA-USDT": ("0.4", "0.0001", "0.1"),
    "DOGE-USDT": ("0.1", "0.00001", "1"),
    "AVAX-USDT": ("30", "0.01", "0.01"),
    "DOT-USDT": ("6", "0.001", "0.01"),
    "LINK-USDT": ("15", "0.01", "0.01"),
    "LTC-USDT": ("80", "0.01", "0.001"),
    "TRX-USDT": ("0.12", "0.0001", "0.1"),
    "POL-USDT": ("0.4", "0.0001", "0.1"),
    "ATOM-USDT": ("7", "0.001", "0.01"),
    "UNI-USDT": ("8", "0.001", "0.01"),
    "NEAR-USDT": ("5", "0.001", "0.1"),
}
_SPOT_ONLY: dict[str, tuple[str, str, str]] = {
    "ETH-BTC": ("0.04", "0.00001", "0.001"),
    "BNB-BTC": ("0.01", "0.000001", "0.01"),
    "SOL-BTC": ("0.002", "0.0000001", "0.1"),
    "BTC-EUR": ("70000", "0.01", "0.00001"),
}
_USDM: dict[str, tuple[str, str, str]] = {
    "BTC-USDC": ("76900", "0.1", "0.001"),
    "ETH-USDC": ("2500", "0.01", "0.001"),
    "BTC-USDT-270326": ("78000", "0.1", "0.001"),
    "ETH-USDT-270326": ("2600", "0.01", "0.001"),
}
_DERIBIT = (
    "BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL", "ETH_USDC-PERPETUAL",
    "SOL_USDC-PERPETUAL", "XRP_USDC-PERPETUAL", "BTC-26MAR27", "BTC-25JUN27",
    "BTC-24DEC27", "ETH-26MAR27", "ETH-25JUN27", "ETH_USDC",
    "BTC_USDC", "BTC-25JUN27-80000-C", "BTC-25JUN27-80000-P", "BTC-25JUN27-100000-C",
    "BTC-25JUN27-60000-P", "ETH-25JUN27-3000-C", "ETH-25JUN27-2000-P", "SOL_USDC-25JUN27-150-C",
)  # fmt: skip
_DERIBIT_PRICES = {"BTC": "76900", "ETH": "2500", "SOL": "150", "XRP": "0.5"}
_DERIBIT_NAME = re.compile(
    r"(?P<base>[A-Z0-9]+)(?:_(?P<quote>[A-Z]+))?"
    r"(?:-(?:(?P<perpetual>PERPETUAL)|(?P<day>\d{1,2})(?P<month>[A-Z]{3})(?P<year>\d\d)"
    r"(?:-(?P<strike>\d+(?:d\d+)?)-(?P<type>[CP]))?))?"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """One instrument. Prices are multiples of ``tick``, sizes of ``lot`` (the venue's unit of amount)."""

    symbol: str
    """Canonical."""
    native: str
    type: str
    """Spot | Perpetual | Future | Option."""
    base: str
    quote: str
    settle: str
    price: Decimal
    """Where the walk starts."""
    tick: Decimal
    lot: Decimal
    price_decimals: int
    size_decimals: int
    expiry_ms: int = 0
    strike: Decimal = Decimal(0)
    option_type: str = ""
    contract_size: Decimal = Decimal(1)

    @property
    def inverse(self) -> bool:
        """Amounts are counted in the quote currency (Deribit's reversed futures)."""
        return self.settle == self.base and self.type in ("Perpetual", "Future")


def _guess(symbol: str) -> tuple[str, str, str]:
    """Price, tick and lot of a pair that is in no list: steady for a name."""
    return (str(1 + zlib.crc32(symbol.encode()) % 500), "0.01", "0.01")


def spot(symbol: str) -> Listing:
    base, _, quote = symbol.partition("-")
    if not base or not quote or "-" in quote:
        raise ConfigError(f"symbol {symbol!r} is not a Spot pair: write BASE-QUOTE, e.g. BTC-USDT")
    price, tick, lot = (_PAIRS | _SPOT_ONLY).get(symbol) or _guess(symbol)
    return Listing(symbol, base + quote, "Spot", base, quote, quote, Decimal(price), Decimal(tick), Decimal(lot), 8, 8)


def usdm(symbol: str) -> Listing:
    parts = symbol.split("-")
    if len(parts) not in (2, 3) or not all(parts) or (len(parts) == 3 and not re.fullmatch(r"\d{6}", parts[2])):
        raise ConfigError(f"symbol {symbol!r} is not a USD-M contract: write BTC-USDT or BTC-USDT-260925")
    base, quote = parts[:2]
    price, tick, lot = (_PAIRS | _USDM).get(symbol) or _guess(symbol)
    lot = str(max(Decimal(lot), Decimal("0.001")))
    expiry = 0
    if len(parts) == 3:
        expiry = int(datetime.strptime(parts[2] + "08+0000", "%y%m%d%H%z").timestamp() * 1000)
    return Listing(
        symbol,
        base + quote + (f"_{parts[2]}" if len(parts) == 3 else ""),
        "Future" if expiry else "Perpetual",
        base,
        quote,
        quote,
        Decimal(price),
        Decimal(tick),
        Decimal(lot),
        decimals_of(Decimal(tick)),
        decimals_of(Decimal(lot)),
        expiry,
    )


def deribit(symbol: str) -> Listing:
    match = _DERIBIT_NAME.fullmatch(symbol)
    if match is None or (match["quote"] is None and match["perpetual"] is None and match["day"] is None):
        raise ConfigError(f"symbol {symbol!r} is not a Deribit name: write e.g. BTC-PERPETUAL or BTC-25JUN27-80000-C")
    base, linear = match["base"], match["quote"]
    spot_price = Decimal(_DERIBIT_PRICES.get(base, "10"))
    expiry = 0
    if match["day"]:
        if match["month"] not in _MONTHS:
            raise ConfigError(f"symbol {symbol!r} names the month {match['month']!r}: use JAN .. DEC")
        month = _MONTHS.index(match["month"]) + 1
        moment = datetime(2000 + int(match["year"]), month, int(match["day"]), 8, tzinfo=UTC)
        expiry = int(moment.timestamp() * 1000)
    option = match["strike"] is not None
    kind = "Option" if option else "Future" if expiry else "Perpetual" if match["perpetual"] else "Spot"
    quote = linear or ("USD" if not option else base)
    settle = linear or base
    if kind == "Option" and not linear:
        price, tick, lot = Decimal("0.05"), Decimal("0.0005"), Decimal("0.1")
    elif kind == "Option":
        price, tick, lot = spot_price / 10, spot_price / 1000, Decimal(1)
    elif linear is None:
        price, tick, lot = spot_price, Decimal("0.5") if base == "BTC" else Decimal("0.05"), Decimal(10)
        lot = lot if base == "BTC" else Decimal(1)
    else:
        tick = Decimal("0.01") if spot_price > 100 else Decimal("0.0001")
        price, lot = spot_price, Decimal("0.001") if spot_price > 100 else Decimal("0.1")
    return Listing(
        symbol,
        symbol,
        kind,
        base,
        quote,
        settle,
        price,
        tick,
        lot,
        decimals_of(tick),
        decimals_of(lot),
        expiry,
        Decimal((match["strike"] or "0").replace("d", ".")),
        {"C": "call", "P": "put", None: ""}[match["type"]],
        lot,
    )


_MAKERS = {"binance/Spot": spot, "binance/UsdM": usdm, "deribit/Derivatives": deribit}
_DEFAULTS = {
    "binance/Spot": (*_PAIRS, *_SPOT_ONLY),
    "binance/UsdM": (*_PAIRS, *_USDM),
    "deribit/Derivatives": tuple(_DERIBIT),
}


def listings(venue: str, extra: tuple[str, ...] = (), *, only: bool = False) -> dict[str, Listing]:
    """The venue's instruments by native name: the default list and ``extra`` (``only``: nothing else).

    Raises ConfigError for a bad name.
    """
    make = _MAKERS[venue]
    found = [make(symbol) for symbol in dict.fromkeys((*(() if only else _DEFAULTS[venue]), *extra))]
    return {listing.native: listing for listing in found}


def creation_ms(listing: Listing) -> int:
    """A creation time that lies before today and does not change from run to run."""
    offset = timedelta(days=zlib.crc32(listing.native.encode()) % 700)
    return int((datetime(2023, 1, 2, 8, tzinfo=UTC) + offset).timestamp() * 1000)
