"""How far a distributor is behind, also while nothing newer comes, and after a silence."""

from __future__ import annotations

from feedmill.distributor.gate import Behind


def test_it_is_the_time_to_the_newest_entry() -> None:
    behind = Behind()
    assert behind.seconds((5000, 0), (0, 0), 1.0) == 0.0, "nothing was dispatched yet: it is not known"
    assert behind.seconds((9000, 0), (5000, 0), 2.0) == 4.0
    assert behind.seconds((9500, 0), (8000, 0), 2.5) == 1.5
    assert behind.seconds((9600, 0), (9600, 0), 3.0) == 0.0


def test_it_grows_while_nothing_is_dispatched_and_nothing_newer_comes() -> None:
    behind = Behind()
    behind.seconds((5000, 0), (5000, 0), 10.0)
    assert behind.seconds((5200, 0), (5000, 0), 11.0) == 1.0
    assert behind.seconds((5200, 0), (5000, 0), 30.0) == 20.0
    assert behind.seconds((5200, 0), (5200, 0), 31.0) == 0.0


def test_a_quiet_stream_is_not_one_that_lags() -> None:
    behind = Behind()
    behind.seconds((5000, 0), (5000, 0), 900.0)
    # What comes after a quarter of an hour is as young as it is.
    assert behind.seconds((905_000, 0), (5000, 0), 900.5) == 0.5
    assert behind.seconds((906_000, 0), (905_000, 0), 901.5) == 1.0
