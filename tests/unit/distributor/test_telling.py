"""What the log says of a commit: gaps and dead letters, those of a kind as one line."""

from __future__ import annotations

from typing import Any

from feedmill.distributor.telling import account_lines, lines_of
from feedmill.shared.account_events import AccountBlock, AccountGap, Reconciled
from feedmill.shared.events import DeadLetter, Gap

SHARD = "default.btc.0"


def gap(symbol: str, **changed: Any) -> Gap:
    fields: dict[str, Any] = {
        "id": f"{SHARD}/{symbol}/Trades/1", "symbol": symbol, "channel": "Trades", "cause": "disconnected",
        "state": "open", "from_seq": 1, "to_seq": 2, "missing": [(1, 2)], "from_ns": 1, "to_ns": 2, "repaired_by": "",
        "revision": 1, "detected_ns": 3,
    }  # fmt: skip
    return Gap(**fields | changed)


def letter(index: int, reason: str = "bad_json", detail: str = "what") -> DeadLetter:
    return DeadLetter("s1", 7, index, 1, 1, reason, detail, "1", b"secret content")


def test_gaps_that_opened_together_are_one_line() -> None:
    symbols = [f"S{n}-USDT" for n in range(7)]
    lines = list(lines_of(SHARD, [gap(symbol) for symbol in symbols], []))
    assert lines == [
        ("warning", "gaps.opened", {
            "channel": "Trades", "cause": "disconnected", "gaps": 7, "symbols": symbols[:5],
            "first": f"{SHARD}/S0-USDT/Trades/1",
        })
    ]  # fmt: skip


def test_channels_and_causes_are_apart_and_what_a_gap_becomes_meanwhile_is_no_line() -> None:
    gaps = [gap("A"), gap("B", channel="Book"), gap("C", cause="shed"), gap("D", revision=2)]
    lines = list(lines_of(SHARD, gaps, []))
    assert [(line[2]["channel"], line[2]["cause"], line[2]["symbols"]) for line in lines] == [
        ("Book", "disconnected", ["B"]), ("Trades", "disconnected", ["A"]), ("Trades", "shed", ["C"]),
    ]  # fmt: skip


def test_a_gap_that_is_closed_says_by_what() -> None:
    gaps = [
        gap("A", state="closed", revision=3, repaired_by="backfill:1"),
        gap("B", state="closed", revision=2, repaired_by="backfill:2"),
        gap("C", state="closed", revision=1),
    ]
    lines = list(lines_of(SHARD, gaps, []))
    assert [(level, event, fields["repaired_by"], fields["gaps"]) for level, event, fields in lines] == [
        ("info", "gaps.closed", "nothing", 1), ("info", "gaps.closed", "backfill", 2),
    ]  # fmt: skip


def test_dead_letters_are_one_line_a_reason_that_leads_to_the_first() -> None:
    letters = [letter(3), letter(4), letter(5, "unknown_symbol", "x" * 500)]
    lines = list(lines_of(SHARD, [], letters))
    assert lines == [
        ("warning", "dead_letters", {
            "reason": "bad_json", "letters": 2, "first": "default.btc.0/s1/7/3", "detail": "what",
        }),
        ("warning", "dead_letters", {
            "reason": "unknown_symbol", "letters": 1, "first": "default.btc.0/s1/7/5", "detail": "x" * 120,
        }),
    ]  # fmt: skip


def test_an_account_tells_gaps_and_reconciliations_and_nothing_of_what_is_in_a_frame() -> None:
    block = AccountBlock(
        gaps=[AccountGap("g1", "first", "open", 0, 0, 1, 1), AccountGap("g2", "expired", "open", 0, 0, 1, 1),
              AccountGap("g2", "expired", "open", 0, 5, 2, 1)],
        reconciled=[Reconciled("g1", 1, 2, 5, 20, [], []), Reconciled("g2", 1, 2, 5, 20, [], ["BTC: no"]),
                    Reconciled("", 1, 2, 5, 20, [], [])],
        dead_letters=[letter(0)],
    )  # fmt: skip
    assert list(account_lines("default.@a.0", block)) == [
        ("info", "account.gap_opened", {"gap": "g1", "cause": "first"}),
        ("warning", "account.gap_opened", {"gap": "g2", "cause": "expired"}),
        ("info", "account.gap_closed", {"gap": "g1", "requests": 5, "refused": 0}),
        ("warning", "account.gap_closed", {"gap": "g2", "requests": 5, "refused": 1}),
        ("warning", "dead_letters", {"reason": "bad_json", "letters": 1, "first": "default.@a.0/s1/7/0"}),
    ]


def test_a_commit_without_either_has_no_lines() -> None:
    assert list(lines_of(SHARD, [], [])) == []
    assert list(account_lines(SHARD, AccountBlock())) == []
