"""Quantiles, latencies, goals, ratios and the table."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from bench import cryptofeed_venv, profile, report
from bench.__main__ import chosen
from bench.goals import CASES, Case, Metric, cryptofeed_load, loads
from bench.processes import BenchError, Child, Watch, cpu_seconds
from bench.run import Load, Measured, latencies, quantile
from bench.stamps import Stamps


def measured(**numbers: object) -> Measured:
    run = Measured("feedmill", "1,000 blasted", messages=1000)
    run.cpu = {"receiver": 1.0, "distributor": 2.0}
    run.rss_peak = {"receiver": 50.0, "distributor": 60.0, "redis": 900.0}
    run.rss_end = dict(run.rss_peak)
    return dataclasses.replace(run, **numbers)  # type: ignore[arg-type]


def test_quantile_is_the_nearest_rank() -> None:
    ordered = list(range(1, 101))
    assert (quantile(ordered, 0.5), quantile(ordered, 0.99), quantile([7], 0.99)) == (51, 100, 7)


def test_latencies_leave_out_what_is_outside_or_was_not_seen(tmp_path: Path) -> None:
    sent, arrived = Stamps(tmp_path / "s", count=5), Stamps(tmp_path / "a", count=5)
    for number, (here, there) in enumerate([(1, 100), (10, 15), (20, 22), (30, 0), (40, 41)]):
        sent.times[number], arrived.times[number] = here, there
    assert latencies(sent, arrived, first=1, last=4) == [2, 5]
    sent.close()
    arrived.close()


def test_metrics_read_services_only() -> None:
    run = measured(per_second=5000.0)
    assert Metric("services' CPU", "us").of(run) == 3.0
    assert Metric("peak RSS of the largest process", "MB").of(run) == 60.0
    assert Metric("rows/s", "/s").of(run) == 5000.0
    assert Metric("p50 latency", "ms").of(run) is None


@pytest.mark.parametrize(
    ("higher", "theirs", "ours", "text"),
    [(False, 47.0, 4.7, "10x"), (False, 2.0, 4.0, "0.5x"), (True, 20_000, 300_000, "15x"), (True, None, 1.0, "-")],
)
def test_ratio_says_how_many_times_better(higher: bool, theirs: float | None, ours: float, text: str) -> None:
    assert report.times(report.better(Metric("rows/s", "/s", higher=higher), theirs, ours)) == text


def case(goal: float) -> Case:
    return Case("x", "work", "raw", "Latency", "10k", "redis", (Metric("services' CPU", "us/message", goal),))


def test_a_row_holds_or_fails_its_goal_and_names_its_command() -> None:
    (good,) = report.rows(case(3.0), measured(), measured(cpu={"process": 30.0}))
    assert (good.cryptofeed, good.feedmill, good.ratio, good.holds) == ("30", "3", "10x", True)
    assert good.command == "make bench ARGS='--only x'"
    (bad,) = report.rows(case(2.9), measured(), "needs Python >= 3.12")
    assert (bad.cryptofeed, bad.ratio, bad.holds, bad.verdict) == ("needs Python >= 3.12", "-", False, "NOT met")


@pytest.mark.parametrize(("theirs", "holds"), [(6.0, True), (5.0, False)])
def test_a_goal_counts_as_a_ratio_to_what_cryptofeed_did_where_it_was_set(theirs: float, holds: bool) -> None:
    wanted = Metric("services' CPU", "us/message", 24, peer=48)
    (row,) = report.rows(
        dataclasses.replace(case(1), metrics=(wanted,)),
        measured(cpu={"receiver": 3.0}),
        measured(cpu={"process": theirs}),
    )
    assert (row.holds, row.goal_ratio, row.holds_ratio) == (True, ">= 2x", holds)
    assert row.verdict_ratio == f">= 2x {'met' if holds else 'NOT met'}"
    assert "as ratios to cryptofeed: " + ("1 of 1" if holds else "0 of 1") in report.verdicts([row])


def test_a_failed_run_fails_its_goal_and_one_not_asked_for_does_not() -> None:
    assert report.rows(case(1), "failed", measured())[0].holds is False
    assert report.rows(case(1), report.NO_VALUE, measured())[0].holds is None


def test_markdown_has_every_row_run_and_command() -> None:
    run = measured(p50=1.0, p99=2.0, worst=3.0, sender_late=[0.1, 0.2, 0.3])
    text = report.markdown(report.rows(case(3), run, run), {"feedmill/x": run}, {"CPU": "2 x fast"}, "cryptofeed 2.5.0")
    assert "| x | work | 1,000 blasted | Latency | services' CPU, us/message | 3 | 3 | 1x | <= 3 | met |" in text
    assert "| feedmill/x | 1,000 blasted | 1,000 |" in text
    assert "--only x" in text
    assert "| cryptofeed 2.5.0 | Feedmill |" in text
    assert "- CPU: 2 x fast" in text


def test_every_case_has_a_load_and_a_goal_or_a_ratio() -> None:
    by_name = loads(1.0, quick=False)
    for found in CASES:
        assert found.load in by_name
        assert cryptofeed_load(found.load) in by_name
        assert found.metrics
    assert len({found.name for found in CASES}) == len(CASES)
    assert by_name["burst"].count == 200_000


def test_only_takes_prefixes_and_refuses_what_fits_nothing() -> None:
    assert [found.name for found in chosen(["rows-3"])] == ["rows-3k"]
    assert len(chosen(None)) == len(CASES)
    with pytest.raises(SystemExit, match="no case begins so"):
        chosen(["nothing"])


def test_quick_leaves_cases_out_and_a_full_name_is_one_case() -> None:
    quick = {found.name for found in chosen(None, quick=True)}
    assert quick < {found.name for found in CASES}
    assert {found.name for found in CASES if any(metric.goal for metric in found.metrics)} - quick <= {
        "raw-clumped", "events-clumped", "rows-throughput"
    }  # fmt: skip
    assert [found.name for found in chosen(["raw-clumped"], quick=True)] == ["raw-clumped"]


def test_verdicts_name_what_is_not_met_first() -> None:
    good, bad = case(3.0), dataclasses.replace(case(2.0), name="y")
    lines = report.verdicts(report.rows(good, measured(), "-") + report.rows(bad, measured(), "-")).splitlines()
    assert lines[0] == "Goals met: 1 of 2; as ratios to cryptofeed: 0 of 0"
    assert lines[1].startswith("  NOT met  y: services' CPU")
    assert lines[2].startswith("  met      x: services' CPU")


def test_without_a_fitting_python_the_older_cryptofeed_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 2.4.1\n")
    python.chmod(0o755)
    monkeypatch.setattr(cryptofeed_venv, "FOLDER", tmp_path)
    monkeypatch.setattr(cryptofeed_venv, "find_python", lambda: None)
    peer = cryptofeed_venv.ensure(tmp_path / "log")
    assert (peer.python, peer.title) == (python, "cryptofeed 2.4.1")
    assert "no Python >= 3.12" in peer.why
    assert not peer.failed


def test_a_paced_load_has_a_warm_up_and_two_halves() -> None:
    assert Load(10_000, seconds=3.0, warm=2.0).messages == 80_000
    assert Load(0, count=7).messages == 7


def test_a_watch_counts_a_childs_cpu_and_memory(tmp_path: Path) -> None:
    code = "import json\nwhile True:\n input(); sum(range(3_000_000)); print(json.dumps({'event': 'did'}), flush=True)"
    with Child("worker", [sys.executable, "-c", code], log=tmp_path / "log", lines=True) as child:
        watch = Watch()
        watch.add("worker", child.pid)
        watch.start()
        watch.mark()
        while cpu_seconds(child.pid) - watch.processes["worker"].start_cpu < 0.05:
            assert child.process.stdin is not None
            child.process.stdin.write("\n")
            child.process.stdin.flush()
            child.wait_event("did", timeout=60)
        watch.end()
        watch.close()
        assert watch.processes["worker"].cpu >= 0.05
        assert 0.0 <= watch.others <= 1.0
        assert watch.processes["worker"].peak_rss > 1_000_000
    with pytest.raises(BenchError, match="worker ended"):
        child.check()


def test_profile_summary_adds_up_functions_not_lines() -> None:
    text = profile.summary("main (a.py:1);work (a.py:5) 3\nmain (a.py:1);work (a.py:9) 5\nmain (a.py:2) 2\n")
    assert "10 samples" in text
    assert "| 80.0% | 80.0% | `work (a.py)` |" in text
    assert "| 100.0% | 20.0% | `main (a.py)` |" in text


def test_tables_replace_only_what_stands_between_the_marks() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    made = report.into_page(page, "new\n")
    assert made == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.into_page(made, "new\n") == made
    with pytest.raises(ValueError, match="no <!-- bench: begin -->"):
        report.into_page("nothing", "new")
