"""Binance Spot: its private half in one place."""

from __future__ import annotations

from feedmill.exchanges.account_base import AccountRequest, AccountVenue
from feedmill.exchanges.binance_signed import ask_rights, judge, permissions, server_ms, sign
from feedmill.exchanges.binance_spot.account import TIME
from feedmill.exchanges.binance_spot.account_mapper import SpotAccountMapper
from feedmill.exchanges.binance_spot.account_rest import SpotAccountRest
from feedmill.exchanges.binance_spot.session import SpotConnection
from feedmill.exchanges.binance_traded import traded

ACCOUNTS = AccountVenue(
    streams={"Production": "wss://ws-api.binance.com:443", "Testnet": "wss://ws-api.testnet.binance.vision"},
    connection=SpotConnection,
    mapper=SpotAccountMapper,
    reconcile=SpotAccountRest,
    traded=traded,
    instruments=AccountRequest("instruments", "/api/v3/exchangeInfo", {}, 20, signed=False),
    time=TIME,
    server_ms=server_ms,
    sign=sign,
    judge=judge,
    ask_rights=ask_rights,
    rights=permissions,
)
