"""Binance USD-M, private session: a listen key and the /private stream. Dossier section 7.

Life of a listen key: POST makes it (or gives the active one, extended), it is good for 60 minutes, PUT each 30 renews
it, PUT on one that ended says -1125 and it is made anew. A connection on a key that ended stays open and silent: only
``listenKeyExpired`` tells, or the answer to PUT. One that was never valid is not refused either, so what
happened before the first event is known by REST only. The key is a bearer credential: URLs are secret.
"""

from __future__ import annotations

import msgspec
from pydantic import SecretStr

from feedmill.exchanges.account_base import UNREADABLE, AccountRequest, AccountVerdict, Grant
from feedmill.exchanges.base import FrameKind
from feedmill.exchanges.reading import DECODE_ERRORS, map_error
from feedmill.exchanges.urls import join

RENEW_AFTER = 1800.0
"""Seconds; the key is good for twice that."""
CREATE = AccountRequest("listen_key", "/fapi/v1/listenKey", {}, 1, method="POST", signed=False)
RENEW = AccountRequest("listen_key", "/fapi/v1/listenKey", {}, 1, method="PUT", signed=False)
CLOSE = AccountRequest("listen_key", "/fapi/v1/listenKey", {}, 1, method="DELETE", signed=False)
"""Ends the key for every connection of the account: only for an account that is given up."""
_DATA = AccountVerdict(FrameKind.DATA, record=True)
_EXPIRED = AccountVerdict(FrameKind.DATA, ended=True)


class _ListenKey(msgspec.Struct, gc=False):
    listenKey: str


class _Event(msgspec.Struct, gc=False):
    e: str = ""


_key = msgspec.json.Decoder(_ListenKey)
_event = msgspec.json.Decoder(_Event)


def grant(body: bytes) -> Grant:
    """The answer to CREATE or RENEW. It may be another key than before: then connect with it. Raises MapError."""
    try:
        return Grant(SecretStr(_key.decode(body).listenKey), RENEW_AFTER)
    except DECODE_ERRORS as error:
        raise map_error(error) from None  # The cause would show the body in a traceback.


def url(base: str, listen_key: SecretStr) -> SecretStr:
    """The form without an envelope, whose frames do not carry the key."""
    return SecretStr(join(base, ("/private", "/ws", "/stream"), "/private/ws/" + listen_key.get_secret_value()))


def classify(payload: bytes) -> AccountVerdict:
    """Judge a frame. The notice of the key's end holds the key, so it is not recorded. Never raises."""
    try:
        if b"listenKey" in payload or _event.decode(payload).e == "listenKeyExpired":
            return _EXPIRED
    except DECODE_ERRORS:
        return UNREADABLE
    return _DATA
