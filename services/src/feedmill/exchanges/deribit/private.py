"""Deribit: its private half in one place."""

from __future__ import annotations

import msgspec

from feedmill.exchanges.account_base import AccountRequest, AccountVenue
from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.deribit.account import PLACES, TIME, ask_rights, judge, rights, server_ms, sign
from feedmill.exchanges.deribit.account_mapper import DeribitAccountMapper
from feedmill.exchanges.deribit.account_rest import DeribitAccountRest
from feedmill.exchanges.deribit.session import DeribitConnection
from feedmill.exchanges.reading import DECODE_ERRORS, map_error


class _Row(msgspec.Struct, gc=False):
    instrument_name: str
    settlement_currency: str = ""
    base_currency: str = ""
    quote_currency: str = ""


class _Answer(msgspec.Struct, gc=False):
    result: list[_Row]


_answer = msgspec.json.Decoder(_Answer)


def traded(body: bytes) -> dict[str, Traded]:
    """By name, which is the canonical symbol too. Raises MapError."""
    try:
        rows = _answer.decode(body).result
    except DECODE_ERRORS as error:
        raise map_error(error) from error
    return {
        row.instrument_name: Traded(
            row.instrument_name,
            (row.settlement_currency,) if row.settlement_currency else (row.base_currency, row.quote_currency),
        )
        for row in rows
    }


ACCOUNTS = AccountVenue(
    streams={"Production": "wss://www.deribit.com", "Testnet": "wss://test.deribit.com"},
    connection=DeribitConnection,
    mapper=DeribitAccountMapper,
    reconcile=DeribitAccountRest,
    traded=traded,
    instruments=AccountRequest(
        "instruments", "/public/get_instruments", {"currency": "any"}, 1, bucket="instruments", signed=False
    ),
    time=TIME,
    server_ms=server_ms,
    sign=sign,
    judge=judge,
    ask_rights=ask_rights,
    rights=rights,
    places=PLACES,
)
