"""Account events: what goes in comes out; keys do not see spelling; two tellings of a fill become one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.shared import account_events as events
from feedmill.shared import account_keys as keys
from feedmill.shared.events import DeadLetter

int64 = st.integers(-(2**63), 2**63 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=8).map(lambda number: format(number, "f"))
texts = decimals | st.text(max_size=8)
FORMS: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: int64,
    bool: st.booleans(),
    bytes: st.binary(max_size=8),
    bool | None: st.none() | st.booleans(),
    list[str]: st.lists(texts, max_size=2),
}
KINDS = [
    events.OrderUpdate, events.Fill, events.Balance, events.BalanceChange, events.Position, events.AccountGap,
    events.Reconciled, DeadLetter,
]  # fmt: skip


def fields_of(kind: type[Any], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, **({name: FORMS[hints[name]] for name in kind.__struct_fields__} | fixed))


@settings(max_examples=50)
@given(texts, st.tuples(*(st.lists(fields_of(kind), max_size=2) for kind in KINDS)))
def test_blocks(account: str, lists: tuple[list[Any], ...]) -> None:
    block = events.AccountBlock(events.VERSION, account, *lists)
    assert events.decode_account(events.encode_account(block)) == block
    assert len(block) == sum(map(len, lists))


def test_another_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="account block has version 2, this code reads 1: upgrade the reader"):
        events.decode_account(events.encode_account(events.AccountBlock(version=2)))


@given(st.binary(max_size=100))
def test_junk_is_an_error_of_two_kinds_only(junk: bytes) -> None:
    try:
        events.decode_account(junk)
    except (msgspec.DecodeError, ValueError):
        pass


def test_fields_added_at_the_end_by_a_newer_writer_are_passed_over() -> None:
    block = events.AccountBlock(account="a/b")
    newer = msgspec.msgpack.encode([*msgspec.to_builtins(block), ["more"]])
    assert events.decode_account(newer) == block


@given(decimals, st.integers(0, 5), st.integers(0, 5))
def test_canonical_is_one_spelling_of_a_number(text: str, some: int, more: int) -> None:
    spelled = [
        text + "0" * count if "." in text else text + ("." + "0" * count if count else "") for count in (some, more)
    ]
    one, other = map(keys.canonical, spelled)
    assert one == other
    assert Decimal(one) == Decimal(text)
    assert keys.canonical(one) == one


@pytest.mark.parametrize("text", ["", "abc", "1e5", "a.b", "."])
def test_what_is_no_number_stays(text: str) -> None:
    assert keys.canonical(text) == text


@given(fields_of(events.OrderUpdate, price=decimals, size=decimals, filled=decimals), int64, st.text(max_size=5))
def test_the_key_of_a_state_does_not_see_spelling_or_reception(
    order: events.OrderUpdate, receive_ns: int, reason: str
) -> None:
    told = msgspec.structs.replace(
        order, price=order.price + "0", size=order.size + "00", receive_ns=receive_ns, flags=2, reason=reason,
        created_ns=0, average_price="",
    )  # fmt: skip
    assert keys.order_state_key(told) == keys.order_state_key(order)
    assert keys.order_rank(told) == keys.order_rank(order)


FILL = events.Fill("BTC-USDT", "7", "9", "mine", 1, "", "100.5", "0.2", "20.1", "0.02", "USDT", False, "1.5", 5, 6)


@given(fields_of(events.Fill), st.data())
def test_of_two_tellings_of_a_fill_nothing_is_lost(whole: events.Fill, data: st.DataObject) -> None:
    """Each source lacks some fields; whichever comes first, what either has is there."""
    blank = {"client_order_id": "", "position_side": "", "quote": "", "maker": None, "venue_realised": ""}
    whole = msgspec.structs.replace(whole, fee=whole.fee or "0", fee_asset=whole.fee_asset or "USDT")
    lacks = data.draw(st.sets(st.sampled_from([*blank, "fee"])))
    other_lacks = data.draw(st.sets(st.sampled_from([*blank, "fee"])))

    def without(names: set[str]) -> events.Fill:
        plain = {name: blank[name] for name in names if name in blank}
        return msgspec.structs.replace(whole, **plain, **({"fee": "", "fee_asset": ""} if "fee" in names else {}))

    expected = without(lacks & other_lacks)
    one, other = without(lacks), without(other_lacks)
    assert keys.merged(one, other) == keys.merged(other, one) == expected
    assert keys.merged(one, one) == one


def test_a_fee_that_was_left_out_as_zero_gives_way_to_the_one_with_its_asset() -> None:
    silent = msgspec.structs.replace(FILL, fee="0", fee_asset="")
    assert keys.merged(silent, FILL) == FILL
    assert keys.merged(silent, silent).fee == "0"
    unknown = msgspec.structs.replace(FILL, fee="", fee_asset="")
    assert keys.merged(unknown, silent).fee == "0"
    rebate = msgspec.structs.replace(FILL, fee="-0.01")
    assert keys.merged(rebate, FILL).fee == "-0.01", "the first telling stays"


def test_a_self_trade_is_two_fills() -> None:
    assert keys.fill_key(FILL) != keys.fill_key(msgspec.structs.replace(FILL, order_id="10", side=2))
