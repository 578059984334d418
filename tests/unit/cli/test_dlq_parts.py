"""What ``feedmill dlq`` reads and prints, without a server."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from feedmill.cli.main import app
from feedmill.dlq import show
from feedmill.dlq.letters import BadId, Filter, Key, Letter
from feedmill.dlq.reading import Unreadable, read
from feedmill.dlq.telling import BATCH_BYTES, BATCH_FRAMES, batches
from feedmill.exchanges.registry import get_venue
from feedmill.shared import control
from feedmill.shared.events import EventBlock, Trade, encode
from feedmill.shared.frames import RawBatch, Run, RunKind, encode_batch

runner = CliRunner()
NAME = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":5,"p":"1.5","q":"2","T":1750000000000,'
    b'"m":true,"M":true}}'
)


def letter(payload: bytes, reason: str = "bad_json", session: str = "r0-1") -> Letter:
    return Letter(Key("default.spot.0", session, 1, 2), 1, 1_750_000_000_123_456_789, reason, "why", "1.0", payload)


@given(NAME, NAME, st.integers(0, 10**18 - 1), st.integers(0, 10**9 - 1))
def test_ids_read_back(shard: str, session: str, batch: int, index: int) -> None:
    for name in (session, f"event:{session}", f"a/{session}"):
        key = Key(shard, name, batch, index)
        assert Key.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "a", "a/b/c/d", "a/b/1", "a/b/1/x", "/b/1/2"])
def test_what_is_no_id_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(BadId, match="SHARD/SESSION/BATCH/INDEX"):
        Key.parse(text)


def test_filters_number_their_values() -> None:
    assert Filter().where() == ("true", [])
    where, values = Filter((Key("s", "x", 1, 2),), "s", "r", 3, 4).where()
    assert values == [["s"], ["x"], [1], [2], "s", "r", 3, 4]
    assert [f"${place}" in where for place in range(1, 10)] == [True] * 8 + [False]


@given(st.binary(max_size=200))
def test_bytes_are_shown_whole_and_harmless(payload: bytes) -> None:
    lines = list(show.hexdump(payload))
    assert lines[-1] == f"{len(payload):08x}"
    shown = b"".join(bytes.fromhex(line[10:58]) for line in lines[:-1])
    assert shown == payload
    assert show.text(payload).isprintable()
    document = show.document(letter(payload))
    assert base64.b64decode(document["payload"]) == payload


def test_only_the_begin_of_a_payload_is_not_called_the_payload() -> None:
    assert "payload" not in show.document(letter(b"abc"), 300)
    assert show.text(b"abcdef", 3) == "abc..."
    assert show.moment(1_750_000_000_123_456_789) == "2025-06-15T15:06:40.123456Z"
    assert show.moment(2**63 - 1).startswith("2262")


@given(st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=40)), max_size=600))
def test_frames_go_into_bounded_batches_that_end_their_session(frames: list[tuple[int, bytes]]) -> None:
    made = batches(frames, "redrive-1", 7)
    assert [batch.n for batch in made] == list(range(1, len(made) + 1))
    found = [pair for batch in made for pair in zip(batch.runs[0].times, batch.runs[0].frames, strict=True)]
    assert found == sorted(frames)
    assert all(len(batch.runs[0].frames) <= BATCH_FRAMES for batch in made)
    assert [len(batch.runs) for batch in made] == [1] * (len(made) - 1) + [2]
    assert isinstance(control.decode_control(made[-1].runs[1].frames[0]), control.SessionEnd)


def test_large_frames_make_small_batches() -> None:
    made = batches([(at, bytes(BATCH_BYTES // 2)) for at in range(5)], "redrive-1", 7)
    assert [len(batch.runs[0].frames) for batch in made] == [2, 2, 1]


def test_what_a_letter_holds_is_told_by_its_first_bytes() -> None:
    venue = get_venue("binance", "Spot")
    reader = venue.mapper({"BTCUSDT": "BTC-USDT"})
    found = read(letter(TRADE), reader)
    assert ([trade.id for trade in found.trades], len(found.frames)) == ([5], 1)

    body = b'[{"id":4,"price":"1","qty":"2","time":1750000000000,"isBuyerMaker":true}]'
    for trace in ("", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        answer = control.encode(control.RestAnswer("c", "trades", "BTC-USDT", "BTCUSDT", 200, 1, body, trace))
        found = read(letter(answer, "internal_error"), reader)
        assert ([trade.id for trade in found.trades], found.frames) == ([4], [])

    record = control.encode(control.SessionEnd())
    assert read(letter(record, "internal_error"), reader).controls == 1

    runs = [Run(0, 1, [1, 2], [TRADE, TRADE]), Run(int(RunKind.CONTROL), 1, [3], [record])]
    found = read(letter(encode_batch(RawBatch(1, "r0-1", 1, runs)), "undecodable_batch", "raw"), reader)
    assert (len(found.trades), len(found.frames), found.controls) == (2, 2, 1)

    trade = Trade("BTC-USDT", 9, "1", "2", 1, 1_750_000_000_000_000_000, 1)
    found = read(letter(msgspec.msgpack.encode(trade), "trade_refused", "event:abcd"), reader)
    assert found.events == [trade]
    found = read(letter(encode(EventBlock(trades=[trade])), "undecodable_commit", "event"), reader)
    assert found.events == [trade]


@pytest.mark.parametrize(
    ("payload", "reason", "session"),
    [
        (b"no json", "older", "r0-1"),
        (b"\xff\xfe", "bad_value", "r0-1"),
        (b"", "bad_json", "r0-1"),
        (b"\x97broken", "undecodable_answer", "r0-1"),
        (b"\x93", "undecodable_batch", "raw"),
        (b"anything", "undecodable_run", "r0-1"),
        (b"\x80", "trade_refused", "event:abcd"),
        (b"\x80", "unheard_of", "event:abcd"),
    ],
)
def test_what_cannot_be_read_says_why(payload: bytes, reason: str, session: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(letter(payload, reason, session), get_venue("binance", "Spot").mapper({}))
    assert error.value.reason != "internal_error"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["redrive", "-c", "x.yaml"], "which letters? Give ids or a filter, or --all"),
        (["drop"], "which letters? Give ids or a filter, or --all"),
        (["drop", "--all", "--reason", "x"], "--all goes with no ids and no filter"),
        (["drop", "nonsense"], "is not the id of a dead letter"),
        (["list", "--since", "yesterday"], "--since 'yesterday': write 2h, 30m (ago), or 2026-01-31T12:00 (UTC)"),
        (["redrive", "-c", "missing.yaml", "--all"], "missing.yaml"),
    ],
)
def test_wrong_input_is_told_with_its_remedy(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = runner.invoke(app, ["dlq", *arguments, "--data-dir", str(tmp_path)], prog_name="feedmill")
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_a_folder_without_data_says_what_to_do(tmp_path: Path) -> None:
    result = runner.invoke(app, ["dlq", "list", "--data-dir", str(tmp_path)], prog_name="feedmill")
    assert result.exit_code == 2
    assert "holds no data: run feedmill up" in result.output
