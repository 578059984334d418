"""How many leases a process should hold."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.shared.lease import Link, Share
from feedmill.shared.redis.url import RedisUrl


def share(total: int, alive: int | None, held: int = 0) -> Share:
    link: Any = None
    made = Share(link, "key", name="r0", total=total)
    made.alive, made.held = alive, held
    return made


@given(st.integers(0, 200), st.integers(1, 20))
def test_all_shares_together_are_enough_and_none_is_more_than_one_above_another(total: int, alive: int) -> None:
    allowed = share(total, alive).allowed
    assert allowed * alive >= total
    assert (allowed - 1) * alive < total or not total


def test_nothing_is_taken_or_given_up_before_redis_was_heard() -> None:
    unknown = share(4, None, held=4)
    assert unknown.allowed == 0
    assert not unknown.surplus()


def test_only_as_many_go_as_are_too_many() -> None:
    crowded = share(6, 2, held=6)
    gone = 0
    while crowded.surplus():
        crowded.leaving += 1
        gone += 1
    assert gone == 3


async def test_right_after_a_failure_the_server_is_not_asked_again() -> None:
    from feedmill.shared.lease import _RELEASE

    with socket.socket() as held:  # Its port is nobody else's, and nobody listens.
        held.bind(("127.0.0.1", 0))
        link = Link(RedisUrl("127.0.0.1", held.getsockname()[1]), "test")
        with pytest.raises(ConnectionRefusedError):
            await link.run(_RELEASE, "key", "token", timeout=60.0)
    assert link.error.startswith("ConnectionRefusedError")
    link._again = float("inf")
    with pytest.raises(ConnectionError, match="ConnectionRefusedError"):
        await link.run(_RELEASE, "key", "token")
    link.close()
