"""What to simulate: one ``SimulatorConfig`` a process, one ``VenueConfig`` a venue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
MIX_CHANNELS = {"trades": "Trades", "ticker": "Ticker", "tickers": "Ticker", "book": "Book", "depth": "Book"}
MAX_ACCOUNTS = 10_000
DEFAULT_MIX = {"Trades": 5.0, "Ticker": 4.0, "Book": 1.0}


class ConfigError(ValueError):
    """A setting that cannot be used; the text names it, its value and the remedy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The venue's limits (defaults: as its dossier states them). Seconds unless said otherwise."""

    connects: int = 300
    """WebSocket handshakes per ``connects_window`` and address; more are answered 429."""
    connects_window: float = 300.0
    connections: int = 100_000
    """Open WebSockets per address (Deribit: 32)."""
    messages_per_second: int = 5
    """Client messages (PING and PONG included) a connection may send; 0 = no limit."""
    streams: int = 1024
    ping_interval: float = 20.0
    """0 = the server sends no protocol PING (Deribit)."""
    pong_timeout: float = 60.0
    lifetime: float = 86_400.0
    """The 24 h cut; 0 = never."""
    shutdown_lead: float = 1.0
    """How long before the cut the ``serverShutdown`` event is sent (Spot)."""
    weight: int = 6000
    """REST weight per ``weight_window``."""
    weight_window: float = 60.0
    ban_after: int = 10
    """Requests answered 429 in one window before the address is banned (418)."""
    ban_seconds: float = 120.0
    buffer_bytes: int = 16 * 1024 * 1024
    """Unsent bytes after which a slow client is cut."""
    credits: bool = True
    """Deribit: the credit pools. Exhausted = error 10028 and the end of the session."""
    heartbeat_minimum: float = 10.0
    """Deribit: the smallest interval ``public/set_heartbeat`` takes."""
    heartbeat_scale: float = 1.0
    """Deribit: seconds an interval unit lasts (tests set 0.01)."""
    listen_key_life: float = 3600.0
    """USD-M: seconds a listen key is valid from its making or renewal."""
    token_life: float = 900.0
    """Deribit: seconds an access token is valid."""
    idle_timeout: float = 60.5
    """Deribit: a socket that neither sends nor subscribes is cut after this; 0 = never."""


_DEFAULT_LIMITS = {
    "binance/Spot": Limits(),
    "binance/UsdM": Limits(messages_per_second=10, ping_interval=180.0, pong_timeout=600.0, weight=2400),
    "deribit/Derivatives": Limits(connections=32, messages_per_second=0, ping_interval=0.0, lifetime=0.0),
}


def default_limits(venue: str, **changes: Any) -> Limits:
    """The dossier's limits of ``venue`` with some of them changed."""
    return replace(_DEFAULT_LIMITS[venue], **changes)


def change_limits(limits: Limits, fields: Mapping[str, Any]) -> Limits:
    """``limits`` with some of them changed. Raises ConfigError."""
    known = {each.name: each.type for each in dataclass_fields(Limits)}
    for name, value in fields.items():
        if name not in known:
            raise ConfigError(f"{name!r} names no limit: use one of {', '.join(known)}")
        wanted = {"bool": bool, "int": int}.get(str(known[name]), (int, float))
        if not isinstance(value, wanted) or (isinstance(value, bool) and known[name] != "bool"):
            raise ConfigError(f"limit {name}: {value!r} is no {known[name]}")
    return replace(limits, **fields)


def parse_mix(text: str) -> dict[str, float]:
    """Read ``trades=5,ticker=4,book=1`` (weights of the message rate). Raises ConfigError."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        channel = MIX_CHANNELS.get(name.strip().lower())
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if channel is None or weight < 0:
            raise ConfigError(
                f"--mix {part!r} is not understood: write channel=weight with channel one of trades, ticker, book "
                "(e.g. trades=5,ticker=4,book=1)"
            )
        mix[channel] = weight
    return mix


def parse_accounts(text: str, venues: Sequence[str]) -> dict[str, int]:
    """``2`` accounts for each of ``venues``, or for some of them ``binance/Spot=2,deribit/Derivatives=1``.

    Raises ConfigError.
    """
    found = dict.fromkeys(venues, 0)
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.rpartition("="))
        wanted = [name] if equals else list(venues)
        if not set(wanted) <= found.keys() or not number.lstrip("-").isdigit():
            raise ConfigError(
                f"--accounts {part.strip()!r} is not understood: write a number, or EXCHANGE/MARKET=NUMBER for some of "
                f"{', '.join(venues)}"
            )
        found |= dict.fromkeys(wanted, int(number))
    return found


@dataclass(frozen=True, slots=True)
class VenueConfig:
    """One simulated venue."""

    venue: str
    """binance/Spot | binance/UsdM | deribit/Derivatives."""
    port: int = 0
    """0 = any free one."""
    rate: float = 1000.0
    """Messages a second over all subscribed trades, tickers and books; 0 = as fast as the clients read."""
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    """Weights of Trades, Ticker and Book in the rate (those subscribed share it)."""
    symbols: tuple[str, ...] = ()
    """Canonical symbols beside the default list."""
    limits: Limits | None = None
    """None = the venue's own."""
    credentials: Mapping[str, str] = field(default_factory=lambda: {"feedmill-simulator": "feedmill-simulator-secret"})
    """Deribit client id -> secret accepted by public/auth."""
    history: int = 20_000
    """Trades an instrument keeps for REST."""
    levels: int = 200
    """Book levels a side."""
    accounts: int = 0
    """Accounts with keys, orders and balances."""
    account_rate: float = 10.0
    """Actions a second of all accounts together (an action is one to five private events)."""
    account_assets: tuple[str, ...] = ()
    """What accounts begin with; empty = some of everything that they trade."""

    def __post_init__(self) -> None:
        if not 0 <= self.accounts <= MAX_ACCOUNTS:
            raise ConfigError(f"accounts {self.accounts} is out of range: give 0 to {MAX_ACCOUNTS}")
        if self.account_rate < 0:
            raise ConfigError(f"account rate {self.account_rate} is negative: give actions a second, or 0 for none")
        if self.venue not in VENUES:
            raise ConfigError(f"venue {self.venue!r} is not simulated: choose one of {', '.join(VENUES)}")
        if self.rate < 0:
            raise ConfigError(f"rate {self.rate} is negative: give messages a second, or 0 for as fast as possible")
        unknown = set(self.mix) - set(DEFAULT_MIX)
        if unknown:
            raise ConfigError(f"mix names {sorted(unknown)}: use {', '.join(DEFAULT_MIX)}")

    @property
    def exchange(self) -> str:
        return self.venue.partition("/")[0]

    @property
    def market(self) -> str:
        return self.venue.partition("/")[2]


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """A simulator process."""

    venues: tuple[VenueConfig, ...]
    ledger: Path | None = None
    """Folder of the ledger; None = none is written."""
    seed: int = 1
    id_base: int | None = None
    """First trade id; None = from the seed. A later run into the same database needs a larger one."""
    recordings: Path | None = None
    """Folder with ``binance.jsonl.gz`` and others: replay them instead of generating."""
    speed: float = 1.0
    """Of the replay; 0 = without pauses."""
    grace: float = 10.0
    """Seconds the replay waits for the missing subscriptions after the first one."""
    keys_file: Path | None = None
    """Where the keys of the accounts are written (JSON, readable by the owner only); None = nowhere."""
    tls: bool = False
    tick: float = 0.01
    """Seconds between two bursts of messages."""
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if not self.venues:
            raise ConfigError("no venue is given: name at least one exchange")
        names = [venue.venue for venue in self.venues]
        if len(set(names)) != len(names):
            raise ConfigError(f"a venue is named twice in {names}: name each once")
        if self.speed < 0:
            raise ConfigError(f"speed {self.speed} is negative: give a factor (1 = as recorded), or 0 for no pauses")
