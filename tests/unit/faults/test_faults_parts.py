"""The pure parts of ``make faults`` and ``make soak``: verdicts, schedules, tables, slopes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from faults.__main__ import arguments, command
from faults.catalogue import FAULTS, SHORT, chosen
from faults.judge import MIB, Measured, Promise, breaches
from faults.order import Judge, Order
from faults.row import Scale
from faults.slope import POINTS, theil_sen, thin
from hypothesis import given
from hypothesis import strategies as st

from faults import chaos, soak, table
from feedmill.shared.events import EventBlock, Flag, Side, Ticker, Trade
from feedmill.shared.keys import ShardRef
from feedmill.simulator.report import Accounts, Books, Candles, Flow, Report, VenueReport


def measured(**flow: int) -> Measured:
    trades = Flow(emitted=1000, stored=1000, **flow)
    venue = VenueReport("binance/Spot", trades, Flow(emitted=500, stored=490, in_gaps=10), causes={"Ticker closed": 2})
    peak = {"receiver": 60 * MIB}
    return Measured("x", Report([venue]), catch_up=2.0, connects=1, peak=peak)


HOLDS = Promise(connects=1, catch_up=10.0)


def test_a_row_that_holds_holds() -> None:
    assert breaches(measured(), HOLDS) == []


@pytest.mark.parametrize("what", ["lost", "doubled", "phantom", "wrong", "gaps_wrong", "in_gaps"])
def test_every_count_that_must_be_nothing_breaks_it(what: str) -> None:
    (broken,) = breaches(measured(**{what: 3}), HOLDS)
    assert "3 trades" in broken


@pytest.mark.parametrize(
    ("promise", "word"),
    [
        (replace(HOLDS, connects=0), "connects"),
        (replace(HOLDS, catch_up=1.0), "caught up after 2.0 s"),
        (replace(HOLDS, letters=1), "0 dead letters, not 1"),
        (replace(HOLDS, gap_rows=False), "2 gap rows"),
        (replace(HOLDS, peak=59 * MIB), "receiver took 60 MiB"),
    ],
)
def test_every_promise_can_be_broken(promise: Promise, word: str) -> None:
    (broken,) = breaches(measured(), promise)
    assert word in broken


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"refused": 2}, "2 connects refused"),
        ({"open_gaps": 3}, "3 gap rows are open"),
        ({"before": {"receiver": 60 * MIB}, "after": {"receiver": 101 * MIB}}, "receiver kept 41 MiB more"),
        ({"disorder": ["2 events out of order"]}, "out of order"),
    ],
)
def test_what_is_beside_the_ledger_can_break_it(fields: dict[str, Any], word: str) -> None:
    found = measured()
    for name, value in fields.items():
        setattr(found, name, value)
    (broken,) = breaches(found, replace(HOLDS, none_open=True))
    assert word in broken


def trades(*numbers: int, flags: int = 0, symbol: str = "BTC-USDT") -> EventBlock:
    return EventBlock(trades=[Trade(symbol, number, "1", "1", Side.BUY, 0, 0, flags) for number in numbers])


SHARD = ShardRef("default", "binance-spot", 0)


def test_order_is_kept_where_what_is_not_late_rises() -> None:
    judge = Judge(SHARD)
    judge.take(1, trades(1, 2, 4))
    judge.take(2, trades(1, symbol="ETH-USDT"))
    judge.take(3, trades(3, flags=Flag.LATE))
    judge.take(4, trades(3, flags=Flag.BACKFILL))
    judge.take(7, trades(5))
    assert (judge.wrong, judge.checked, judge.commits, judge.unseen) == ([], 5, 5, 2)
    judge.take(8, trades(5))
    judge.take(9, trades(4))
    judge.take(9, trades(6))
    assert judge.wrong == [
        "BTC-USDT: trade 5 after 5", "BTC-USDT: trade 4 after 5", "default.binance-spot.0: commit 9 after 9",
    ]  # fmt: skip


@pytest.mark.parametrize(("feed", "wrong"), [("binance-spot", 1), ("deribit-derivatives", 0)])
def test_order_of_quotes_is_judged_where_their_numbers_rise(feed: str, wrong: int) -> None:
    judge = Judge(ShardRef("default", feed, 0))
    for commit, number in ((1, 7), (2, 6)):
        judge.take(commit, EventBlock(tickers=[Ticker("BTC-USDT", number, "1", "1", "2", "1", 0, 0)]))
    assert len(judge.wrong) == wrong


def test_an_order_that_nobody_saw_is_no_order() -> None:
    (told,) = Order(lambda: "", [SHARD]).breaches()
    assert "order not judged" in told


def test_books_candles_and_runs_that_failed() -> None:
    found = measured()
    assert found.report is not None
    found.report.venues[0].books = Books(wrong=1)
    found.report.venues[0].candles = Candles(wrong=1)
    assert len(breaches(found, HOLDS)) == 2
    assert breaches(Measured("x", failed="why"), HOLDS) == ["why"]
    assert breaches(Measured("x"), HOLDS) == ["no result"]
    assert breaches(measured(in_gaps=3), replace(HOLDS, open_gaps=True)) == []


def test_the_table_has_a_cell_for_every_heading() -> None:
    for found in (measured(), Measured("x", failed="why")):
        cells = table.cells(found, breaches(found, HOLDS))
        assert len(cells) == len(table.HEADINGS) == len(table.WIDTHS)
    lines = table.markdown([(measured(), []), (measured(lost=1), ["1 trade lost"])])
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[2].endswith("| yes |")
    assert lines[3].endswith("| NO |")
    assert lines[-1] == "- x: 1 trade lost"


def of_accounts(kind: str = "fills", **counts: int) -> Measured:
    found = measured()
    assert found.report is not None
    accounts = Accounts(emitted=2, known=2)
    accounts.flows["fills"].emitted = accounts.flows["fills"].stored = 100
    for what, count in counts.items():
        setattr(accounts.flows[kind], what, count)
    found.report.venues[0].accounts = accounts
    found.accounts, found.by_rest, found.account_gaps = 2, 7, 3
    return found


def test_accounts_that_are_their_ledger_hold() -> None:
    assert breaches(of_accounts(), HOLDS) == []
    assert breaches(of_accounts("transfers", in_gaps=1), HOLDS) == [], "Binance's REST does not list them"


@pytest.mark.parametrize("kind", ["fills", "orders", "balances", "positions", "transfers"])
@pytest.mark.parametrize("what", ["lost", "doubled", "phantom", "wrong"])
def test_whatever_of_an_account_is_not_its_ledger_breaks_it(kind: str, what: str) -> None:
    (broken,) = breaches(of_accounts(kind, **{what: 3}), HOLDS)
    assert broken == f"binance/Spot: 3 {kind} of accounts {what}"


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("known", 1, "1 of 2 accounts"), ("emitted", 0, "2 of 0 accounts"), ("half_filled", 2, "2 orders whose fills"),
        ("gaps_open", 1, "1 gaps of accounts are open"),
    ],
)  # fmt: skip
def test_an_account_that_is_not_whole_breaks_it(field: str, value: int, word: str) -> None:
    found = of_accounts()
    assert found.report is not None
    setattr(found.report.venues[0].accounts, field, value)
    (broken,) = breaches(found, HOLDS)
    assert word in broken


def test_too_few_fills_prove_nothing_and_where_rest_lists_transfers_they_are_there() -> None:
    (broken,) = breaches(of_accounts(emitted=3), HOLDS)
    assert "only 3 fills" in broken
    found = of_accounts("transfers", in_gaps=1)
    assert found.report is not None
    found.report.venues[0].venue = "deribit/Derivatives"
    assert breaches(found, HOLDS) == ["deribit/Derivatives: 1 transfers missing"]


def test_rows_of_accounts_have_a_table_of_their_own() -> None:
    for found in (of_accounts(), Measured("y", failed="why", accounts=2)):
        kind = table.table_of(found)
        assert kind is table.ACCOUNTS
        assert len(kind.cells(found, [])) == len(kind.headings) == len(kind.widths)
    lines = table.markdown([(measured(), []), (of_accounts(), [])])
    assert [line.count("|") for line in lines] == [16, 16, 16, 0, 19, 19, 19]
    assert "| 100 | 100 | 0 | 0 | 7 |" in lines[-1]
    assert "100 fills of accounts (1 lost, 0 doubled)" in table.totals([of_accounts(lost=1)])


def test_all_rows_in_one_line() -> None:
    said = table.totals([measured(), measured(lost=2), Measured("x", failed="why")])
    assert "3,000 emitted, 2 lost, 0 doubled, in gap rows 0 trades and 20 quotes, 2 connects" in said
    assert "at most 60 MiB" in said


def test_faults_are_chosen_by_name_or_beginning() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == len(chosen(None))
    assert [fault.name for fault in chosen(["redis-kill"])] == ["redis-kill"]
    assert len(chosen(["redis"])) > 5
    assert len(chosen(list(SHORT))) == len(SHORT)
    with pytest.raises(SystemExit, match="no fault begins so"):
        chosen(["nonsense"])
    assert chosen(None, FAULTS[-2].name) == list(FAULTS[-2:])
    assert chosen([FAULTS[0].name], FAULTS[1].name) == []
    with pytest.raises(SystemExit, match="no such fault"):
        chosen(None, "nonsense")
    for fault in FAULTS:
        assert fault.promise(Scale(1.0, 10_000.0)).peak <= 150 * MIB


def test_how_to_do_it_again_is_said_in_full() -> None:
    given_ = ["--rate", "500", "--seed", "7", "--random", "--minutes", "3", "--venue", "binance/UsdM"]
    said = command(arguments(given_))
    assert said == 'make faults RATE=500 SECONDS=5 SEED=7 ARGS="--venue binance/UsdM --random --minutes 3"'
    said = command(arguments(["--from", "burst", "--at-once", "2"]))
    assert said == 'make faults RATE=10000 SECONDS=5 SEED=1 ARGS="--from burst --at-once 2"'
    assert command(arguments([])) == "make faults RATE=10000 SECONDS=5 SEED=1"


@given(st.integers(0, 10_000), st.floats(1.0, 900.0))
def test_a_schedule_depends_on_its_seed_and_leaves_targets_alone_while_they_suffer(seed: int, seconds: float) -> None:
    steps = chaos.schedule(seed, seconds)
    assert steps == chaos.schedule(seed, seconds)
    until: dict[str, float] = {}
    for step in steps:
        assert 0 <= step.at < seconds
        assert 0 < step.hold <= chaos.LONGEST
        assert step.at + step.hold <= seconds + 1e-9
        assert step.what in chaos.TARGETS[step.target]
        assert step.at >= until.get(step.target, 0.0)
        until[step.target] = step.at + step.hold


def test_ten_minutes_meet_every_target() -> None:
    found = {step.target for seed in range(5) for step in chaos.schedule(seed, 600.0)}
    assert found == set(chaos.TARGETS)
    found = {step.target for seed in range(5) for step in chaos.schedule(seed, 600.0, accounts=True)}
    assert found == set(chaos.TARGETS) | set(chaos.ACCOUNT_TARGETS)


@given(st.floats(-5, 5), st.lists(st.integers(0, 59), max_size=8, unique=True), st.floats(-1e6, 1e6))
def test_the_slope_is_not_moved_far_by_wild_samples(slope: float, wild: list[int], value: float) -> None:
    """Whatever eight of sixty say, the slope is one of those between good samples: here there is but one."""
    samples = [(float(at), value if at in wild else 100 + slope * at) for at in range(60)]
    assert theil_sen(samples) == pytest.approx(slope, abs=1e-6)


def test_slopes_of_little_and_of_much() -> None:
    assert theil_sen([]) == theil_sen([(1.0, 2.0)]) == 0.0
    samples = [(float(at), 3.0 * at + (1000.0 if at % 10 == 0 else 0.0)) for at in range(5000)]
    assert len(thin(samples)) == POINTS
    assert theil_sen(samples) == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(
    ("hourly", "seconds", "flat"),
    [(0.9, 3000.0, True), (1.2, 3000.0, False), (5.0, 300.0, True), (13.0, 300.0, False), (-9.0, 3000.0, True)],
)
def test_growth_of_more_than_a_mebibyte_an_hour_is_told(hourly: float, seconds: float, flat: bool) -> None:
    samples = [(at, 60 * MIB + hourly * MIB * at / 3600) for at in range(0, int(seconds), 5)]
    memory = {"receiver": soak.Memory([(float(at), size) for at, size in samples])}
    told = soak.growing(memory, seconds)
    assert (told == []) is flat
    assert all("receiver grows by" in text for text in told)
    rows = soak.markdown(memory, {"redis": soak.Memory()})
    assert len(rows) == 3
    assert f"{hourly:+.2f}" in rows[2]
