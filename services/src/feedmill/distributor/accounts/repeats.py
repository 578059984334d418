"""Changes of a balance that say the same twice. Pure.

Binance gives deposits, withdrawals and transfers no id, only asset, amount and ms. What two connections tell alike is
one. Of what one connection tells twice nobody can say whether the exchange repeated itself: the balance is right, the
change is stored once, and the second telling is kept as a dead letter rather than in silence.
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

    _of: tuple[str, int, int] = ("", 0, 0)
    _told: set[Key] = field(default_factory=set)

    def again(self, session: str, conn: int, event: BalanceChange) -> bool:
        """Whether this connection has told just this before."""
        if event.venue_id:
            return False
        of = session, conn, event.venue_ns
        if of != self._of:
            self._of = of
            self._told.clear()
        key = change_key(event)
        if key in self._told:
            return True
        self._told.add(key)
        return False
