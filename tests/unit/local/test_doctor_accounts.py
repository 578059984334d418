"""What doctor says of the keys of accounts, without asking an exchange that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.accounts.hygiene import Level, Verdict
from feedmill.local.doctor import accounts
from feedmill.local.doctor.check import Grade
from feedmill.resources.account import ExchangeAccount
from feedmill.resources.types import WithdrawPolicy

SECRET = "pl4nted-s3cret"
ACCOUNT = ExchangeAccount.model_validate(
    {
        "metadata": {"name": "mine"},
        "spec": {
            "pipelineRef": {"name": "main"},
            # Nobody listens there.
            "exchange": {"name": "binance", "market": "Spot", "endpoints": {"rest": "http://127.0.0.1:9"}},
            "credentialsSecretRef": {"name": "keys"},
        },
    }
)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "secrets" / "keys").mkdir(parents=True)
    for name, text in (("apiKey", "k" * 16), ("apiSecret", SECRET)):
        (tmp_path / "secrets" / "keys" / name).write_text(text)
    return tmp_path / "secrets"


async def test_without_the_folder_of_secrets_nothing_is_said_of_the_keys(tmp_path: Path) -> None:
    assert await accounts.checks([], None) == []
    (found,) = await accounts.checks([(ACCOUNT, WithdrawPolicy.REFUSE)], None)
    assert (found.grade, found.found) == (Grade.WARN, "those of default/mine were not looked at")
    (found,) = await accounts.checks([(ACCOUNT, WithdrawPolicy.REFUSE)], tmp_path / "nowhere")
    assert (found.grade, "there is no such folder" in found.found) == (Grade.FAIL, True)


async def test_secrets_that_are_missing_are_told(secrets: Path) -> None:
    (secrets / "keys" / "apiSecret").unlink()
    (found,) = await accounts.checks([(ACCOUNT, WithdrawPolicy.REFUSE)], secrets)
    assert (found.grade, found.what) == (Grade.FAIL, "account default/mine")
    assert found.found == "Secret 'keys': apiSecret is missing, or privateKey for an Ed25519 key"


async def test_an_exchange_that_does_not_answer_is_no_fault_of_the_key(secrets: Path) -> None:
    (found,) = await accounts.checks([(ACCOUNT, WithdrawPolicy.REFUSE)], secrets)
    assert found.grade is Grade.WARN
    assert "does not say what its key may do" in found.found
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    ("verdict", "grade", "remedy"),
    [
        (Verdict(Level.OK), Grade.OK, ""),
        (Verdict(Level.WARNING, ("bind it",)), Grade.WARN, "bind it"),
        (Verdict(Level.UNKNOWN, ("not said",)), Grade.WARN, "not said"),
        (Verdict(Level.REFUSED, ("it may withdraw", "bind it")), Grade.FAIL, "it may withdraw; bind it"),
    ],
)
def test_grades_of_verdicts(verdict: Verdict, grade: Grade, remedy: str) -> None:
    found = accounts._told("account default/mine", verdict)
    assert (found.grade, found.remedy) == (grade, remedy)


def test_the_file_of_key_encryption_keys(tmp_path: Path) -> None:
    kek = tmp_path / "kek"
    kek.write_text(f"new {bytes(range(32)).hex()}\nold {bytes(range(1, 33)).hex()}\n")
    found = accounts.keys(kek)
    assert (found.grade, found.found) == (Grade.OK, "new wraps, 1 other still opens")
    kek.write_text(f"new {SECRET}\n")
    found = accounts.keys(kek)
    assert found.grade is Grade.FAIL
    assert "line 1: the key is not 32 bytes" in found.found
    assert SECRET not in str(found)
