"""The pure parts of ``make faults`` and ``make soak``: verdicts, schedules, tables, slopes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from faults.__main__ import arguments, command
from faults.catalogue import FAULTS, SHORT, Scale, chosen
from faults.judge import MIB, Measured, Promise, breaches
from faults.slope import POINTS, theil_sen, thin
from hypothesis import given
from hypothesis import strategies as st

from faults import chaos, soak, table
from feedmill.simulator.report import Books, Candles, Flow, Report, VenueReport


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


def test_faults_are_chosen_by_name_or_beginning() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == len(chosen(None))
    assert [fault.name for fault in chosen(["redis-kill"])] == ["redis-kill"]
    assert len(chosen(["redis"])) > 5
    assert len(chosen(list(SHORT))) == len(SHORT)
    with pytest.raises(SystemExit, match="no fault begins so"):
        chosen(["nonsense"])
    for fault in FAULTS:
        assert fault.promise(Scale(1.0, 10_000.0)).peak <= 150 * MIB


def test_how_to_do_it_again_is_said_in_full() -> None:
    given_ = ["--rate", "500", "--seed", "7", "--random", "--minutes", "3", "--venue", "binance/UsdM"]
    said = command(arguments(given_))
    assert said == 'make faults RATE=500 SECONDS=5 SEED=7 ARGS="--venue binance/UsdM --random --minutes 3"'
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
