"""What a venue says may repeat what it was sent: nothing of a key is left of it."""

from __future__ import annotations

import pytest

from feedmill.exchanges.reading import safe_text
from feedmill.shared import log

SIGNATURE = "8579d9003d32" * 6


@pytest.fixture(autouse=True)
def only_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_secrets", [])


def test_a_message_without_a_key_is_told_as_it_is() -> None:
    assert safe_text("Invalid symbol.") == "Invalid symbol."


@pytest.mark.parametrize("length", range(150, 201))
def test_no_part_of_a_key_is_left_where_the_text_is_cut(length: int) -> None:
    told = safe_text("." * length + SIGNATURE)
    assert SIGNATURE[:6] not in told
    assert len(told) <= 200
    assert SIGNATURE[:6] not in safe_text("not-so-long " * 900 + SIGNATURE)


def test_a_short_key_is_known_because_it_is_registered() -> None:
    log.register_secret("AbCd12_x")
    told = safe_text('{"client_id":"AbCd12_x","signature":"abc","symbol":"BTC-PERPETUAL"}')
    assert "AbCd12_x" not in told
    assert "abc" not in told
    assert "BTC-PERPETUAL" in told
