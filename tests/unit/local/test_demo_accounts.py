"""The demonstration's accounts: keys, the command that adds them, how they are shown, what the verdict says of them."""

from __future__ import annotations

import io
import json
from decimal import Decimal as D
from pathlib import Path

import pytest
from rich.console import Console

from feedmill.accounts.keyring import KeyFile
from feedmill.local.demo import accounts
from feedmill.local.demo.account_figures import AccountFigures, AccountsSeen, OrderChange
from feedmill.local.demo.account_view import amount, panel, plain_lines
from feedmill.local.demo.result import Result, table, words
from feedmill.local.errors import ManagerError
from feedmill.simulator.report import Report, VenueReport

KEYS = {
    "binance/Spot": {
        "stream": "ws://127.0.0.1:1", "rest": "http://127.0.0.1:1",
        "accounts": [
            {"account": "binance-spot-0001", "type": "hmac", "apiKey": "HMACID", "apiSecret": "HMACSECRET"},
            {"account": "binance-spot-0001", "type": "ed25519", "apiKey": "EDID", "privateKey": "PEMTEXT"},
        ],
    },
    "deribit/Derivatives": {
        "stream": "ws://127.0.0.1:2", "rest": "http://127.0.0.1:2",
        "accounts": [
            {"account": "deribit-derivatives-0001", "type": "hmac", "apiKey": "CLIENT", "apiSecret": "CLIENTSECRET"}
        ],
    },
}  # fmt: skip


def figures() -> list[AccountFigures]:
    orders = {"new": 4, "partially_filled": 2, "filled": 1080, "cancelled": 31, "expired": 17}
    held = {"BNB": D("4.99"), "BTC": D("1.002134"), "USDT": D("148213.550000")}
    spot = AccountFigures("binance-spot-0001", "binance/Spot", orders, 412, 2190, held, 2, 0, 5)
    return [spot, AccountFigures("deribit-derivatives-0001", "deribit/Derivatives", gaps=1, gaps_open=1)]


def seen() -> AccountsSeen:
    change = OrderChange(
        "deribit", "12:00:01", "BTC_USDC-PERPETUAL", 2, "limit", D("50123.5"), D("0.0200"), D("0.01"),
        "partially_filled",
    )  # fmt: skip
    return AccountsSeen(figures(), [change] * 6)


def test_keys_are_taken_once_and_show_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KEYS))
    spot, deribit = accounts.take_keys(path)
    assert not path.exists()
    assert (spot.key, spot.venue, dict(spot.secrets)) == (
        "default/binance-spot-0001", "binance/Spot", {"apiKey": "EDID", "privateKey": "PEMTEXT"},
    )  # fmt: skip
    assert dict(deribit.secrets) == {"apiKey": "CLIENT", "apiSecret": "CLIENTSECRET"}
    for account in (spot, deribit):
        shown = repr(account) + " ".join(accounts.add_command(account, tmp_path / "kek", tmp_path))
        assert not any(secret in shown for secret in account.secrets.values())
    with pytest.raises(ManagerError, match="wrote no keys"):
        accounts.take_keys(path)


def test_the_kek_is_private_and_usable(tmp_path: Path) -> None:
    accounts.make_kek(tmp_path / "kek")
    assert (tmp_path / "kek").stat().st_mode & 0o777 == 0o600
    first = KeyFile(tmp_path / "kek").ring()
    accounts.make_kek(tmp_path / "kek")
    second = KeyFile(tmp_path / "kek").ring()
    assert first.current == second.current == "demo"
    assert first.key("demo") != second.key("demo")


async def test_a_command_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ADD_TIMEOUT", 200.0)  # A busy machine takes long to start a program.
    account = accounts.DemoAccount("main", "binance/Spot", "ws://h", "http://h", {"apiKey": "K", "apiSecret": "S"})
    with pytest.raises(ManagerError, match=r"feedmill accounts add main failed: .*kek"):
        await accounts.add_all([account], tmp_path / "kek", tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0"), ("100", "100"), ("1.50", "1.5"), ("12345.678900001", "12,345.6789"), ("-0.1", "-0.1")],
)
def test_amounts(value: str, text: str) -> None:
    assert amount(D(value)) == text


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_fits_a_terminal(width: int) -> None:
    shown = panel(seen())
    assert shown is not None
    stream = io.StringIO()
    Console(file=stream, width=width).print(shown)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in stream.getvalue()
    # orders, open, in parts, filled, cancelled or ended by the venue, fills, gaps
    assert next(line.split() for line in lines if line.startswith("binance")) == [
        "binance-spot-0001", "1,134", "6", "412", "1,080", "48", "2,190", "0/2",
    ]  # fmt: skip
    assert "binance holds 4.99 BNB, 1.0021 BTC, 148,213.55 USDT" in lines
    assert lines[-1] == "12:00:01 deribit BTC_USDC-PERPETUAL sell 0.01/0.02 at 50,123.5  partly filled"
    assert panel(AccountsSeen()) is None


def test_plain_lines() -> None:
    spot, deribit = plain_lines(seen())
    assert spot == (
        "binance-spot-0001: 1,134 orders, 412 in parts, 2,190 fills; "
        "6 open, 1,080 filled, 31 cancelled, 17 expired; holds 4.99 BNB, 1.002134 BTC, 148,213.55 USDT"
    )
    assert deribit.startswith("deribit-derivatives-0001 (asking for what was missed): 0 orders")
    assert not figures()[1].flowing


def result() -> Result:
    venue = VenueReport("binance/Spot")
    venue.accounts.emitted = venue.accounts.known = 1
    fills = venue.accounts.flows["fills"]
    fills.emitted = fills.stored = 2190
    return Result(Report([venue]), accounts=figures()[:1])


def test_the_verdict_counts_accounts() -> None:
    found = result()
    assert found.ok
    rows = [row.plain for row in table(found)]
    assert next(row.split() for row in rows if "fills" in row) == ["fills", "2,190", "2,190", "0", "0", "0", "0"]
    assert not any("positions" in row for row in rows), "where there are none they are left out"
    assert all(len(line) <= 80 for line in (*rows, *words(found)))
    assert any(
        line == "  binance-spot-0001: 1,134 orders, 412 in parts, 2,190 fills; 2 gaps closed" for line in words(found)
    )

    fills = found.report.venues[0].accounts.flows["fills"]
    fills.lost = 1
    assert not found.ok
    fills.lost = 0
    found.report.venues[0].accounts.half_filled = 1
    assert not found.ok
    assert any(row.plain.split() == ["orders", "0", "0", "0", "0", "0", "1"] for row in table(found))


def test_an_account_that_was_not_compared_is_a_bad_verdict() -> None:
    found = result()
    found.report.venues[0].accounts.known = 0
    assert not found.ok
    assert "  binance/Spot: 1 accounts of the exchange are not in the database" in words(found)
