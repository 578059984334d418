"""``feedmill accounts`` on a real PostgreSQL: what is stored, what is shown, what is logged, and no secret anywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets as random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.hygiene import Permissions, judge
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.sealing import SealError
from feedmill.accounts.store import AccountError, Name
from feedmill.cli import account_secrets
from feedmill.cli.main import app
from feedmill.cli.migrate import migrate_sync

KEY, SECRET = "planted-api-key-41", "planted-api-secret-42"
BINANCE = ("--exchange", "binance", "--market", "Spot", "--no-check")
TEXT = f"apiKey={KEY}\napiSecret={SECRET}\n"


def kek_line(name: str) -> str:
    return f"{name} {base64.b64encode(random.token_bytes(32)).decode()}\n"


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    file = tmp_path / "kek"
    file.write_text(kek_line("k1"))
    return file


Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, database_url: str, kek: Path) -> Run:
    migrate_sync(database_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("FEEDMILL_KEK_FILE", str(kek))
    runner = CliRunner()

    def invoke(*arguments: str, given: str | None = None, code: int = 0) -> str:
        result = runner.invoke(app, ["accounts", *arguments], input=given)
        assert result.exit_code == code, result.output
        assert "planted" not in result.output
        return str(result.output)

    return invoke


def ask(url: str, statement: str) -> list[Any]:
    async def asked() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return asyncio.run(asked())


def opened(url: str, kek: Path, name: str = "main") -> dict[str, str]:
    async def get() -> dict[str, str]:
        connection = await asyncpg.connect(url)
        try:
            account = await store.get(connection, Name.parse(name))
            found = await store.open_secrets(connection, KeyFile(kek).ring(), account, Who("test", "here"), "a test")
        finally:
            await connection.close()
        return {field: secret.get_secret_value() for field, secret in found.items()}

    return asyncio.run(get())


def everything(url: str) -> str:
    """All rows of all tables as text, ciphertext as hex."""
    tables = [row[0] for row in ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    return "\n".join(str(row) for table in tables for row in ask(url, f"SELECT t::text FROM {table} t"))


def test_the_life_of_an_account(run: Run, database_url: str, kek: Path) -> None:
    assert run("list") == "no accounts: feedmill accounts add makes one\n"
    assert run("add", "main", *BINANCE, "--secret-file", "-", given=TEXT) == (
        "added default/main: binance/Spot/Production, enabled\n"
    )
    assert opened(database_url, kek) == {"apiKey": KEY, "apiSecret": SECRET}
    assert "planted" not in everything(database_url)
    [account] = json.loads(run("list", "-o", "json"))["accounts"]
    assert (account["name"], account["enabled"], account["key"]["verdict"]) == ("default/main", True, "unknown")
    assert "binance/Spot/Production" in run("list")

    newer = run("rotate-key", "main", "--no-check", "-o", "json", "--secret-file", "-", given=TEXT.replace("4", "5"))
    assert json.loads(newer) == {"name": "default/main", "version": 2}
    assert opened(database_url, kek)["apiKey"] == KEY.replace("4", "5")
    assert [row["version"] for row in ask(database_url, "SELECT version FROM credentials")] == [2, 2]

    assert run("disable", "main") == "default/main: disabled\n"
    assert run("disable", "default/main") == "default/main: was disabled already\n"
    assert run("enable", "main") == "default/main: enabled\n"
    shown = json.loads(run("show", "main", "-o", "json"))
    assert [item["field"] for item in shown["secrets"]] == ["apiKey", "apiSecret"]
    assert {item["wrappedBy"] for item in shown["secrets"]} == {"k1"}
    assert "apiSecret: version 2 of" in run("show", "main")
    assert "say --yes" in run("remove", "main", code=2)
    assert run("remove", "main", "--yes") == "default/main: removed\n"
    assert ask(database_url, "SELECT 1 FROM credentials") == []
    run("show", "main", code=2)
    run("add", "main", *BINANCE, "--secret-file", "-", given=TEXT)
    assert [row[0] for row in ask(database_url, "SELECT id FROM accounts ORDER BY id")] == [1, 2]

    log = ask(database_url, "SELECT * FROM audit_log ORDER BY id")
    assert [row["action"] for row in log] == [
        "add", "store-key", "use", "rotate-key", "use", "disable", "enable", "remove", "add", "store-key",
    ]  # fmt: skip
    assert {row["account"] for row in log} == {"default/main"}
    assert all(row["actor"] and row["place"] for row in log)
    assert json.loads(log[2]["detail"]) == {"purpose": "a test", "version": 1}


def test_a_changed_kek_and_rewrap(run: Run, database_url: str, kek: Path) -> None:
    old = kek.read_text()
    for number in range(3):
        run("add", f"a{number}", *BINANCE, "--secret-file", "-", given=TEXT)
    kek.write_text(kek_line("k2") + old)
    before = ask(database_url, "SELECT ciphertext FROM credentials ORDER BY account_id, field")
    assert json.loads(run("rewrap", "-o", "json")) | {"at": ""} == {
        "key": "k2", "wrapped": 6, "current": 0, "failed": [], "at": "",
    }  # fmt: skip
    assert "were so already: 6" in run("rewrap")
    assert ask(database_url, "SELECT ciphertext FROM credentials ORDER BY account_id, field") == before
    kek.write_text(kek.read_text().splitlines(keepends=True)[0])
    assert opened(database_url, kek, "a1") == {"apiKey": KEY, "apiSecret": SECRET}
    # The old key is of no use any more.
    kek.write_text(old)
    with pytest.raises(SealError, match="wrapped by key 'k2', the key file holds k1"):
        opened(database_url, kek, "a1")
    failed = run("rewrap", code=1)
    assert failed.count("put that key back") == 6
    assert ask(database_url, "SELECT count(*) FROM audit_log WHERE action = 'use-failed'")[0][0] == 1


def test_a_row_that_was_changed_in_the_database(run: Run, database_url: str, kek: Path) -> None:
    run("add", "one", *BINANCE, "--secret-file", "-", given=TEXT)
    run("add", "two", *BINANCE, "--secret-file", "-", given=TEXT.replace("4", "5"))
    ask(
        database_url,
        "UPDATE credentials c SET ciphertext = o.ciphertext, wrapped_key = o.wrapped_key FROM credentials o "
        "WHERE o.field = c.field AND c.account_id = 1 AND o.account_id = 2 RETURNING 1",
    )
    with pytest.raises(SealError, match="changed or moved") as caught:
        opened(database_url, kek, "one")
    assert "planted" not in str(caught.value)
    # Nor are they given to another venue than they were stored for.
    ask(database_url, "UPDATE accounts SET market = 'UsdM' WHERE id = 2 RETURNING 1")
    with pytest.raises(SealError, match="changed or moved"):
        opened(database_url, kek, "two")


def test_secrets_from_a_folder_and_from_the_prompt(
    run: Run, database_url: str, kek: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    folder = tmp_path / "mounted"
    folder.mkdir()
    (folder / "apiKey").write_text(KEY + "\n")
    (folder / "privateKey").write_text(pem)
    run("add", "main", *BINANCE, "--secret-file", str(folder))
    assert opened(database_url, kek) == {"apiKey": KEY, "privateKey": pem.rstrip("\n")}

    asked: list[str] = []
    monkeypatch.setattr(account_secrets, "sys", type("T", (), {"stdin": type("I", (), {"isatty": lambda: True})}))
    monkeypatch.setattr(account_secrets.getpass, "getpass", lambda prompt: asked.append(prompt) or prompt + KEY)
    with pytest.raises(AssertionError, match="white space"):
        run("add", "typed", *BINANCE)
    assert asked == ["apiKey: ", "apiSecret: "]
    monkeypatch.setattr(account_secrets.getpass, "getpass", lambda prompt: KEY)
    run("add", "typed", *BINANCE)
    assert opened(database_url, kek, "typed") == {"apiKey": KEY, "apiSecret": KEY}


@pytest.mark.parametrize(("arguments", "given", "message"), [
    (("add", "Main", *BINANCE), TEXT, "write NAME or NAMESPACE/NAME in lower-case"),
    (("add", "main", "--exchange", "binnance", "--market", "Spot"), TEXT, "binnance"),
    (("add", "main", *BINANCE, "--rest-endpoint", "ftp://x"), TEXT, "--rest-endpoint: is not a URL"),
    (("add", "main", *BINANCE), "", "apiKey is missing"),
    (("add", "main", *BINANCE), "apiKey=planted-one", "apiSecret is missing, or privateKey for an Ed25519 key"),
    (("add", "main", *BINANCE), TEXT + "privateKey=planted", "both given"),
    (("add", "main", *BINANCE), "apiKey=planted-one\nprivateKey=planted", "privateKey cannot be read"),
    (("add", "main", *BINANCE), "planted-value-alone", "line 1: does not begin with a known name"),
    (("add", "main", *BINANCE), TEXT + TEXT, "line 3: apiKey stands there twice"),
    (("add", "main", *BINANCE), '{"apiKey": "planted', "is not JSON"),
    (("add", "main", *BINANCE), '{"apiKey": 5}', "must be a text"),
    (("add", "main", *BINANCE), '{"planted-key": "x", "apiKey": "planted"}', "1 names are not known"),
    (("add", "main", *BINANCE), "apiKey=planted one\napiSecret=x", "white space"),
    (("show", "nobody"), None, "there is none of that name"),
    (("rotate-key", "nobody"), TEXT, "there is none of that name"),
    (("enable", "nobody"), None, "there is none of that name"),
])  # fmt: skip
def test_wrong_input(run: Run, database_url: str, arguments: tuple[str, ...], given: str | None, message: str) -> None:
    more = ("--secret-file", "-") if arguments[0] in ("add", "rotate-key") else ()
    assert message in run(*arguments, *more, given=given, code=2)
    assert ask(database_url, "SELECT 1 FROM accounts UNION ALL SELECT 1 FROM audit_log") == []


def test_a_kek_file_that_is_wrong(run: Run, kek: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kek.write_text("planted-key-without-id")
    assert "line 1: is not an id and a key" in run("add", "main", *BINANCE, "--secret-file", "-", given=TEXT, code=2)
    kek.unlink()
    assert "there is no file" in run("rewrap", code=2)
    monkeypatch.delenv("FEEDMILL_KEK_FILE")
    assert "--kek-file" in run("rewrap", code=2)


def test_the_name_is_taken_and_there_is_no_terminal(run: Run) -> None:
    run("add", "main", *BINANCE, "--secret-file", "-", given=TEXT)
    assert "the name is taken" in run("add", "main", *BINANCE, "--secret-file", "-", given=TEXT, code=2)
    assert "there is no terminal" in run("add", "other", *BINANCE, given=TEXT, code=2)


async def test_what_is_found_of_a_key_is_kept_and_the_same_again_is_no_change(database_url: str, kek: Path) -> None:
    await asyncio.to_thread(migrate_sync, database_url)
    connection = await asyncpg.connect(database_url)
    try:
        who = Who.here("pool")
        assert who.actor.startswith("pool (")
        new = store.NewAccount(Name.parse("desk/main"), "deribit", "Derivatives")
        account = await store.create(connection, new, who)
        verdict = judge(Permissions(withdraw=True), allow_withdraw=account.allow_withdraw, now_ns=1)
        await store.set_verdict(connection, account, verdict, None, who)
        await store.set_verdict(connection, account, verdict, None, who)
        found = await store.get(connection, account.name)
        assert (found.enabled, found.verdict, found.revision) == (True, "refused", account.revision + 1)
        assert "may withdraw" in found.verdict_detail
        assert await connection.fetchval("SELECT count(*) FROM audit_log WHERE action = 'check-key'") == 1
        with pytest.raises(AccountError, match="has no secrets"):
            await store.open_secrets(connection, KeyFile(kek).ring(), account, who, "connecting")
        assert await store.set_enabled(connection, account.name, False, who)
        with pytest.raises(AccountError, match="has no secrets"):
            await store.set_enabled(connection, account.name, True, who)
    finally:
        await connection.close()


def test_secrets_are_never_options(run: Run) -> None:
    for command in ("add", "rotate-key"):
        options = run(command, "--help")
        assert "--secret-file" in options
        assert not {"--api-key", "--api-secret", "--secret"} & set(options.split())
    assert os.environ["FEEDMILL_KEK_FILE"]
