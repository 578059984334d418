"""What is told reads as meant: escaped, cut, masked, grouped and in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.general.notify import compose as composing
from feedmill.general.notify import markdown, texts
from feedmill.general.notify.compose import BLOCKS, Hide, Message
from feedmill.general.notify.kinds import ASKED_FOR, KINDS, wanted
from feedmill.general.notify.markdown import MOST, Block
from feedmill.general.notify.masks import Masker, mask
from feedmill.general.notify.notices import Notice, Waiting
from feedmill.general.notify.service import hiding
from feedmill.resources.types import AccountEvent, Severity

SPECIAL = "_*[]()~`>#+-=|{}.!\\"
AT = 1_790_000_000_000_000_000


def unescaped(marked: str) -> str:
    """What Telegram shows of MarkdownV2; fails where a character with a meaning stands unescaped (bold apart)."""
    shown, at = [], 0
    while at < len(marked):
        char = marked[at]
        if char == "\\":
            at += 1
            assert marked[at] in SPECIAL
            shown.append(marked[at])
        else:
            assert char not in SPECIAL or char == "*", f"{char!r} at {at} of {marked!r}"
            if char != "*":
                shown.append(char)
        at += 1
    return "".join(shown)


def compose(rows: Sequence[Waiting], hide: Hide) -> list[Message]:
    return list(composing.compose(rows, hide))


def as_it_is(text: str, _: frozenset[str]) -> str:
    return text


def row(number: int, kind: str = "Fill", key: str = "k", severity: Severity = Severity.INFO, **body: Any) -> Waiting:
    return Waiting(number, Notice(kind, severity, "default/main", key, body, AT))


def fill(number: int, key: str = "k", **body: Any) -> Waiting:
    told = {"exchange": "binance", "market": "Spot", "symbol": "BTC-USDT", "side": 1, "price": "100.50", "size": "0.1"}
    return row(number, "Fill", key, **{**told, "event_ns": AT, **body})


@given(st.text(), st.lists(st.text(), max_size=5))
def test_any_text_is_shown_as_it_is(title: str, lines: list[str]) -> None:
    block = Block("🔵", title, tuple(lines))
    assert unescaped(markdown.marked(block)) == markdown.plain(block)


@given(st.lists(st.text(min_size=1, max_size=6000), max_size=12), st.integers(min_value=200, max_value=MOST))
def test_pieces_fit_and_hold_every_line_that_does(lines: list[str], most: int) -> None:
    pieces = markdown.fitted(Block("🔵", "title", tuple(lines)), most)
    assert all(markdown.units(markdown.marked(piece)) <= most for piece in pieces)
    kept = [line for piece in pieces for line in piece.lines]
    assert len(kept) == len(lines)
    for line, shown in zip(lines, kept, strict=True):
        assert shown == markdown.clean(line) or (shown.endswith("…") and markdown.clean(line).startswith(shown[:-1]))


def test_what_turns_text_around_or_moves_a_terminal_is_taken_out() -> None:
    assert markdown.clean("a\u202eb\x1b[31mc\nd\x00") == "a b [31mc d"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["Fill", "DeadLetters"])), max_size=80))
def test_every_row_is_told_once_and_in_order(keys: list[tuple[str, str]]) -> None:
    rows = [row(number, kind, key, letters=1, symbol="X" * 50) for number, (key, kind) in enumerate(keys)]
    messages = compose(rows, as_it_is)
    assert [number for message in messages for number in message.ids] == list(range(len(rows)))
    assert all(markdown.units(message.marked) <= MOST for message in messages)
    assert all(message.plain.count("\n\n") < BLOCKS for message in messages)


def test_a_row_of_several_messages_begins_with_one_of_its_own() -> None:
    """Else what precedes it would be marked, and its first piece come again with the others."""
    long = row(2, "Test", "long", kinds=["x" * 4000], text="short" * 20)
    messages = compose([row(1, "Test", "first", text="before"), long, row(3, "Test", "last", text="after")], as_it_is)
    assert [message.ids for message in messages] == [(1,), (), (2,), (3,)]
    assert "short" not in messages[0].plain


def test_rows_of_one_key_are_one_paragraph() -> None:
    messages = compose([fill(1), fill(2, side=2, size="0.30"), fill(3, key="other")], as_it_is)
    assert len(messages) == 1
    assert messages[0].plain == (
        "🔵 default/main: 2 fills of BTC-USDT (binance/Spot)\n"
        "buy 0.1 at 100.50, 2026-09-21 14:13:20 UTC\n"
        "sell 0.30 at 100.50, 2026-09-21 14:13:20 UTC\n"
        "\n"
        "🔵 default/main: 1 fill of BTC-USDT (binance/Spot)\n"
        "buy 0.1 at 100.50, 2026-09-21 14:13:20 UTC"
    )


def test_a_flood_of_fills_is_told_by_its_exact_sums() -> None:
    rows = [fill(number, size="0.1", side=1 + number % 2) for number in range(301)]
    [message] = compose(rows, as_it_is)
    assert message.plain.endswith("301 fills of BTC-USDT (binance/Spot)\nbought 15.1, sold 15.0")
    assert len(message.ids) == 301


def test_letters_and_losses_are_summed() -> None:
    letters = [
        row(n, "DeadLetters", letters=n, shard="default.spot.0", reason="bad_json", detail="line 1") for n in (1, 2)
    ]
    lost = [
        row(3, "DataLost", channel="Ticker", cause="disconnected", gaps=2, symbols=["A", None], from_ns=AT, to_ns=AT),
        row(4, "DataLost", channel="Ticker", cause="disconnected", gaps=1, symbols=["B", "A"], from_ns=AT + 10**9),
    ]
    [message] = compose([*letters, *lost], as_it_is)
    assert "default/main: 3 dead letters\nshard default.spot.0, reason bad_json\nline 1" in message.plain
    assert "default/main: 3 gaps of Ticker" in message.plain
    assert message.plain.endswith("A, B")


def test_a_state_is_told_as_begun_and_as_over() -> None:
    body = {"shard": 0, "why": ["cannot reach host: refused"], "since_ns": AT}
    begun = row(1, "FeedStale", "FeedStale/a", Severity.CRITICAL, **body)
    over = row(2, "FeedStale", "FeedStale/a", Severity.CRITICAL, **body, over=True, lasted_ns=150 * 10**9)
    [message] = compose([begun, over], as_it_is)
    assert message.plain == (
        "🔴 default/main: no data from the exchange\nshard 0\ncannot reach host: refused\n"
        "since 2026-09-21 14:13:20 UTC\n"
        "\n✅ default/main: no data from the exchange: over\nafter 2 min"
    )
    assert not message.silent
    assert compose([over], as_it_is)[0].silent


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_a_text_and_survives_an_empty_body(kind: str) -> None:
    block = texts.block_of([Notice(kind, KINDS[kind].severity, "default/main", "k", {}, AT)])
    assert block.icon == texts.ICONS[KINDS[kind].severity]
    assert "default/main" in markdown.plain(block) or block.title
    assert unescaped(markdown.marked(block)) == markdown.plain(block)


def test_what_another_version_wrote_is_told_and_holds_up_nothing() -> None:
    [message] = compose([row(1, "Unheard", what="x"), fill(2), row(3, "Fill", side=[1], size={})], as_it_is)
    assert message.ids == (1, 2, 3)
    assert "Unheard default/main\nwhat: x" in message.plain


def test_work_is_told_with_size_duration_and_error() -> None:
    body = {"id": "20261126T030000Z-logical-3f9a1c", "kind": "logical", "size_bytes": 1_234_567, "started_ns": AT,
            "ended_ns": AT + 75 * 10**9, "destination": "b2 bucket", "error": "the store is full"}  # fmt: skip
    notice = Notice("BackupFailed", Severity.CRITICAL, "logical", "BackupFailed", body, AT)
    [message] = compose([Waiting(1, notice)], as_it_is)
    assert message.plain == (
        "🔴 Backup failed\n20261126T030000Z-logical-3f9a1c, 1,234,567 bytes, after 75 s\nb2 bucket\nthe store is full"
    )


def test_accounts_are_masked_wherever_they_are_named() -> None:
    hide = Masker(["default/main", "default/main-2", "desk/m"])
    shown = hide("default/main and default/main-2, default.@main.0, default/@main, xdefault/main, desk/m.")
    assert shown == (
        f"{mask('default/main')} and {mask('default/main-2')}, default.@{mask('default/main')[8:]}.0, "
        f"default/@{mask('default/main')[8:]}, xdefault/main, {mask('desk/m')}."
    )
    assert mask("default/main") != mask("default/main-2")
    assert Masker([])("default/main") == "default/main"


def test_who_a_text_is_about_is_masked_though_nobody_knew_of_it() -> None:
    hide = hiding(masked=True, known=[])
    letters = Notice("DeadLetters", Severity.WARNING, "default/@main", "k", {"shard": "default.@main.0"}, AT)
    [message] = compose([fill(1), Waiting(2, letters)], hide)
    assert mask("default/main") in message.plain
    assert "/main" not in message.plain
    assert "@main" not in message.plain
    assert compose([fill(1)], hiding(masked=False, known=["default/main"]))[0].plain.startswith("🔵 default/main")


def test_in_a_flood_events_of_one_key_are_put_together_and_states_keep_their_places() -> None:
    state = {"since_ns": AT, "shard": 0}
    rows = [
        row(0, "FeedStale", "s", Severity.CRITICAL, **state),
        *(fill(number, key=f"k{number % 2}") for number in range(1, 301)),
        row(301, "FeedStale", "s", Severity.CRITICAL, **state, over=True),
        row(302, "FeedStale", "s", Severity.CRITICAL, **state),
    ]
    messages = compose(rows, as_it_is)
    assert len(messages) == 1
    told = [block.split("\n")[0] for block in messages[0].plain.split("\n\n")]
    assert told == [
        "🔴 default/main: no data from the exchange",
        "🔵 default/main: 150 fills of BTC-USDT (binance/Spot)",
        "🔵 default/main: 150 fills of BTC-USDT (binance/Spot)",
        "✅ default/main: no data from the exchange: over",
        "🔴 default/main: no data from the exchange",
    ]
    assert sorted(messages[0].ids) == list(range(303))


def test_account_events_are_told_only_where_they_are_asked_for() -> None:
    for least in Severity:
        assert not wanted(least, frozenset()) & set(ASKED_FOR.values())
    assert wanted(Severity.CRITICAL, frozenset({AccountEvent.FILLS})) >= {"Fill", "BackupFailed"}
    assert "GapOpen" not in wanted(Severity.CRITICAL, frozenset())
    assert wanted(Severity.INFO, frozenset(AccountEvent)) == set(KINDS)


def test_the_texts_are_json_safe() -> None:
    [message] = compose([row(1, "DeadLetters", letters=1, detail='{"a": "\\ud800"}')], as_it_is)
    json.dumps({"text": message.marked}).encode()


def test_the_page_names_every_kind_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "notifications.md").read_text()
    for name, kind in KINDS.items():
        if kind.hold is None:
            line = f"| `{name}` | {kind.severity.value} | {kind.about} |"
        else:
            told = f"after {kind.hold:g} s" if kind.hold else "at once"
            line = f"| `{name}` | {kind.severity.value} | {told} | {kind.about} |"
        assert line in page
