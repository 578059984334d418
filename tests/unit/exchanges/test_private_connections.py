"""A private connection's life, step by step: log-on, renewal, refusals, ends; for one account and for many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials, Mend, Rejection
from feedmill.exchanges.account_session import (
    ACK_TIMEOUT,
    CLOCK_TRUSTED,
    NEVER,
    Action,
    Call,
    Close,
    Connect,
    Lost,
    Place,
    PrivateConnection,
    Ready,
    Received,
    Send,
    VenueClock,
)
from feedmill.exchanges.binance_spot import account as spot
from feedmill.exchanges.binance_spot.session import SpotConnection
from feedmill.exchanges.binance_usdm import account as usdm
from feedmill.exchanges.binance_usdm.session import RETRY_AFTER, UsdmConnection
from feedmill.exchanges.deribit import account as deribit
from feedmill.exchanges.deribit.session import DeribitConnection

FOLDER = Path(__file__).parent / "account_payloads"
WALL_MS = 1_747_385_641_636
KEYS = Credentials(SecretStr("PlantedKey"), SecretStr("PlantedSecret"))
TIME = b'{"serverTime":1747385701636}'


def payload(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes().strip()


def made(kind: type[PrivateConnection], *accounts: str) -> Any:
    connection = kind(Place("wss://stream.example", "https://rest.example", VenueClock(), lambda: WALL_MS, lambda: "n"))
    for account in accounts:
        assert connection.want(account, KEYS, 0.0) == []
    return connection


def sent(action: Action) -> Any:
    assert isinstance(action, Send)
    return json.loads(action.payload)


def answer(ident: Any, **body: Any) -> bytes:
    return json.dumps({"id": ident, **body}).encode()


# -- Spot


def subscribed(connection: Any, *accounts: str) -> None:
    """Open, each subscription acknowledged with its place as number."""
    for at, action in enumerate(connection.opened(0.0)):
        got = connection.frame(answer(sent(action)["id"], status=200, result={"subscriptionId": at}), 0.0)
        assert got == Received([Ready(accounts[at])])


def test_spot_carries_many_accounts_and_keeps_their_frames_apart() -> None:
    connection = made(SpotConnection, "a", "b")
    (opening,) = connection.start(0.0)
    assert opening == Connect(SecretStr("wss://stream.example/ws-api/v3?returnRateLimits=false"))
    subscribed(connection, "a", "b")
    frame = payload("spot/trade").replace(b'"subscriptionId":3', b'"subscriptionId":1')
    assert connection.frame(frame, 1.0) == Received([], True, "b")
    assert connection.frame(payload("spot/new"), 1.0) == Received([], True, "a")
    (more,) = connection.want("c", KEYS, 2.0)
    assert sent(more)["method"] == "userDataStream.subscribe.signature"
    assert connection.due == 2.0 + ACK_TIMEOUT
    connection.frame(answer(sent(more)["id"], status=200, result={"subscriptionId": 9}), 3.0)
    assert connection.due == NEVER
    ended = payload("spot/terminated").replace(b'"subscriptionId":7', b'"subscriptionId":9')
    assert connection.frame(ended, 4.0) == Received([Lost("c", "expired", None)], True, "c")
    assert connection.frame(frame, 5.0).account == "b", "the others are heard on"
    assert connection.frame(payload("spot/trade"), 5.0) == Received([]), "of a subscription that nobody asked for"
    assert connection.frame(b"\x00torn", 6.0) == Received([Close("unreadable")])
    assert connection.frame(payload("spot/shutdown"), 6.0) == Received([Close("shutdown")])


def test_spot_drops_an_account_and_is_full_at_its_limits() -> None:
    connection = made(SpotConnection, "a", "b")
    connection.start(0.0)
    subscribed(connection, "a", "b")
    away, lost = connection.drop("a")
    assert sent(away)["params"] == {"subscriptionId": 0}
    assert lost == Lost("a", "", None)
    assert connection.drop("nobody") == []
    (asked,) = connection.want("c", KEYS, 0.0)
    assert connection.drop("c") == [], "its acknowledgement is not there yet"
    got = connection.frame(answer(sent(asked)["id"], status=200, result={"subscriptionId": 5}), 0.0)
    assert sent(got.actions[0])["method"] == "userDataStream.unsubscribe"
    assert not connection.full
    connection.wanted = dict.fromkeys(map(str, range(spot.SUBSCRIPTIONS)), KEYS)
    assert connection.full
    connection.wanted = {}
    connection._given = spot.SUBSCRIPTIONS_EVER
    assert connection.full


@pytest.mark.parametrize("refused", [False, True])
def test_spot_subscribes_anew_an_account_that_was_dropped_while_it_was_asked_for(refused: bool) -> None:
    """Two subscriptions at once would be refused, and the account lost for long."""
    connection = made(SpotConnection, "a")
    connection.start(0.0)
    (asked,) = connection.opened(0.0)
    assert connection.drop("a") == []
    assert connection.want("a", Credentials(SecretStr("AnotherKey"), SecretStr("AnotherSecret")), 1.0) == []
    if refused:
        got = connection.frame(answer(sent(asked)["id"], status=400, error={"code": -2015, "msg": "m"}), 2.0)
        (again,) = got.actions
    else:
        got = connection.frame(answer(sent(asked)["id"], status=200, result={"subscriptionId": 3}), 2.0)
        away, again = got.actions
        assert sent(away)["method"] == "userDataStream.unsubscribe"
        assert sent(away)["params"] == {"subscriptionId": 3}
        late = payload("spot/new").replace(b'"subscriptionId":0', b'"subscriptionId":3')
        assert connection.frame(late, 2.0) == Received([])
    assert sent(again)["params"]["apiKey"] == "AnotherKey"
    got = connection.frame(answer(sent(again)["id"], status=200, result={"subscriptionId": 4}), 3.0)
    assert got == Received([Ready("a")])
    assert connection.due == NEVER


def test_spot_asks_once_for_an_account_that_waits_for_the_time_and_is_wanted_again() -> None:
    connection = made(SpotConnection, "a")
    connection.start(0.0)
    (asked,) = connection.opened(0.0)
    refused = answer(sent(asked)["id"], status=400, error={"code": -1021, "msg": "m"})
    (call,) = connection.frame(refused, 1.0).actions
    connection.drop("a")
    assert connection.want("a", KEYS, 2.0) == []
    assert len(connection.answered(call.number, 200, {}, TIME, 3.0)) == 1


@pytest.mark.parametrize(("code", "mend"), [(-2015, Mend.USER), (-2035, Mend.DONE), (-2042, Mend.RECONNECT)])
def test_spot_loses_the_refused_account_only(code: int, mend: Mend) -> None:
    connection = made(SpotConnection, "a")
    connection.start(0.0)
    (asked,) = connection.opened(0.0)
    got = connection.frame(answer(sent(asked)["id"], status=400, error={"code": code, "msg": "m"}), 0.0)
    (lost,) = got.actions
    assert isinstance(lost, Lost)
    assert (lost.account, lost.cause) == ("a", "refused")
    assert lost.why is not None
    assert lost.why.mend is mend
    assert connection.full == (mend is Mend.RECONNECT)
    assert connection.wanted == {}


def test_spot_asks_for_the_time_once_for_all_whose_time_was_refused() -> None:
    connection = made(SpotConnection, "a", "b")
    connection.start(0.0)
    actions = []
    for asked in connection.opened(0.0):
        refused = answer(sent(asked)["id"], status=400, error={"code": -1021, "msg": "m"})
        actions += connection.frame(refused, 1.0).actions
    (call,) = actions
    assert isinstance(call, Call)
    assert call.request.url.get_secret_value() == "https://rest.example/api/v3/time"
    again = connection.answered(call.number, 200, {}, TIME, 2.0)
    assert [sent(action)["params"]["timestamp"] for action in again] == [WALL_MS + 60_000] * 2
    refused = answer(sent(again[0])["id"], status=400, error={"code": -1021, "msg": "m"})
    (lost,) = connection.frame(refused, 3.0).actions
    assert lost.why.mend is Mend.CLOCK, "it was signed by the venue's time: not asked for again and again"


@pytest.mark.parametrize(("status", "body"), [(0, b""), (500, b""), (200, b"<html>")])
def test_spot_gives_up_those_that_wait_when_the_time_is_not_told(status: int, body: bytes) -> None:
    connection = made(SpotConnection, "a")
    connection.start(0.0)
    (asked,) = connection.opened(0.0)
    refused = answer(sent(asked)["id"], status=400, error={"code": -1021, "msg": "m"})
    (call,) = connection.frame(refused, 1.0).actions
    (lost,) = connection.answered(call.number, status, {}, body, 2.0)
    assert (lost.account, lost.why.mend) == ("a", Mend.RETRY)


def test_spot_ends_when_an_answer_does_not_come() -> None:
    connection = made(SpotConnection, "a")
    connection.start(0.0)
    connection.opened(1.0)
    assert connection.tick(ACK_TIMEOUT) == []
    assert connection.tick(1.0 + ACK_TIMEOUT) == [Close("unanswered")]


# -- USD-M

LISTEN_KEY = "pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"


def listening() -> Any:
    connection = made(UsdmConnection, "a")
    assert connection.full
    (call,) = connection.start(0.0)
    assert (call.request.method, call.request.headers) == ("POST", {"X-MBX-APIKEY": "PlantedKey"})
    (connect,) = connection.answered(call.number, 200, {}, payload("usdm/listen_key"), 1.0)
    assert connect == Connect(SecretStr(f"wss://stream.example/private/ws/{LISTEN_KEY}"))
    assert connection.opened(2.0) == [Ready("a")]
    return connection


def test_usdm_renews_its_listen_key() -> None:
    connection = listening()
    assert connection.frame(payload("usdm/trade"), 3.0) == Received([], True, "a")
    assert connection.due == 1.0 + usdm.RENEW_AFTER
    assert connection.tick(1000.0) == []
    (call,) = connection.tick(connection.due)
    assert call.request.method == "PUT"
    assert connection.answered(call.number + 1, 200, {}, b"", 1801.0) == [], "an answer to nothing"
    assert connection.answered(call.number, 200, {}, payload("usdm/listen_key"), 1802.0) == []
    assert connection.due == 1802.0 + usdm.RENEW_AFTER


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (200, b'{"listenKey":"another"}', "expired"),
        (400, b'{"code":-1125,"msg":"m"}', "expired"),
        (401, b'{"code":-2015,"msg":"m"}', "refused"),
    ],
)
def test_usdm_ends_with_its_listen_key(status: int, body: bytes, cause: str) -> None:
    connection = listening()
    (call,) = connection.tick(connection.due)
    (close,) = connection.answered(call.number, status, {}, body, 1802.0)
    assert isinstance(close, Close)
    assert close.cause == cause


def test_usdm_tries_a_renewal_again_until_the_key_has_ended() -> None:
    connection = listening()
    ends = 1.0 + 2 * usdm.RENEW_AFTER
    now, tried = connection.due, 0
    while not (actions := connection.tick(now)) or isinstance(actions[0], Call):
        for call in actions:
            tried += 1
            assert connection.answered(call.number, 0, {}, b"", now) == []
            assert connection.due in (now + RETRY_AFTER, ends)
        now = connection.due
    assert (actions, now) == ([Close("expired")], ends)
    assert tried == usdm.RENEW_AFTER // RETRY_AFTER


def test_usdm_hears_of_the_end_and_does_not_record_it() -> None:
    connection = listening()
    assert connection.frame(payload("usdm/listen_key_expired"), 9.0) == Received([Close("expired")])


@pytest.mark.parametrize(
    ("status", "body", "mend"),
    [(401, b'{"code":-2015}', Mend.USER), (0, b"", Mend.RETRY), (429, b"", Mend.RETRY), (200, b"[]", Mend.RETRY)],
)
def test_usdm_does_not_connect_without_a_listen_key(status: int, body: bytes, mend: Mend) -> None:
    connection = made(UsdmConnection, "a")
    (call,) = connection.start(0.0)
    (close,) = connection.answered(call.number, status, {}, body, 1.0)
    assert (close.cause, close.why.mend) == ("refused", mend)


def test_usdm_ends_when_no_listen_key_comes() -> None:
    connection = made(UsdmConnection, "a")
    connection.start(0.0)
    assert connection.tick(ACK_TIMEOUT) == [Close("unanswered")]


# -- Deribit


def logged_on() -> Any:
    connection = made(DeribitConnection, "a")
    assert connection.start(0.0) == [Connect(SecretStr("wss://stream.example/ws/api/v2"))]
    heartbeat, logon = connection.opened(0.0)
    assert sent(heartbeat)["method"] == "public/set_heartbeat"
    assert sent(logon)["params"]["timestamp"] == WALL_MS
    granted = json.loads(payload("deribit/auth_answer")) | {"id": sent(logon)["id"]}
    (subscribe,) = connection.frame(json.dumps(granted).encode(), 1.0).actions
    assert sent(subscribe)["params"]["channels"] == list(deribit.CHANNELS)
    done = json.loads(payload("deribit/subscribed_answer")) | {"id": sent(subscribe)["id"]}
    assert connection.frame(json.dumps(done).encode(), 2.0) == Received([Ready("a")])
    return connection


def test_deribit_logs_on_subscribes_answers_and_renews() -> None:
    connection = logged_on()
    assert connection.frame(payload("deribit/changes"), 3.0) == Received([], True, "a")
    (reply,) = connection.frame(payload("deribit/test_request"), 3.0).actions
    assert sent(reply)["method"] == "public/test"
    assert connection.due == 1.0 + deribit.RENEW_AFTER
    assert connection.tick(10.0) == []
    (renewal,) = connection.tick(connection.due)
    assert sent(renewal)["params"]["grant_type"] == "refresh_token"
    granted = json.loads(payload("deribit/auth_answer")) | {"id": sent(renewal)["id"]}
    assert connection.frame(json.dumps(granted).encode(), 302.0) == Received([]), "the subscriptions stay"
    assert connection.due == 302.0 + deribit.RENEW_AFTER


@pytest.mark.parametrize("code", [13004, 13009])
def test_deribit_notices_a_token_that_ended_by_its_renewal(code: int) -> None:
    connection = logged_on()
    (renewal,) = connection.tick(connection.due)
    refused = answer(sent(renewal)["id"], error={"code": code, "message": "m"})
    (close,) = connection.frame(refused, 302.0).actions
    assert close.cause == "expired"


def test_deribit_looks_at_the_clock_before_it_blames_the_key() -> None:
    connection = made(DeribitConnection, "a")
    connection.start(0.0)
    _, logon = connection.opened(0.0)
    (call,) = connection.frame(answer(sent(logon)["id"], error={"code": 13004, "message": "m"}), 1.0).actions
    assert call.request.url.get_secret_value() == "https://rest.example/api/v2/public/get_time"
    (again,) = connection.answered(call.number, 200, {}, b'{"result":1747385701636}', 2.0)
    assert sent(again)["params"]["timestamp"] == WALL_MS + 60_000
    (close,) = connection.frame(answer(sent(again)["id"], error={"code": 13004, "message": "m"}), 3.0).actions
    assert (close.cause, close.why.mend) == ("refused", Mend.USER)


@pytest.mark.parametrize(("status", "body"), [(0, b""), (500, b""), (200, b"{}")])
def test_deribit_gives_up_when_the_time_is_not_told(status: int, body: bytes) -> None:
    connection = made(DeribitConnection, "a")
    connection.start(0.0)
    _, logon = connection.opened(0.0)
    (call,) = connection.frame(answer(sent(logon)["id"], error={"code": 13004, "message": "m"}), 1.0).actions
    (close,) = connection.answered(call.number, status, {}, body, 2.0)
    assert (close.cause, close.why.mend) == ("refused", Mend.RETRY)


def test_deribit_says_which_channels_it_did_not_get() -> None:
    connection = made(DeribitConnection, "a")
    connection.start(0.0)
    _, logon = connection.opened(0.0)
    granted = json.loads(payload("deribit/auth_answer")) | {"id": sent(logon)["id"]}
    (subscribe,) = connection.frame(json.dumps(granted).encode(), 1.0).actions
    (close,) = connection.frame(answer(sent(subscribe)["id"], result=["user.portfolio.any"]), 1.0).actions
    assert close.why == Rejection(Mend.USER, 0, "the exchange does not offer user.changes.any.any.raw")


def test_deribit_ends_when_the_venue_says_too_many_or_nothing() -> None:
    connection = logged_on()
    (close,) = connection.frame(answer(99, error={"code": 10028, "message": "too_many_requests"}), 3.0).actions
    assert (close.cause, close.why.mend, close.why.wait) == ("refused", Mend.RECONNECT, 5.0)
    silent = made(DeribitConnection, "a")
    silent.start(0.0)
    silent.opened(0.0)
    assert silent.tick(ACK_TIMEOUT) == [Close("unanswered")]


# -- all of them

FRAMES = {
    kind: [path.read_bytes().strip() for path in sorted((FOLDER / name).glob("*.json"))]
    for kind, name in ((SpotConnection, "spot"), (UsdmConnection, "usdm"), (DeribitConnection, "deribit"))
}
SECRET = (b"listenKey", b"access_token", b"apiKey")


@settings(max_examples=60)
@given(st.data())
def test_no_frame_and_no_answer_raises_and_nothing_shows_a_secret(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(FRAMES)))
    connection = made(kind, "a")
    now, shown, calls = 0.0, connection.start(0.0), [1]
    for _ in range(data.draw(st.integers(0, 25))):
        now += data.draw(st.sampled_from([0.0, 1.0, 400.0]))
        what = data.draw(st.sampled_from(["open", "frame", "junk", "answer", "tick"]))
        if what == "open":
            shown += connection.opened(now)
        elif what in ("frame", "junk"):
            body = data.draw(st.sampled_from(FRAMES[kind]) if what == "frame" else st.binary(max_size=20))
            if data.draw(st.booleans()):
                body = body.replace(b'"id":3', b'"id":2').replace(b'"id":4', b'"id":3')
            got = connection.frame(body, now)
            assert not (got.record and any(word in body for word in SECRET))
            shown += got.actions
        elif what == "answer":
            status = data.draw(st.sampled_from([0, 200, 400, 429, 500]))
            body = data.draw(st.sampled_from([*FRAMES[kind], TIME, b"", b"[]"]))
            shown += connection.answered(data.draw(st.integers(0, calls[-1])), status, {}, body, now)
        else:
            shown += connection.tick(now)
        calls.append(connection._numbers)
    text = repr(shown)
    for secret in ("PlantedKey", "PlantedSecret", LISTEN_KEY, "1582628593469"):
        assert secret not in text


def test_a_time_that_another_connection_asked_for_meanwhile_is_used_and_the_key_not_blamed() -> None:
    """Signed before, refused after: what counts is by which time a request was signed."""
    one, other = made(DeribitConnection, "a"), made(DeribitConnection, "b")
    other.place = one.place
    logons = []
    for connection in (one, other):
        connection.start(0.0)
        logons.append(connection.opened(0.0)[1])
    refused = [answer(sent(logon)["id"], error={"code": 13004, "message": "m"}) for logon in logons]
    (call,) = one.frame(refused[0], 1.0).actions
    one.answered(call.number, 200, {}, b'{"result":1747385701636}', 2.0)
    (again,) = other.frame(refused[1], 3.0).actions
    assert sent(again)["params"]["timestamp"] == WALL_MS + 60_000
    (close,) = other.frame(answer(sent(again)["id"], error={"code": 13004, "message": "m"}), 4.0).actions
    assert close.why.mend is Mend.USER
    many = made(SpotConnection, "a")
    many.place = one.place
    many.start(0.0)
    many.place.clock._asked_at = 10.0
    (asked,) = many.opened(10.0 + CLOCK_TRUSTED)
    many.place.clock.told(WALL_MS + 60_000, WALL_MS, 71.0)
    refusal = answer(sent(asked)["id"], status=400, error={"code": -1021, "msg": "m"})
    (subscribe,) = many.frame(refusal, 72.0).actions
    assert sent(subscribe)["method"] == "userDataStream.subscribe.signature"


@pytest.mark.parametrize("kind", [SpotConnection, UsdmConnection, DeribitConnection])
def test_a_frame_that_cannot_be_read_is_not_kept_and_ends_the_connection(kind: type[PrivateConnection]) -> None:
    connection = made(kind, "a")
    connection.start(0.0)
    for torn in (payload("deribit/auth_answer")[:150], payload("spot/logon_answer")[:60], b"\xff\xfe", b""):
        assert connection.frame(torn, 1.0) == Received([Close("unreadable")])
