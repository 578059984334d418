"""What a breaker says in the log."""

from __future__ import annotations

from typing import Any

from feedmill.shared.breaker import State, tells


def test_a_breaker_tells_the_log_what_stands_in_the_way() -> None:
    said: list[tuple[str, str]] = []

    class Log:
        def __getattr__(self, level: str) -> Any:
            return lambda event, **fields: said.append((level, f"{event} {fields['server']}"))

    told = tells(Log(), "redis")
    states: tuple[State, ...] = ("open", "half-open", "open", "closed")
    for state in states:
        told(state)
    assert said == [
        ("warning", "breaker.open redis"), ("debug", "breaker.half_open redis"), ("warning", "breaker.open redis"),
        ("info", "breaker.closed redis"),
    ]  # fmt: skip
