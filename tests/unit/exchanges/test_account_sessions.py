"""Log-on, signatures and refusals of the private halves; no secret shows in what they make."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from feedmill.accounts.hygiene import Level, Permissions
from feedmill.accounts.hygiene import judge as judge_key
from feedmill.exchanges import binance_signed
from feedmill.exchanges.account_base import AccountRequest, Credentials, Mend, Rejection
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.account_signing import ed25519_base64, hmac_hex, signature
from feedmill.exchanges.base import FrameKind, MapError
from feedmill.exchanges.binance_spot import account as spot
from feedmill.exchanges.binance_traded import traded
from feedmill.exchanges.binance_usdm import account as usdm
from feedmill.exchanges.deribit import account as deribit
from feedmill.exchanges.deribit.private import traded as deribit_traded
from feedmill.exchanges.registry import get_venue

FOLDER = Path(__file__).parent / "account_payloads"
NOW_MS = 1_747_385_641_636
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
KEY, SECRET = "PlantedApiKey0123456789", "PlantedSecret0123456789"
HMAC = Credentials(SecretStr(KEY), SecretStr(SECRET))
EDWARDS = Credentials.of({"apiKey": SecretStr(KEY), "privateKey": SecretStr(PEM)})


def payload(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes().strip()


# -- signatures


@pytest.mark.parametrize(
    ("secret", "text", "expected"),
    [
        (
            "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j",
            "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000"
            "&timestamp=1499827319559",
            "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71",
        ),
        (
            "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9",
            "symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=9000&timeInForce=GTC&recvWindow=5000"
            "&timestamp=1591702613943",
            "3c661234138461fcc7a7d8746c6558c9842d4e10870d2ecbedf7777cad694af9",
        ),
        (
            "AMANDASECRECT",
            "1576074319000\n1iqt2wls\n",
            "56590594f97921b09b18f166befe0d1319b198bbcdad7ca73382de2f88fe9aa1",
        ),
    ],
    ids=["spot", "usdm", "deribit"],
)
def test_the_venues_own_vectors(secret: str, text: str, expected: str) -> None:
    assert hmac_hex(SecretStr(secret), text) == expected


def test_deribits_log_on_is_the_vector_of_its_documents() -> None:
    message = deribit.logon(Credentials(SecretStr("AMANDA"), SecretStr("AMANDASECRECT")), 9, 1576074319000, "1iqt2wls")
    body = json.loads(message.payload)
    assert body["params"]["signature"] == "56590594f97921b09b18f166befe0d1319b198bbcdad7ca73382de2f88fe9aa1"
    assert body["params"]["scope"] == "account:read trade:read wallet:read"
    assert (body["id"], body["method"], body["params"]["grant_type"]) == (9, "public/auth", "client_signature")
    assert "AMANDASECRECT" not in message.payload.decode(), "the secret itself is never sent"


@given(st.text(max_size=50))
def test_ed25519_is_verified_by_the_public_key(text: str) -> None:
    made = ed25519_base64(SecretStr(PEM), text)
    PRIVATE.public_key().verify(base64.b64decode(made, validate=True), text.encode())
    assert signature(EDWARDS, text) == made
    assert signature(HMAC, text) == hmac_hex(SecretStr(SECRET), text)


@pytest.mark.parametrize("text", ["", "nonsense", PEM.replace("MC4", "MC5")])
def test_a_key_that_cannot_be_read_is_said_without_it(text: str) -> None:
    with pytest.raises(ValueError, match="privateKey is not") as error:
        ed25519_base64(SecretStr(text), "x")
    assert error.value.__cause__ is None
    assert "MC5" not in str(error.value)
    with pytest.raises(ValueError, match="neither apiSecret nor privateKey"):
        signature(Credentials(SecretStr(KEY)), "x")


def test_rest_is_percent_encoded_then_signed_with_the_signature_last() -> None:
    request = AccountRequest("fills", "/api/v3/myTrades", {"symbol": "测试USDT", "fromId": "7"}, 20)
    for credentials in (HMAC, EDWARDS):
        signed = binance_signed.sign("https://api.example", request, credentials, NOW_MS)
        query, _, tail = urlsplit(signed.url.get_secret_value()).query.rpartition("&signature=")
        assert query == (
            f"symbol=%E6%B5%8B%E8%AF%95USDT&fromId=7&recvWindow={binance_signed.RECV_WINDOW_MS}&timestamp={NOW_MS}"
        )
        assert unquote(tail) == signature(credentials, query)
        assert "+" not in tail
        assert "/" not in tail
        assert signed.headers == {"X-MBX-APIKEY": KEY}
    unsigned = binance_signed.sign("https://f.example", usdm.CREATE, HMAC, NOW_MS)
    assert (unsigned.method, unsigned.url.get_secret_value()) == ("POST", "https://f.example/fapi/v1/listenKey")


def test_spots_calls_are_signed_over_their_sorted_parameters() -> None:
    text = f"apiKey={KEY}&recvWindow=5000&timestamp={NOW_MS}"
    for message, method, credentials in (
        (spot.subscribe(HMAC, 3, NOW_MS), "userDataStream.subscribe.signature", HMAC),
        (spot.logon(EDWARDS, 3, NOW_MS), "session.logon", EDWARDS),
    ):
        body = json.loads(message.payload)
        assert (body["id"], body["method"]) == (3, method)
        assert body["params"]["signature"] == signature(credentials, text)
    assert json.loads(spot.subscribe_logged_on(4).payload) == {"id": 4, "method": "userDataStream.subscribe"}
    assert json.loads(spot.unsubscribe(5, 7).payload)["params"] == {"subscriptionId": 7}


def test_deribits_rest_is_signed_over_method_uri_and_body() -> None:
    request = AccountRequest("positions", "/private/get_positions", {"currency": "any"}, 1)
    signed = deribit.sign("https://www.example", request, HMAC, NOW_MS, "n0nce")
    assert signed.url.get_secret_value() == "https://www.example/api/v2/private/get_positions?currency=any"
    text = f"{NOW_MS}\nn0nce\nGET\n/api/v2/private/get_positions?currency=any\n\n"
    made = hmac_hex(SecretStr(SECRET), text)
    assert signed.headers["Authorization"] == f"deri-hmac-sha256 id={KEY},ts={NOW_MS},nonce=n0nce,sig={made}"
    with pytest.raises(ValueError, match="no apiSecret"):
        deribit.sign("https://www.example", request, EDWARDS, NOW_MS, "n0nce")


def test_no_secret_in_what_is_shown_of_messages_requests_and_grants() -> None:
    granted = deribit.classify(payload("deribit/auth_answer")).grant
    assert granted is not None
    listen_key = usdm.grant(payload("usdm/listen_key"))
    shown = [
        HMAC, EDWARDS, spot.logon(EDWARDS, 1, NOW_MS), spot.subscribe(HMAC, 1, NOW_MS), granted, listen_key,
        deribit.logon(HMAC, 1, NOW_MS, "n"), deribit.refresh(granted, 2), usdm.url("wss://x", listen_key.token),
        binance_signed.sign("https://x", AccountRequest("a", "/a", {}, 1), HMAC, NOW_MS),
        deribit.sign("https://x", AccountRequest("a", "/a", {}, 1), HMAC, NOW_MS, "n"),
        deribit.ask_rights("https://x", HMAC, NOW_MS, "n"), binance_signed.ask_rights("https://x", HMAC, NOW_MS, ""),
        deribit.classify(payload("deribit/auth_answer")), spot.classify(payload("spot/logon_answer")),
        usdm.classify(payload("usdm/listen_key_expired")),
    ]  # fmt: skip
    planted = [
        KEY, SECRET, "MC4CAQ", "1582628593469", "pqia91ma19a5s61cv6a8", "vmPUZE6mv9", "WsCMN0a4KH",
        hmac_hex(SecretStr(SECRET), f"apiKey={KEY}&recvWindow=5000&timestamp={NOW_MS}"),
    ]  # fmt: skip
    text = " ".join(f"{each!r} {each}" for each in shown)
    assert len(text) > 1000
    assert [secret for secret in planted if secret in text] == []


# -- what frames are


@pytest.mark.parametrize(
    ("name", "kind", "record", "fields"),
    [
        ("spot/trade", FrameKind.DATA, True, {"subscription": 3}),
        ("spot/terminated", FrameKind.DATA, True, {"subscription": 7, "ended": True}),
        ("spot/shutdown", FrameKind.SHUTDOWN, True, {}),
        ("spot/logon_answer", FrameKind.ACK, False, {"request_id": 1}),
        ("spot/subscribed_answer", FrameKind.ACK, False, {"request_id": 2, "subscription": 5}),
        ("spot/banned_answer", FrameKind.ERROR, False, {"request_id": 9}),
        ("spot/revoked", FrameKind.ERROR, False, {"request_id": None, "ended": True}),
        ("usdm/trade", FrameKind.DATA, True, {}),
        ("usdm/listen_key_expired", FrameKind.DATA, False, {"ended": True}),
        ("deribit/changes", FrameKind.DATA, True, {}),
        ("deribit/auth_answer", FrameKind.ACK, False, {"request_id": 3}),
        ("deribit/subscribed_answer", FrameKind.ACK, False, {"accepted": frozenset(deribit.CHANNELS)}),
        ("deribit/unauthorized", FrameKind.ERROR, False, {"request_id": 5}),
        ("deribit/test_request", FrameKind.HEARTBEAT, False, {}),
    ],
)
def test_frames(name: str, kind: FrameKind, record: bool, fields: dict[str, Any]) -> None:
    venue = {"spot": spot, "usdm": usdm, "deribit": deribit}[name.partition("/")[0]]
    verdict = venue.classify(payload(name))
    assert (verdict.kind, verdict.record) == (kind, record)
    assert {field: getattr(verdict, field) for field in fields} == fields


@given(st.binary(max_size=60))
def test_junk_is_not_recorded_and_nothing_is_raised(junk: bytes) -> None:
    """It may be a torn answer to a log-on."""
    for venue in (spot, usdm, deribit):
        verdict = venue.classify(b"\x00" + junk)
        assert (verdict.kind, verdict.record) == (FrameKind.DATA, False)
        assert verdict.ended == (venue is usdm and b"listenKey" in junk)


def test_a_test_request_is_answered() -> None:
    reply = deribit.classify(payload("deribit/test_request")).reply
    assert reply is not None
    assert json.loads(reply)["method"] == "public/test"
    echoed = b'{"jsonrpc":"2.0","id":"test","result":{"version":"1.2.26"}}'
    assert deribit.classify(echoed).kind is FrameKind.HEARTBEAT


def test_the_grants_of_a_time() -> None:
    listen_key = usdm.grant(payload("usdm/listen_key"))
    assert listen_key.renew_after == 1800
    secret = listen_key.token.get_secret_value()
    assert usdm.url("wss://fstream.binance.com/private", listen_key.token).get_secret_value() == (
        f"wss://fstream.binance.com/private/ws/{secret}"
    )
    with pytest.raises(MapError):
        usdm.grant(b'{"code":-1,"msg":"x"}')
    granted = deribit.classify(payload("deribit/auth_answer")).grant
    assert granted is not None
    assert granted.renew_after == 300
    renewal = json.loads(deribit.refresh(granted, 8).payload)["params"]
    assert renewal == {"grant_type": "refresh_token", "refresh_token": "1582628593469.1GP4rQd0.A9Wa78o5kFRIUP49mScaD1"}
    with pytest.raises(ValueError, match="no refresh token"):
        deribit.refresh(listen_key, 1)


# -- refusals


def of_spot(code: int, status: int = 400, message: str = "x") -> Rejection:
    frame = {"id": 1, "status": status, "error": {"code": code, "msg": message}}
    found = spot.classify(json.dumps(frame).encode()).rejection
    body = binance_signed.judge(status, {}, json.dumps({"code": code, "msg": message}).encode())
    assert found == body, "the same over both ways"
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("code", "status", "mend"),
    [
        (-2015, 401, Mend.USER), (-2014, 401, Mend.USER), (-1022, 400, Mend.USER), (-4056, 400, Mend.USER),
        (-1021, 400, Mend.CLOCK), (-1003, 429, Mend.RETRY), (-1003, 418, Mend.RETRY), (-1001, 500, Mend.RETRY),
        (-1008, 503, Mend.RETRY), (0, 502, Mend.RETRY), (0, 403, Mend.RETRY), (-1125, 400, Mend.RENEW),
        (-2035, 400, Mend.DONE), (-2036, 400, Mend.RENEW), (-2042, 400, Mend.RECONNECT), (-1121, 400, Mend.REFUSED),
        (-9999, 401, Mend.USER), (-9999, 400, Mend.REFUSED),
    ],
)  # fmt: skip
def test_what_helps_against_binances_refusals(code: int, status: int, mend: Mend) -> None:
    assert of_spot(code, status).mend is mend


def test_how_long_to_stay_away() -> None:
    banned = spot.classify(payload("spot/banned_answer")).rejection
    assert banned is not None
    assert (banned.mend, banned.wait) == (Mend.RETRY, pytest.approx(3492.469))
    told = binance_signed.judge(429, {"Retry-After": "17"}, b"<html>")
    assert told is not None
    assert (told.mend, told.wait) == (Mend.RETRY, 17.0)
    assert of_spot(-1003, 429).wait == 60.0
    assert binance_signed.judge(200, {}, b"[]") is None


@pytest.mark.parametrize(
    ("code", "mend", "over_http"),
    [
        (13004, Mend.CLOCK, Mend.CLOCK), (13009, Mend.RENEW, Mend.RENEW), (10000, Mend.RENEW, Mend.RENEW),
        (13021, Mend.USER, Mend.USER), (10028, Mend.RECONNECT, Mend.RETRY), (10040, Mend.RETRY, Mend.RETRY),
        (11051, Mend.RETRY, Mend.RETRY), (-32602, Mend.REFUSED, Mend.REFUSED), (10004, Mend.REFUSED, Mend.REFUSED),
    ],
)  # fmt: skip
def test_what_helps_against_deribits_refusals(code: int, mend: Mend, over_http: Mend) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "m"}}).encode()
    verdict = deribit.classify(body)
    assert verdict.rejection is not None
    assert verdict.rejection.mend is mend
    assert verdict.ended == (code == 10028)
    judged = deribit.judge(400, {}, body)
    assert judged is not None
    assert judged.mend is over_http


def test_a_wrong_time_and_a_wrong_secret_have_one_code_so_the_clock_is_looked_at_first() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":13004,"message":"invalid_credentials"}}'
    checked = deribit.classify(body, clock_checked=True).rejection
    assert checked is not None
    assert checked.mend is Mend.USER
    assert "rotate-key" in checked.text
    assert deribit.server_ms(b'{"jsonrpc":"2.0","result":1550147385946}') == 1550147385946
    judged = deribit.judge(429, {"Retry-After": "3"}, b"too many")
    assert judged is not None
    assert (judged.mend, judged.wait) == (Mend.RETRY, 3.0)
    assert deribit.judge(200, {}, b"{}") is None


def test_a_venues_message_is_kept_without_what_may_be_a_key() -> None:
    told = of_spot(-1100, message=f"Illegal characters found in parameter 'apiKey'; value '{KEY}{SECRET}' is odd.")
    assert KEY not in str(told)
    assert str(told) == "-1100: Illegal characters found in parameter 'apiKey'; value '...' is odd."


# -- permissions


def test_what_a_binance_key_may_do() -> None:
    body = {
        "ipRestrict": False, "createTime": 1, "enableReading": True, "enableWithdrawals": True,
        "enableInternalTransfer": False, "permitsUniversalTransfer": True, "enableSpotAndMarginTrading": False,
        "enableFutures": True, "tradingAuthorityExpirationTime": 1628985600000,
    }  # fmt: skip
    found = binance_signed.permissions(json.dumps(body).encode())
    assert found == Permissions(
        read=True, trade=True, withdraw=True, transfer=True, ip_bound=False, expires_ns=1_628_985_600_000_000_000
    )
    verdict = judge_key(found, allow_withdraw=False, now_ns=0)
    assert verdict.level is Level.REFUSED
    reading = binance_signed.permissions(b'{"ipRestrict":true,"enableReading":true,"enableWithdrawals":false}')
    assert judge_key(reading, allow_withdraw=False, now_ns=0).level is Level.OK
    assert binance_signed.permissions(b"{}").withdraw is None, "what it does not say is not known"
    with pytest.raises(MapError):
        binance_signed.permissions(b"<html>")


def test_what_a_deribit_key_may_do_is_asked_for_by_a_log_on_without_scope() -> None:
    message = deribit.logon(HMAC, 1, NOW_MS, "n", scope="")
    assert "scope" not in json.loads(message.payload)["params"]
    found = deribit.rights(payload("deribit/auth_answer"))
    assert found == Permissions(read=True, trade=False, withdraw=False, ip_bound=None)
    with pytest.raises(MapError):
        deribit.rights(payload("deribit/unauthorized"))
    asked = deribit.ask_rights("https://www.example/api/v2", HMAC, NOW_MS, "n")
    assert (asked.method, asked.url.get_secret_value()) == ("POST", "https://www.example/api/v2/public/auth")
    assert asked.body == message.payload


def test_urls_take_bases_as_people_write_them() -> None:
    assert spot.url("wss://ws-api.binance.com:443") == "wss://ws-api.binance.com:443/ws-api/v3?returnRateLimits=false"
    assert spot.url("ws://127.0.0.1:9/ws-api/v3/") == "ws://127.0.0.1:9/ws-api/v3?returnRateLimits=false"
    assert deribit.url("wss://www.deribit.com") == "wss://www.deribit.com/ws/api/v2"


def test_a_key_for_usd_m_is_asked_about_at_spots_address() -> None:
    for base, host in (("https://fapi.binance.com/", "api.binance.com"), ("http://127.0.0.1:9/fapi", "127.0.0.1:9")):
        asked = binance_signed.ask_rights(base, HMAC, NOW_MS, "")
        parts = urlsplit(asked.url.get_secret_value())
        assert (parts.netloc, parts.path) == (host, "/sapi/v1/account/apiRestrictions")


def test_every_venue_has_its_private_half() -> None:
    for exchange, market, environment_host in (
        ("binance", "Spot", "ws-api.binance.com:443"),
        ("binance", "UsdM", "fstream.binance.com"),
        ("deribit", "Derivatives", "www.deribit.com"),
    ):
        venue = get_venue(exchange, market)
        assert venue.accounts is not None
        assert set(venue.accounts.streams) == set(venue.endpoints)
        assert urlsplit(venue.accounts.streams["Production"]).netloc == environment_host


def test_the_instruments_of_an_account_are_all_of_the_market() -> None:
    rows = [
        {"symbol": "ETHBTC", "baseAsset": "ETH", "quoteAsset": "BTC"},
        {"symbol": "BTCUSDT_260925", "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT"},
    ]
    assert traded(json.dumps({"symbols": rows}).encode()) == {
        "ETH-BTC": Traded("ETHBTC", ("ETH", "BTC")),
        "BTC-USDT-260925": Traded("BTCUSDT_260925", ("USDT",)),
    }
    listed = [
        {
            "instrument_name": "BTC-PERPETUAL",
            "settlement_currency": "BTC",
            "base_currency": "BTC",
            "quote_currency": "USD",
        },
        {"instrument_name": "ETH_USDC", "base_currency": "ETH", "quote_currency": "USDC"},
    ]
    assert deribit_traded(json.dumps({"result": listed}).encode()) == {
        "BTC-PERPETUAL": Traded("BTC-PERPETUAL", ("BTC",)),
        "ETH_USDC": Traded("ETH_USDC", ("ETH", "USDC")),
    }
    for read in (traded, deribit_traded):
        with pytest.raises(MapError):
            read(b"{}")
