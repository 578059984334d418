"""Realised profit: the same as plain bookkeeping of lots, and the same however the fills come."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from feedmill.processor.accounts.profit import Execution, Result, result_of
from feedmill.processor.accounts.results import terms_of

D = Decimal
NEAR = Fraction(1, 10**12)


@st.composite
def executions(draw: st.DrawFn) -> list[Execution]:
    count = draw(st.integers(1, 25))
    times = sorted(draw(st.lists(st.integers(1, 12), min_size=count, max_size=count)))
    return [
        Execution(
            at, str(number), f"o{number}", draw(st.sampled_from((1, 2))),
            D(draw(st.integers(1, 500))) / 10, D(draw(st.integers(1, 40))) / 10,
        )
        for number, at in enumerate(times, 1)
    ]  # fmt: skip


def plainly(fills: list[Execution], *, inverse: bool) -> tuple[Fraction, Fraction]:
    """(size, realised) in fractions: what was paid for what is held, taken out in proportion."""
    held = paid = realised = Fraction(0)  # ``paid``: price * size, or size / price where inverse.
    for fill in fills:
        left = Fraction(fill.size) * (1 if fill.side == 1 else -1)
        price = Fraction(fill.price)
        unit = 1 / price if inverse else price
        if held * left < 0:
            closed = -left if abs(left) <= abs(held) else held
            cost = paid * closed / held
            realised += (cost - closed * unit) if inverse else (closed * unit - cost)
            held, paid, left = held - closed, paid - cost, left + closed
        held, paid = held + left, paid + left * unit
    return held, realised


@given(executions(), st.booleans(), st.randoms(use_true_random=False))
def test_profit_is_that_of_plain_bookkeeping_in_any_order(fills: list[Execution], inverse: bool, rng: object) -> None:
    size, realised = plainly(fills, inverse=inverse)
    shuffled = list(fills)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    result = result_of(shuffled, inverse=inverse)
    assert Fraction(result.size) == size
    assert abs(Fraction(result.realised) - realised) < NEAR
    assert (result.fills, result.last_ns) == (len(fills), fills[-1].exchange_ns)
    assert (result.average is None) == (size == 0)


@given(executions(), st.booleans(), st.integers(0, 25))
def test_adding_later_fills_is_exactly_computing_all_again(fills: list[Execution], inverse: bool, at: int) -> None:
    first = result_of(fills[:at], inverse=inverse)
    assert result_of(fills[at:], inverse=inverse, before=first) == result_of(fills, inverse=inverse)


def test_long_and_short_linear_and_inverse() -> None:
    def run(*fills: tuple[int, str, str], inverse: bool = False) -> Result:
        return result_of(
            [Execution(at, str(at), "o", side, D(price), D(size)) for at, (side, price, size) in enumerate(fills)],
            inverse=inverse,
        )

    assert run((1, "100", "1"), (1, "200", "1"), (2, "180", "1")) == Result(D(1), D(150), D(30), 3, 2)
    assert run((2, "100", "2"), (1, "90", "3")) == Result(D(1), D(90), D(20), 2, 1), "turned from short to long"
    assert run((1, "50000", "1000"), (2, "100000", "1000"), inverse=True).realised == D("0.01")
    assert run((2, "50000", "1000"), (1, "40000", "1000"), inverse=True).realised == D("0.005")


def test_ids_of_one_ms_count_as_numbers() -> None:
    early, late = (Execution(1, number, "o", 1, D(1), D(1)) for number in ("9", "10"))
    assert early.place < late.place


def test_what_profit_is_counted_in() -> None:
    assert terms_of("Perpetual", "BTC", "USD", "BTC").inverse
    assert not terms_of("Option", "BTC", "BTC", "BTC").inverse
    assert not terms_of("Perpetual", "BTC", "USDT", "USDT").inverse
    assert [terms_of(*each).currency for each in (("Spot", "BTC", "USDT", ""), ("Future", "ETH", "USD", "ETH"))] == [
        "USDT", "ETH",
    ]  # fmt: skip
