"""Binance USD-M: its private half in one place."""

from __future__ import annotations

from feedmill.exchanges.account_base import AccountRequest, AccountVenue
from feedmill.exchanges.binance_signed import ask_rights, judge, permissions, server_ms, sign
from feedmill.exchanges.binance_traded import traded
from feedmill.exchanges.binance_usdm.account_mapper import UsdmAccountMapper
from feedmill.exchanges.binance_usdm.account_rest import UsdmAccountRest
from feedmill.exchanges.binance_usdm.session import UsdmConnection

ACCOUNTS = AccountVenue(
    streams={"Production": "wss://fstream.binance.com", "Testnet": "wss://fstream.binancefuture.com"},
    connection=UsdmConnection,
    mapper=UsdmAccountMapper,
    reconcile=UsdmAccountRest,
    traded=traded,
    instruments=AccountRequest("instruments", "/fapi/v1/exchangeInfo", {}, 1, signed=False),
    time=AccountRequest("time", "/fapi/v1/time", {}, 1, signed=False),
    server_ms=server_ms,
    sign=sign,
    judge=judge,
    ask_rights=ask_rights,
    rights=permissions,
)
