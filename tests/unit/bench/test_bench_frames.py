"""The bench's exchange speaks what a venue speaks: frames are whole, valid, dense and of one length."""

from __future__ import annotations

import json
import time

import pytest
from bench.frames import SYMBOLS, TradeFrames, accept_key, exchange_info, server_frame
from bench.stamps import BASE_ID, Stamps, number_of, trade_id


def payload_of(frame: bytes) -> bytes:
    """Read one unmasked server frame by RFC 6455, checking its length."""
    assert frame[0] == 0x81
    size, at = frame[1], 2
    if size == 126:
        size, at = int.from_bytes(frame[2:4], "big"), 4
    assert len(frame) == at + size
    return frame[at:]


@pytest.mark.parametrize("channel", ["trade", "aggTrade"])
@pytest.mark.parametrize("combined", [True, False])
def test_frames_are_trades_with_dense_ids_per_symbol(channel: str, combined: bool) -> None:
    frames = TradeFrames(SYMBOLS, channel, combined=combined)
    last: dict[str, int] = {}
    for number in range(40):
        message = json.loads(payload_of(frames.frame(number)))
        if combined:
            assert message["stream"] == f"{message['data']['s'].lower()}@{channel}"
            message = message["data"]
        assert message["e"] == channel
        found = message["t" if channel == "trade" else "a"]
        assert found == last.get(message["s"], BASE_ID - 1) + 1
        last[message["s"]] = found
        assert number_of(found, [s.replace("-", "") for s in SYMBOLS].index(message["s"]), len(SYMBOLS)) == number
        assert float(message["p"]) > 0
        assert float(message["q"]) > 0
    assert len(last) == len(SYMBOLS)


@pytest.mark.parametrize(("micros", "unit"), [(False, 10**6), (True, 10**3)])
def test_times_are_now_in_the_connections_unit(micros: bool, unit: int) -> None:
    before = time.time_ns()
    message = json.loads(payload_of(TradeFrames(SYMBOLS, micros=micros).frame(0)))["data"]
    assert before // unit <= message["T"] <= time.time_ns() // unit
    assert message["E"] == message["T"]


def test_a_symbols_frames_have_one_length_a_side_up_to_the_last_number() -> None:
    frames = TradeFrames(SYMBOLS)
    for number in (0, 8, 799_992, 39_999_992):
        assert len(frames.frame(number)) == len(frames.frame(0))


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frame_header_by_size(size: int) -> None:
    frame = server_frame(bytes(size))
    heads = {125: 2, 126: 4, 65535: 4, 65536: 10, 0: 2}
    assert len(frame) - size == heads[size]


def test_accept_key_is_the_rfcs_example() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_exchange_info_names_every_symbol_with_its_tick_first() -> None:
    info = json.loads(exchange_info(SYMBOLS))
    assert [f"{row['baseAsset']}-{row['quoteAsset']}" for row in info["symbols"]] == list(SYMBOLS)
    assert all(row["filters"][0]["tickSize"] == "0.01" for row in info["symbols"])


def test_numbers_and_ids_are_each_others_inverse() -> None:
    for number in (0, 1, 3, 4, 999_999):
        assert number_of(trade_id(number, 4), number % 4, 4) == number


def test_stamps_are_seen_by_another_mapping(tmp_path) -> None:  # type: ignore[no-untyped-def]
    table = Stamps(tmp_path / "t", count=10)
    other = Stamps(tmp_path / "t")
    table.times[7] = 123
    table.sent = 8
    assert len(other) == 10
    assert other.times[7] == 123
    assert other.sent == 8
    assert list(other.times[:7]) == [0] * 7
    table.close()
    other.close()
