"""Feed halves: topics, URLs, chunked requests, and the judgement of frames that are not plainly data."""

from __future__ import annotations

import itertools
import json

import pytest

from feedmill.exchanges.base import ChannelName, Feed, FrameKind, Subscription, Topic, Venue
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT

CHANNELS = ((ChannelName.TRADES, ""), (ChannelName.BOOK, ""), (ChannelName.TICKER, ""), (ChannelName.CANDLES, "1h"))


def subscriptions(venue: Venue, symbol: str) -> list[Subscription]:
    return [Subscription(symbol, venue.to_native(symbol), channel, interval) for channel, interval in CHANNELS]


def many(feed: Feed, venue: Venue, count: int) -> list[Topic]:
    names = [f"A{number}-USDT" if venue is not DERIBIT else f"A{number}_USDC" for number in range(count)]
    return feed.topics([Subscription(name, venue.to_native(name), ChannelName.TRADES) for name in names])


@pytest.mark.parametrize(
    ("venue", "symbol", "authenticated", "expected"),
    [
        (
            SPOT,
            "BTC-USDT",
            False,
            [
                ("btcusdt@trade", "stream"),
                ("btcusdt@depth@100ms", "stream"),
                ("btcusdt@bookTicker", "stream"),
                ("btcusdt@kline_1h", "stream"),
            ],
        ),
        (
            USDM,
            "BTC-USDT-260925",
            False,
            [
                ("btcusdt_260925@aggTrade", "market"),
                ("btcusdt_260925@depth@100ms", "public"),
                ("btcusdt_260925@bookTicker", "public"),
                ("btcusdt_260925@kline_1h", "market"),
            ],
        ),
        (
            DERIBIT,
            "BTC-PERPETUAL",
            False,
            [
                ("trades.BTC-PERPETUAL.100ms", "stream"),
                ("book.BTC-PERPETUAL.100ms", "stream"),
                ("quote.BTC-PERPETUAL", "stream"),
                ("chart.trades.BTC-PERPETUAL.60", "stream"),
            ],
        ),
        (
            DERIBIT,
            "BTC-PERPETUAL",
            True,
            [
                ("trades.BTC-PERPETUAL.raw", "stream"),
                ("book.BTC-PERPETUAL.raw", "stream"),
                ("quote.BTC-PERPETUAL", "stream"),
                ("chart.trades.BTC-PERPETUAL.60", "stream"),
            ],
        ),
    ],
)
def test_topics(venue: Venue, symbol: str, authenticated: bool, expected: list[tuple[str, str]]) -> None:
    wanted = subscriptions(venue, symbol)
    topics = venue.feed("wss://host", authenticated=authenticated).topics(wanted)
    assert [(topic.name, topic.socket) for topic in topics] == expected
    assert [topic.subscription for topic in topics] == wanted


@pytest.mark.parametrize(("venue", "interval"), [(SPOT, "7m"), (USDM, "1s"), (DERIBIT, "4h")])
def test_an_interval_the_venue_lacks_is_refused_with_those_it_has(venue: Venue, interval: str) -> None:
    assert interval not in venue.candle_intervals
    with pytest.raises(ValueError, match=rf"{interval}.* write one of .*15m"):
        venue.feed("wss://h").topics([Subscription("A", "A", ChannelName.CANDLES, interval)])


@pytest.mark.parametrize(
    ("venue", "base", "expected"),
    [
        (SPOT, "wss://stream.binance.com:9443", {"stream": "wss://stream.binance.com:9443/stream"}),
        (SPOT, "wss://h/", {"stream": "wss://h/stream"}),
        (SPOT, "wss://h/ws", {"stream": "wss://h/stream"}),
        (SPOT, "ws://127.0.0.1:9001/stream/", {"stream": "ws://127.0.0.1:9001/stream"}),
        (SPOT, "wss://proxy/binance/stream?timeUnit=MICROSECOND", {"stream": "wss://proxy/binance/stream?timeUnit=MICROSECOND"}),
        (USDM, "wss://h", {"public": "wss://h/public/stream", "market": "wss://h/market/stream"}),
        (USDM, "wss://h/market/stream", {"public": "wss://h/public/stream", "market": "wss://h/market/stream"}),
        (USDM, "wss://h/x/public/ws/", {"public": "wss://h/x/public/stream", "market": "wss://h/x/market/stream"}),
        (DERIBIT, "wss://www.deribit.com", {"stream": "wss://www.deribit.com/ws/api/v2"}),
        (DERIBIT, "wss://h/ws/api/v2/", {"stream": "wss://h/ws/api/v2"}),
        (DERIBIT, "wss://h/ws", {"stream": "wss://h/ws/api/v2"}),
    ],
)  # fmt: skip
def test_urls_from_any_base(venue: Venue, base: str, expected: dict[str, str]) -> None:
    feed = venue.feed(base)
    assert {socket: feed.url(socket) for socket in expected} == expected


@pytest.mark.parametrize(
    ("venue", "count", "sizes"),
    [(SPOT, 230, [100, 100, 30]), (USDM, 100, [100]), (DERIBIT, 501, [250, 250, 1]), (SPOT, 0, [])],
)
def test_requests_are_chunked_and_numbered(venue: Venue, count: int, sizes: list[int]) -> None:
    feed = venue.feed("wss://h")
    topics = many(feed, venue, count)
    for build, spot_method, method in (
        (feed.subscribe, "SUBSCRIBE", "public/subscribe"),
        (feed.unsubscribe, "UNSUBSCRIBE", "public/unsubscribe"),
    ):
        ids = itertools.count(7)
        messages = build(topics, ids.__next__)
        assert [len(message.topics) for message in messages] == sizes
        assert [topic for message in messages for topic in message.topics] == topics
        for number, message in enumerate(messages, 7):
            body = json.loads(message.payload)
            assert message.request_id == body["id"] == number
            names = [topic.name for topic in message.topics]
            assert len(message.payload) < 8192
            if venue is DERIBIT:
                assert body == {"jsonrpc": "2.0", "id": number, "method": method, "params": {"channels": names}}
            else:
                assert body == {"method": spot_method, "params": names, "id": number}


def test_deribit_opens_with_a_heartbeat() -> None:
    (message,) = DERIBIT.feed("wss://h").opening()
    assert json.loads(message.payload) == {
        "jsonrpc": "2.0", "id": "heartbeat", "method": "public/set_heartbeat", "params": {"interval": 10},
    }  # fmt: skip
    assert message.request_id is None
    assert SPOT.feed("wss://h").opening() == USDM.feed("wss://h").opening() == []


@pytest.mark.parametrize("venue", [SPOT, USDM])
@pytest.mark.parametrize(
    ("frame", "kind", "request_id", "error"),
    [
        ('{"result":null,"id":1}', FrameKind.ACK, 1, ""),
        ('{ "id" : 312, "result" : null }', FrameKind.ACK, 312, ""),
        ('{"result":null,"id":"4"}', FrameKind.ACK, 4, ""),
        ('{"result":null,"id":5.0}', FrameKind.ACK, 5, ""),
        ('{"result":["btcusdt@trade"],"id":3}', FrameKind.ACK, 3, ""),
        ('{"result":null,"id":null}', FrameKind.ACK, None, ""),
        ('{"code":2,"msg":"Invalid request: bad","id":7}', FrameKind.ERROR, 7, "2: Invalid request: bad"),
        ('{"code":3,"msg":"Invalid JSON"}', FrameKind.ERROR, None, "3: Invalid JSON"),
        ('{"error":{"code":2,"msg":"Invalid"},"id":9}', FrameKind.ERROR, 9, "2: Invalid"),
        ('{"e":"serverShutdown","E":1770123456789}', FrameKind.SHUTDOWN, None, "serverShutdown"),
        (
            '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
            FrameKind.SHUTDOWN,
            None,
            "serverShutdown",
        ),
        ('{"data": {"E":1, "e": "serverShutdown"}, "stream": "!s"}', FrameKind.SHUTDOWN, None, "serverShutdown"),
        ('{"event":{"e":"serverShutdown","E":1}}', FrameKind.SHUTDOWN, None, "serverShutdown"),
        ('{ "stream": "btcusdt@trade", "data": {"e":"trade"} }', FrameKind.DATA, None, ""),
        ('{"data":{"e":"trade"},"stream":"btcusdt@trade"}', FrameKind.DATA, None, ""),
        ('{"e":"trade","s":"BTCUSDT","t":1}', FrameKind.DATA, None, ""),
        ('{"u":1,"s":"BNBUSDT","b":"1","B":"1","a":"2","A":"1"}', FrameKind.DATA, None, ""),
        ("not json", FrameKind.DATA, None, ""),
        ("[1]", FrameKind.DATA, None, ""),
        ("", FrameKind.DATA, None, ""),
        ('{"code":"x"}', FrameKind.DATA, None, ""),
    ],
)
def test_binance_frames_are_told_apart(
    venue: Venue, frame: str, kind: FrameKind, request_id: int | None, error: str
) -> None:
    verdict = venue.feed("wss://h").classify(frame.encode())
    assert (verdict.kind, verdict.request_id, verdict.error, verdict.accepted, verdict.reply) == (
        kind, request_id, error, None, None,
    )  # fmt: skip


def test_data_prefixes_fit_data_and_not_the_shutdown_notice() -> None:
    spot = SPOT.feed("wss://h").data_prefixes
    for symbol in ("btcusdt", "1000satsusdt", "zilusdt"):
        assert f'{{"stream":"{symbol}@trade","data":{{}}}}'.encode().startswith(spot)
    assert not b'{"stream":"!serverShutdown","data":{}}'.startswith(spot)
    assert not b'{"result":null,"id":1}'.startswith(spot)
    deribit = DERIBIT.feed("wss://h").data_prefixes
    assert b'{"jsonrpc":"2.0","method":"subscription","params":{}}'.startswith(deribit)
    assert not b'{"jsonrpc":"2.0","method":"heartbeat","params":{}}'.startswith(deribit)


@pytest.mark.parametrize(
    ("frame", "kind", "request_id", "accepted"),
    [
        (
            '{"jsonrpc":"2.0","id":3,"result":["trades.X.100ms","book.X.100ms"],"usIn":1,"testnet":false}',
            FrameKind.ACK,
            3,
            frozenset({"book.X.100ms", "trades.X.100ms"}),
        ),
        ('{"jsonrpc":"2.0","id":"4","result":[]}', FrameKind.ACK, 4, frozenset()),
        ('{"jsonrpc":"2.0","id":"heartbeat","result":"ok"}', FrameKind.ACK, None, None),
        ('{"jsonrpc":"2.0","id":"test","result":{"version":"1.2.26"}}', FrameKind.HEARTBEAT, None, None),
        ('{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}', FrameKind.HEARTBEAT, None, None),
        ('{"jsonrpc":"2.0", "method":"subscription","params":{"channel":"x","data":{}}}', FrameKind.DATA, None, None),
        ('{"jsonrpc":"2.0","method":"subscription","params":[]}', FrameKind.DATA, None, None),
        ("nonsense", FrameKind.DATA, None, None),
        ("{}", FrameKind.DATA, None, None),
    ],
)
def test_deribit_frames_are_told_apart(
    frame: str, kind: FrameKind, request_id: int | None, accepted: frozenset[str] | None
) -> None:
    verdict = DERIBIT.feed("wss://h").classify(frame.encode())
    assert (verdict.kind, verdict.request_id, verdict.accepted, verdict.reply) == (kind, request_id, accepted, None)


def test_deribit_test_requests_are_answered() -> None:
    frame = b'{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}'
    verdict = DERIBIT.feed("wss://h").classify(frame)
    assert verdict.kind is FrameKind.HEARTBEAT
    assert verdict.reply is not None
    assert json.loads(verdict.reply) == {"jsonrpc": "2.0", "id": "test", "method": "public/test", "params": {}}


@pytest.mark.parametrize(("code", "fatal"), [(13778, False), (10028, True)])
def test_deribit_errors_name_their_request_and_say_whether_the_session_is_over(code: int, fatal: bool) -> None:
    frame = f'{{"jsonrpc":"2.0","id":5,"error":{{"code":{code},"message":"why"}},"usIn":1}}'
    verdict = DERIBIT.feed("wss://h").classify(frame.encode())
    assert (verdict.kind, verdict.request_id, verdict.error, verdict.fatal) == (
        FrameKind.ERROR, 5, f"{code}: why", fatal,
    )  # fmt: skip


def test_limits_stay_below_what_the_venues_document() -> None:
    spot, usdm, deribit = (venue.feed("wss://h").limits for venue in (SPOT, USDM, DERIBIT))
    assert (spot.connects, spot.connects_window, spot.topics_per_connection) == (300, 300.0, 1024)
    assert spot.messages_per_second < 5
    assert usdm.messages_per_second < 10
    assert deribit.messages_per_second < 3.34
    assert deribit.connection_lifetime is None
    assert spot.connection_lifetime == usdm.connection_lifetime == 86_400
    assert spot.silence > 2 * 20
    assert usdm.silence > 180
    assert deribit.silence > 2 * 10.7
