"""USD-M's listen keys: one an account, valid for an hour from its making or renewal. Pure; times are ms."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from feedmill.simulator.accounts.keys import ApiKey


@dataclass(slots=True)
class ListenKey:
    text: str
    account: str
    key: ApiKey
    """The API key that made it."""
    until_ms: int


class ListenKeys:
    def __init__(self, life_ms: int) -> None:
        self._life_ms = life_ms
        self._of: dict[str, ListenKey] = {}
        self._by_text: dict[str, ListenKey] = {}

    def make(self, key: ApiKey, now_ms: int) -> str:
        """A new one, or the active one, extended."""
        found = self.active(key.account, now_ms)
        if found is None:
            found = ListenKey(secrets.token_hex(32), key.account, key, 0)
            self._of[key.account] = self._by_text[found.text] = found
        found.until_ms = now_ms + self._life_ms
        return found.text

    def active(self, account: str, now_ms: int) -> ListenKey | None:
        found = self._of.get(account)
        return found if found is not None and now_ms < found.until_ms else None

    def renew(self, account: str, now_ms: int) -> str | None:
        """None = there is none to renew."""
        found = self.active(account, now_ms)
        if found is None:
            return None
        found.until_ms = now_ms + self._life_ms
        return found.text

    def drop(self, account: str) -> ListenKey | None:
        found = self._of.pop(account, None)
        if found is not None:
            del self._by_text[found.text]
        return found

    def find(self, text: str) -> ListenKey | None:
        return self._by_text.get(text)

    def all(self) -> list[ListenKey]:
        return list(self._of.values())

    def ended(self, now_ms: int) -> list[ListenKey]:
        """Those that came to their end; they are forgotten."""
        gone = [each for each in self._of.values() if each.until_ms <= now_ms]
        for each in gone:
            self.drop(each.account)
        return gone
