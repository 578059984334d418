"""What of PostgreSQL's figures is worth a person's eye, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from feedmill.general.maintenance import checks, kinds
from feedmill.general.maintenance.figures import Figures, Holder, Index, Server, Table
from feedmill.general.maintenance.report import Finding, Report, TableFigures, read_report
from feedmill.general.maintenance.statistics import due

GIB = 1 << 30
SERVER = Server(True, True, 50, 0.2, 1_000_000, 1_000, 30 * checks.DAY, GIB)
TABLE = Table(
    name="orders", parent="", partitioned=False, rows=1_000_000.0, live=1_000_000, dead=0, changed=0, size=GIB // 4,
    total=GIB // 2, index_bytes=GIB // 4, fill=100, row_bytes=230.0, autovacuum=True, vacuumed=60.0, analyzed=60.0,
    seq_scans=3, seq_rows=3_000_000,
)  # fmt: skip
INDEX = Index("orders_by_time", "orders", "btree 1 3", 5, GIB // 32, False, True, GIB / 40, 2)
SLOT = Holder("slot", "feedmill", 0.0, 0, True, False)


def found(**changed: Any) -> list[tuple[str, str]]:
    figures = Figures(**{"server": SERVER, "tables": [TABLE], "indexes": [INDEX], "holders": [SLOT], **changed})
    return [(finding.kind, finding.subject) for finding in checks.judge(figures)]


def test_a_sound_database_has_no_findings() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("server", "finding"),
    [
        ({"autovacuum": False}, (kinds.AUTOVACUUM_OFF, "autovacuum")),
        ({"counts": False}, (kinds.AUTOVACUUM_OFF, "track_counts")),
        ({"xid_age": 1_000_000_001}, (kinds.WRAPAROUND, "transactions")),
        ({"multixact_age": 1_500_000_000}, (kinds.WRAPAROUND, "multixacts")),
    ],
)
def test_the_server(server: dict[str, Any], finding: tuple[str, str]) -> None:
    assert found(server=replace(SERVER, **server)) == [finding]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"autovacuum": False}, [kinds.AUTOVACUUM_OFF]),
        ({"dead": 600_151}, [kinds.DEAD_ROWS]),
        ({"dead": 600_150}, []),
        ({"rows": 100.0, "live": 100, "dead": 9_999, "size": 8192}, []),
        ({"changed": 1_000_001, "analyzed": None}, [kinds.STATISTICS]),
        ({"changed": 1_000_001, "analyzed": checks.DAY}, [kinds.STATISTICS]),
        ({"changed": 1_000_001, "analyzed": 0.0}, []),
        ({"size": GIB}, [kinds.BLOAT]),
        ({"size": GIB, "fill": 25}, []),
        ({"size": GIB, "row_bytes": None}, []),
        ({"size": GIB, "rows": -1.0}, []),
        ({"rows": 10.0, "live": 10, "size": 100 << 20}, []),
        ({"seq_scans": 100, "seq_rows": 10_000_000}, [kinds.MISSING_INDEX]),
        ({"seq_scans": 99, "seq_rows": 99_000_000}, []),
        ({"seq_scans": 1_000_000, "seq_rows": 10_000_000}, []),
    ],
    ids=str,
)
def test_a_table(table: dict[str, Any], expected: list[str]) -> None:
    assert found(tables=[replace(TABLE, **table)]) == [(kind, "orders") for kind in expected]


def test_scans_of_partitions_count_for_their_table() -> None:
    days = [replace(TABLE, name=f"trades_{n}", parent="trades", seq_scans=60, seq_rows=6_000_000) for n in (1, 2)]
    whole = replace(TABLE, name="trades", partitioned=True, rows=2e6, seq_scans=0, seq_rows=0)
    assert found(tables=[whole, *days]) == [(kinds.MISSING_INDEX, "trades")]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({"valid": False}, [kinds.INVALID_INDEX]),
        ({"scans": 0}, [kinds.UNUSED_INDEX]),
        ({"scans": 0, "constraint": True}, []),
        ({"scans": 0, "size": 16 << 20}, []),
        ({"size": GIB}, [kinds.BLOAT]),
        ({"size": GIB, "expected": None}, []),
    ],
    ids=str,
)
def test_an_index(index: dict[str, Any], expected: list[str]) -> None:
    assert found(indexes=[replace(INDEX, **index)]) == [(kind, "orders_by_time") for kind in expected]


def test_what_is_not_counted_for_long_is_not_called_unused() -> None:
    young = replace(SERVER, counted=6 * checks.DAY)
    assert found(server=young, indexes=[replace(INDEX, scans=0)]) == []
    assert found(server=young, tables=[replace(TABLE, seq_scans=1000, seq_rows=10**9)]) == []


def test_of_two_indexes_that_are_alike_the_one_of_a_constraint_stays() -> None:
    again = replace(INDEX, name="a_second", made=1)
    key = replace(INDEX, name="orders_pkey", constraint=True, made=3)
    assert found(indexes=[again, key]) == [(kinds.DUPLICATE_INDEX, "a_second")]
    assert found(indexes=[key, replace(key, name="other_key")]) == []
    assert found(indexes=[again, INDEX]) == [(kinds.DUPLICATE_INDEX, "orders_by_time")]
    assert found(indexes=[again, replace(INDEX, table="fills")]) == []


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ({"wal_bytes": 5 * GIB}, [kinds.WAL_KEPT]),
        ({"wal_bytes": 3 * GIB, "active": False}, []),
        ({"holds_rows": True, "active": False}, [kinds.HELD_BACK]),
        ({"holds_rows": True}, []),
        ({"kind": "transaction", "age": 3601.0, "holds_rows": True}, [kinds.HELD_BACK]),
        ({"kind": "transaction", "age": 3599.0, "holds_rows": True}, []),
        ({"kind": "prepared", "age": 3601.0, "holds_rows": True}, [kinds.HELD_BACK]),
    ],
    ids=str,
)
def test_what_holds_back(holder: dict[str, Any], expected: list[str]) -> None:
    assert found(holders=[replace(SLOT, **holder)]) == [(kind, "feedmill") for kind in expected]


@pytest.mark.parametrize(
    ("name", "age", "expected"),
    [
        ("feedmill backup (pid 7)", 23 * 3600.0, []),
        ("feedmill backup (pid 7)", 25 * 3600.0, [kinds.HELD_BACK]),
        ("feedmill backups (pid 7)", 2 * 3600.0, [kinds.HELD_BACK]),
    ],
)
def test_a_backup_that_takes_long_is_not_to_be_ended(name: str, age: float, expected: list[str]) -> None:
    holder = replace(SLOT, kind="transaction", name=name, age=age, holds_rows=True)
    assert found(holders=[holder]) == [(kind, name) for kind in expected]


def test_what_a_run_could_not_do_is_a_finding_too() -> None:
    report = Report(put_off={"trades": "a dump is running"}, kept={"default/btc": "x", "account default/a": "y"})
    findings = list(checks.of_report(report))
    assert [(finding.kind, finding.subject) for finding in findings] == [
        (kinds.PUT_OFF, "trades"), (kinds.ORPHANED_STREAMS, "account default/a"),
        (kinds.ORPHANED_STREAMS, "default/btc"),
    ]  # fmt: skip
    assert "feedmill maintain forget default/btc" in findings[2].remedy
    assert "forget" not in findings[1].remedy


def test_every_kind_is_among_the_labels() -> None:
    every = [value for name, value in vars(kinds).items() if name.isupper() and isinstance(value, str)]
    assert every == list(kinds.KINDS)


def test_figures_are_summed_over_partitions() -> None:
    whole = replace(TABLE, name="trades", partitioned=True, rows=-1.0, total=0, index_bytes=0)
    days = [replace(TABLE, name="trades_1", parent="trades", dead=3), replace(TABLE, name="trades_2", parent="trades")]
    unknown = replace(TABLE, name="fills", rows=-1.0, live=12)
    figures = checks.summed([whole, *days, unknown])
    assert figures == {
        "fills": TableFigures(12, 0, GIB // 2, GIB // 4, 0),
        "trades": TableFigures(2_000_000, 3, GIB, GIB // 2, 2),
    }


def test_statistics_are_due_once_a_day_for_our_partitioned_tables_that_hold_rows() -> None:
    whole = replace(TABLE, name="trades", partitioned=True, rows=-1.0, live=0, analyzed=None)
    day = replace(TABLE, name="trades_1", parent="trades")
    assert due([whole, day]) == ["trades"]
    assert due([replace(whole, analyzed=86_400.0), day]) == ["trades"]
    assert due([replace(whole, analyzed=86_399.0), day]) == []
    assert due([whole, replace(day, rows=0.0, live=0)]) == []
    assert due([replace(whole, name="theirs"), replace(day, parent="theirs")]) == []


def test_a_report_is_read_as_it_was_written() -> None:
    report = Report(
        made={"trades": ["2026-01-01"]}, dropped={"tickers": ["2025-01-01"]}, put_off={"trades": "in use"},
        aged={"dead_letters": 3}, analyzed=["trades"], removed={"default/btc": 4096}, kept={"default/eth": "why"},
        findings=[Finding("bloat", "orders", "much", "less")], suspects=["dead_rows gaps"],
        tables={"orders": TableFigures(1, 2, 3, 4, 5)},
        errors={"streams": "away"},
    )  # fmt: skip
    assert read_report(report.document()) == report
    assert Report().document() == {}
    assert (report.outcome, Report().outcome) == ("partly", "succeeded")


def test_what_may_pass_by_itself_is_a_finding_once_two_runs_saw_it() -> None:
    dead, bloat = Finding(kinds.DEAD_ROWS, "gaps", "", ""), Finding(kinds.BLOAT, "gaps", "", "")
    first, suspects = checks.confirmed([dead, bloat], None)
    assert (first, suspects) == ([bloat], ["dead_rows gaps"])
    assert checks.confirmed([dead], Report(suspects=suspects)) == ([dead], ["dead_rows gaps"])
    assert checks.confirmed([], Report(suspects=suspects)) == ([], [])
    assert checks.confirmed([dead], Report(suspects=["dead_rows orders"])) == ([], ["dead_rows gaps"])
