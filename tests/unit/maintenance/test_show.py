"""A run as people read it."""

from __future__ import annotations

from feedmill.general.maintenance.record import Run
from feedmill.general.maintenance.report import Finding, Report, TableFigures
from feedmill.general.maintenance.show import report_lines, run_lines

SECOND = 1_000_000_000
REPORT = Report(
    made={"trades": ["2026-11-27", "2026-11-26"], "tickers": ["2026-11-29"]}, dropped={"tickers": ["2026-11-22"]},
    put_off={"trades": "a dump is running"}, aged={"dead_letters": 1, "audit_log": 20}, analyzed=["trades"],
    removed={"default/gone": 123_456}, released={"feedmill_default_main_1a2b3c4d": 9 << 30},
    kept={"default/left": "events were not stored (2 entries)"},
    findings=[Finding("bloat", "orders", "about 1.0 GiB of its 2.0 GiB hold nothing", "VACUUM FULL")],
    tables={"trades": TableFigures(1_000_000, 5, 3 << 30, 1 << 29, 31), "gaps": TableFigures(3, 0, 8192, 0, 0)},
    errors={"streams": "ConnectionRefusedError: no"},
)  # fmt: skip


def test_all_that_a_run_did_and_found_is_shown() -> None:
    run = Run(7, 1_764_115_200 * SECOND, 1_764_115_201 * SECOND + SECOND // 4, "partly", REPORT)
    assert list(run_lines(run)) == [
        "run 7: began 2025-11-26T00:00:00Z, took 1.2 s, partly",
        "partitions made: 1 of tickers (2026-11-29)",
        "partitions made: 2 of trades (2026-11-26 to 2026-11-27)",
        "partitions dropped: 1 of tickers (2026-11-22)",
        "aged out: 20 rows of audit_log",
        "aged out: 1 row of dead_letters",
        "statistics made: trades",
        "removed from Redis: streams of default/gone (120.6 KiB)",
        "dropped: replication slot feedmill_default_main_1a2b3c4d, which kept 9.0 GiB of log",
        "put off: old partitions of trades (a dump is running)",
        "kept in Redis: streams of default/left: events were not stored (2 entries)",
        "failed: streams: ConnectionRefusedError: no",
        "",
        "findings: 1",
        "  bloat  orders: about 1.0 GiB of its 2.0 GiB hold nothing",
        "      VACUUM FULL",
        "",
        "TABLE        ROWS  DEAD     SIZE    INDEXES  PARTITIONS",
        "trades  1,000,000     5  3.0 GiB  512.0 MiB          31",
        "gaps            3     0  8.0 KiB        0 B           -",
    ]


def test_a_run_that_did_nothing_says_so() -> None:
    assert list(report_lines(Report())) == ["nothing was to be done", "", "findings: none"]
    assert next(iter(report_lines(Report(dry_run=True)))) == "dry run: a run now would do nothing"
    dry = list(report_lines(Report(dry_run=True, aged={"dead_letters": 2})))
    assert dry[:2] == ["dry run: nothing was changed; a run now would do this", "aged out: 2 rows of dead_letters"]


def test_a_run_without_an_end() -> None:
    [line] = run_lines(Run(7, 1_764_115_200 * SECOND, None, "running", Report()))
    assert line.startswith("run 7: began 2025-11-26T00:00:00Z, under way")
