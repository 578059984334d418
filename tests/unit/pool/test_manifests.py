"""What /health says of each ExchangeAccount: a word for programs, a sentence for people, and no secret."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from feedmill.accounts.declared import Declared
from feedmill.accounts.hygiene import Level, Permissions, judge
from feedmill.accounts.store import MANIFEST, Account, Listed, Name
from feedmill.pool.held import Held
from feedmill.pool.manifests import LONGEST, MOST, manifests
from feedmill.pool.mounts import Mounts
from feedmill.shared.clock import SECOND

NOW = datetime(2026, 11, 26, tzinfo=UTC)
FUND = "ns/fund"


class Market:
    """Lines and a distributor, as far as an account's state hangs on them."""

    def __init__(self, *, ready: bool = False, refused: bool = False, gap: bool = False, problem: str = "") -> None:
        self.lines, self.distributor = self, self
        self._ready, self._refused, self._gap, self._problem = ready, refused, gap, problem

    def is_ready(self, _: str) -> bool:
        return self._ready

    def is_refused(self, _: str) -> bool:
        return self._refused

    def problem_of(self, _: str) -> str:
        return self._problem

    def has_gap(self, _: str) -> bool:
        return self._gap


def held(
    market: Market | None = None, *, name: str = "fund", account: dict[str, Any] | None = None, **more: Any
) -> Held:
    row = Account(
        1, Name("ns", name), "binance", "Spot", "Production", MANIFEST, {}, enabled=True, allow_withdraw=False,
        revision=1, verdict="unknown", verdict_detail="", key_expires_at=None, checked_at=None, created_at=NOW,
        updated_at=NOW,
    )  # fmt: skip
    made = Held(Listed(replace(row, **(account or {})), 0, None, removed=False), market)  # type: ignore[arg-type]
    for field, value in more.items():
        setattr(made, field, value)
    return made


async def mounts(folder: Path, files: dict[str, str] | None = None) -> Mounts:
    """Of an account ``ns/fund`` whose Secret has these files."""
    made = Mounts(folder, lambda: None, structlog.get_logger())
    made.declared = {FUND: Declared(Name("ns", "fund"), "binance", "Spot", "Production", "fund-key")}
    await change(made, folder, files or {"apiKey": "planted-key", "apiSecret": "planted-secret"})
    return made


async def change(made: Mounts, folder: Path, files: dict[str, str]) -> None:
    secret = folder / "fund-key"
    secret.mkdir(exist_ok=True)
    for path in secret.iterdir():
        path.unlink()
    for name, value in files.items():
        (secret / name).write_text(value)
    await made.look([FUND])


@pytest.mark.parametrize(
    ("one", "state", "reason"),
    [
        (held(Market(ready=True), given=True), "listening", ""),
        (held(Market(ready=True, gap=True), given=True), "reconciling", ""),
        (held(Market(problem="the connection ended"), given=True), "connecting", ""),
        (held(Market(refused=True, problem="-2015: wrong key"), given=True), "refused", "RefusedByVenue"),
        (held(Market()), "waiting", ""),
        (held(Market(), problem="the key may withdraw: take that right away", final=True), "refused", "MayWithdraw"),
        (held(Market(), problem="the key has expired", final=True), "refused", "RefusedByVenue"),
        (held(None, problem="accounts of it are not supported", final=True), "refused", "NotSupported"),
        (held(Market(), placeless="32 connections are all there are"), "refused", "ConnectionLimit"),
        (held(Market(), account={"enabled": False}), "disabled", ""),
    ],
)
async def test_a_state_and_its_reason(tmp_path: Path, one: Held, state: str, reason: str) -> None:
    (found,) = manifests({FUND: one}, {}, await mounts(tmp_path)).values()
    assert (found["state"], found["reason"]) == (state, reason)
    assert bool(found["message"]) is (state in ("refused", "connecting"))


@pytest.mark.parametrize(
    ("files", "state", "reason"),
    [
        ({"apiKey": "planted-key"}, "refused", "SecretInvalid"),
        ({"apiKey": "planted key", "apiSecret": "planted-secret"}, "refused", "SecretInvalid"),
        ({"other": "x"}, "waiting", "SecretMissing"),
    ],
)
async def test_secrets_that_cannot_be_used(tmp_path: Path, files: dict[str, str], state: str, reason: str) -> None:
    made = await mounts(tmp_path, files)
    why = made.error_of(FUND)
    (found,) = manifests({FUND: held(Market(), problem=why, final=True)}, {}, made).values()
    assert (found["state"], found["reason"]) == (state, reason)
    assert "spec.credentialsSecretRef" in found["message"]
    assert "planted" not in str(found)


async def test_a_changed_secret_that_cannot_be_used_is_a_warning_while_the_former_works(tmp_path: Path) -> None:
    made = await mounts(tmp_path)
    await change(made, tmp_path, {"apiKey": "planted-key"})
    (found,) = manifests({FUND: held(Market(ready=True), given=True)}, {}, made).values()
    assert found["state"] == "listening"
    assert found["warning"].startswith("the changed Secret cannot be used, the former keys stay in use: ")
    await change(made, tmp_path, {"apiKey": "planted-key", "apiSecret": "planted-new"})
    (found,) = manifests({FUND: held(Market(ready=True), given=True)}, {}, made).values()
    assert found["warning"] == ""


async def test_a_name_of_the_store_is_told_by_everybody_and_its_own_account_is_not_shown(tmp_path: Path) -> None:
    stored = held(Market(ready=True), given=True, account={"origin": "store"})
    other = held(Market(ready=True), given=True, name="other", account={"origin": "store"})
    found = manifests({FUND: stored, "ns/other": other}, {FUND: "the credential store has it"}, await mounts(tmp_path))
    assert found == {FUND: {"state": "refused", "reason": "NameTaken", "message": "the credential store has it"}}


async def test_what_is_known_of_a_key(tmp_path: Path) -> None:
    made = await mounts(tmp_path)
    flagged = judge(Permissions(read=True, withdraw=True), allow_withdraw=True, now_ns=0)
    for level, detail, warning in (
        (Level.OK, "", ""),
        (flagged.level, str(flagged), str(flagged)),
        (Level.UNKNOWN, "x", ""),
    ):
        one = held(Market(ready=True), given=True, account={"verdict": level.value, "verdict_detail": detail})
        (found,) = manifests({FUND: one}, {}, made).values()
        assert (found["key"], found["warning"]) == (level.value, warning)
    refused = judge(Permissions(read=True, withdraw=True), allow_withdraw=False, now_ns=0)
    (found,) = manifests({FUND: held(Market(), problem=str(refused), final=True)}, {}, made).values()
    assert found["reason"] == "MayWithdraw"


async def test_fills_and_bounds(tmp_path: Path) -> None:
    made = await mounts(tmp_path)
    moment = int(NOW.timestamp()) * SECOND + 123_456_789
    one = held(Market(problem="x" * 5000), given=True, last_fill_ns=moment)
    (found,) = manifests({FUND: one}, {}, made).values()
    assert found["lastFill"] == "2026-11-26T00:00:00Z"
    assert len(found["message"]) == LONGEST
    many = {f"ns/a{number}": one for number in range(MOST + 5)}
    assert len(manifests(many, {}, made)) == MOST
