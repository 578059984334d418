"""Deribit's connections are counted by address: who has a place does not lose it to who comes later."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from feedmill.accounts.places import without_place
from feedmill.accounts.store import Account, Name

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def account(number: int, exchange: str = "deribit", market: str = "Derivatives", **fields: Any) -> Account:
    values: dict[str, Any] = {
        "environment": "Production", "origin": "store", "endpoints": {}, "enabled": True, "allow_withdraw": False,
        "revision": 1, "verdict": "unknown", "verdict_detail": "", "key_expires_at": None, "checked_at": None,
        "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    return Account(number, Name("default", f"a{number}"), exchange, market, **(values | fields))


def test_the_first_ones_have_the_places_and_the_others_are_told_why() -> None:
    found = without_place(reversed([account(number) for number in range(1, 31)]))
    assert set(found) == {f"default/a{number}" for number in range(25, 31)}
    why = found["default/a26"]
    assert "number 26" in why
    assert "24 are for accounts" in why
    assert "feedmill accounts disable" in why


def test_a_disabled_one_leaves_its_place_to_the_next() -> None:
    rows = [account(number, enabled=number != 3) for number in range(1, 26)]
    assert without_place(rows) == {}


def test_environments_have_places_of_their_own_and_other_venues_have_no_end_of_them() -> None:
    rows = [account(number, environment="Testnet" if number % 2 else "Production") for number in range(1, 49)]
    assert without_place(rows) == {}
    rows = [account(number, "binance", "Spot") for number in range(1, 1001)]
    rows += [account(1001 + number, "nowhere", "Spot") for number in range(50)]
    assert without_place(rows) == {}
