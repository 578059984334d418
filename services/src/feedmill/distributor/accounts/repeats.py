"""Changes of a balance that say the same twice. Pure.

Binance gives deposits, withdrawals and transfers no id, only asset, amount and ms. What two connections tell alike is
one, and so is a message that comes twice in a row. Where one connection tells the same again, and something else was
told between, nobody can say whether it happened twice: the balance is right, the change is stored once, and the
second telling is kept as a dead letter rather than in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from feedmill.shared.account_events import BalanceChange
from feedmill.shared.account_keys import Key, change_key

REASON = "equal_change"
DETAIL = "told twice, with nothing that says whether it happened twice: balance_changes has it once"


@dataclass(slots=True)
class Repeats:
    """Remembers the newest ms of one connection, which is where two such tellings can be."""

    _conn: tuple[str, int] = ("", 0)
    _frame: bytes = b""
    _repeated: bool = False
    _at_ns: int = 0
    _told: set[Key] = field(default_factory=set)

    def frame(self, session: str, conn: int, payload: bytes) -> None:
        """The next message of a connection, before what it says."""
        if (session, conn) != self._conn:
            self._conn = session, conn
            self._frame = b""
            self._told.clear()
        self._repeated = payload == self._frame
        self._frame = payload

    def again(self, event: BalanceChange) -> bool:
        """Whether this connection has told just this before, and this is not the same message once more."""
        if event.venue_id or self._repeated:
            return False
        if event.venue_ns != self._at_ns:
            self._at_ns = event.venue_ns
            self._told.clear()
        key = change_key(event)
        if key in self._told:
            return True
        self._told.add(key)
        return False
