"""The contract of a venue's private half: what an account's session sends, how answers are judged, what they map to.

Pure like the public halves: secrets come in as ``SecretStr`` with the time, messages come out. What holds a secret
(a message to send, a signed request, a grant) does not show it in its repr, and an :class:`AccountVerdict` says of each
frame whether it may be recorded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from pydantic import SecretStr

from feedmill.exchanges.base import FrameKind
from feedmill.shared.account_events import Balance, BalanceChange, Fill, OrderUpdate, Position

if TYPE_CHECKING:
    from feedmill.accounts.hygiene import Permissions
    from feedmill.exchanges.account_rest import AccountRest, Known, Traded
    from feedmill.exchanges.account_session import Place, PrivateConnection

AccountEvent = OrderUpdate | Fill | Balance | BalanceChange | Position


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one account at one venue: ``api_key`` with the secret, or with the PEM text of an Ed25519 key."""

    api_key: SecretStr
    api_secret: SecretStr | None = None
    private_key: SecretStr | None = None

    @classmethod
    def of(cls, fields: Mapping[str, SecretStr]) -> Credentials:
        """From the names that the credential store has; these are checked where they are stored."""
        return cls(fields["apiKey"], fields.get("apiSecret"), fields.get("privateKey"))


NOBODY = Credentials(SecretStr(""))
"""For requests that need no key."""


class Purpose(Enum):
    """What a message of a session is for."""

    LOGON = "logon"
    SUBSCRIBE = "subscribe"
    KEEP = "keep"
    """Heartbeats and the like."""


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """A message to send on a private connection; never recorded."""

    purpose: Purpose
    request_id: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a log-on gave for a time: a listen key, or a pair of tokens."""

    token: SecretStr
    renew_after: float
    """Seconds from now; in good time before it ends."""
    refresh: SecretStr | None = None
    scope: str = ""


class Mend(Enum):
    """What helps against a refusal."""

    USER = "user"
    """Nothing but the user: a wrong key, a missing right, an address that is not allowed."""
    RETRY = "retry"
    """The same again, after ``wait`` seconds or a back-off."""
    CLOCK = "clock"
    """The same again, with the venue's time: ask for it and sign by that."""
    RENEW = "renew"
    """What was granted has ended: log on (make a listen key) anew, then the same again."""
    RECONNECT = "reconnect"
    """A new connection: this one can do no more."""
    DONE = "done"
    """Nothing: what was asked for is so already."""
    REFUSED = "refused"
    """Nothing: this request has no answer. The others go on."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refusal. ``text`` is ours where the code is known; from the venue's nothing that looks like a key is kept."""

    mend: Mend
    code: int
    text: str
    wait: float | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


@dataclass(frozen=True, slots=True)
class AccountVerdict:
    """What a frame of a private connection is. Only ``record`` ones go into the raw stream."""

    kind: FrameKind
    record: bool = False
    request_id: int | None = None
    rejection: Rejection | None = None
    subscription: int | None = None
    """Number of the subscription (Spot): given by the acknowledgement, named by each event."""
    accepted: frozenset[str] | None = None
    grant: Grant | None = None
    reply: bytes | None = None
    ended: bool = False
    """The venue says that it tells no more of the account here: log on or subscribe anew, and reconcile."""


UNREADABLE = AccountVerdict(FrameKind.DATA)
"""A frame that nothing can be told of. It may be an event that is missing now, or the torn answer to a log-on: it is
not recorded, and the connection is made anew, so that the account is reconciled."""


@dataclass(frozen=True, slots=True)
class AccountRequest:
    """A REST request about an account, not signed yet. ``kind`` tells the mapper what the answer is."""

    kind: str
    path: str
    params: Mapping[str, str]
    weight: int
    symbol: str = ""
    native: str = ""
    bucket: str = "weight"
    method: str = "GET"
    signed: bool = True
    """False: the key alone is asked for (listen keys)."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """Ready to be made. Its URL carries a signature, its headers the key: shown nowhere."""

    method: str
    url: SecretStr
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class AccountVenue:
    """The private half of one exchange market."""

    streams: Mapping[str, str]
    """Environment -> base URL of private connections."""
    connection: Callable[[Place], PrivateConnection]
    mapper: Callable[[Mapping[str, str]], AccountMapper]
    reconcile: Callable[[Mapping[str, Traded], Known, int], AccountRest]
    """(instruments by symbol, what is known, ms now) -> the requests of a reconciliation."""
    traded: Callable[[bytes], dict[str, Traded]]
    """The answer to ``instruments`` -> every instrument of the market by canonical symbol. Raises MapError."""
    instruments: AccountRequest
    time: AccountRequest
    server_ms: Callable[[bytes], int]
    """The answer to ``time``. Raises MapError."""
    sign: Callable[[str, AccountRequest, Credentials, int, str], SignedRequest]
    """(REST base URL, request, credentials, ms now, nonce). Raises ValueError."""
    judge: Callable[[int, Mapping[str, str], bytes, bool], Rejection | None]
    """(HTTP status, headers, body, timed by the venue's clock) -> why a request was refused; None = it was not."""
    ask_rights: Callable[[str, Credentials, int, str], SignedRequest]
    """(REST base URL, credentials, ms now, nonce): what may the key do? Raises ValueError."""
    rights: Callable[[bytes], Permissions]
    """The answer to it. Raises MapError."""
    places: int = 0
    """Connections of accounts that one address may have, where each account needs one; 0 = they are not the limit."""


class AccountMapper(ABC):
    """Private frames and REST answers -> events. Holds no state but the symbol table, so live and replay are equal."""

    def __init__(self, symbols: Mapping[str, str]) -> None:
        """``symbols``: native -> canonical, of every instrument that the account may trade."""
        self.symbols: dict[str, str] = dict(symbols)

    @abstractmethod
    def map(self, payload: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        """Frame -> events; empty for frames that carry none. Raises MapError for what it cannot map.

        ``unknown_symbol`` names the native symbol: learn it (``learn``) and map the frame again.
        """

    @abstractmethod
    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        """The answer to a request of that kind -> events with ``AccountFlag.REST``. Raises MapError."""

    def more(self, kind: str, body: bytes) -> bool:
        """Whether the answer says itself that it is not the last page. Raises MapError."""
        return False

    def learn(self, native: str, symbol: str) -> None:
        self.symbols[native] = symbol
