"""What local mode asks for before it listens to accounts, and what it says when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.accounts import mounted
from feedmill.accounts.fields import SecretsError
from feedmill.local.accounts import check, pools
from feedmill.resources.collection import Resources
from feedmill.resources.load import load_texts
from feedmill.shared.config import ConfigError, SecretsDir

VALUE = "pl4nted-s3cret"
HEAD = "apiVersion: feedmill.dev/v1alpha1\n"
ACCOUNT = (
    f"{HEAD}kind: ExchangeAccount\nmetadata: {{name: mine}}\nspec:\n  pipelineRef: {{name: main}}\n"
    "  exchange: {name: binance, market: Spot}\n  credentialsSecretRef: {name: keys}\n"
)


def pipeline(accounts: str, name: str = "main") -> str:
    return (
        f"{HEAD}kind: FeedPipeline\nmetadata: {{name: {name}}}\nspec:\n  redis: {{managed: {{}}}}\n"
        f"  postgres: {{managed: {{}}}}\n{accounts}"
    )


def load(*texts: str) -> Resources:
    return load_texts({"a.yaml": "---\n".join(texts)}, local=True)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    for secret, key, text in (
        ("keys", "apiKey", "k" * 16),
        ("keys", "apiSecret", VALUE),
        ("kek", "kek", f"2026-11 {bytes(range(32)).hex()}\n"),
    ):
        (folder / secret).mkdir(parents=True, exist_ok=True)
        (folder / secret / key).write_text(text)
    return folder


def test_an_account_whose_secrets_are_there_is_listened_to(secrets: Path) -> None:
    assert check(load(ACCOUNT), None, secrets) == []
    found = mounted.read(SecretsDir(secrets), "keys", "binance", "Spot")
    assert {name: secret.get_secret_value() for name, secret in found.items()} == {
        "apiKey": "k" * 16,
        "apiSecret": VALUE,
    }
    assert VALUE not in repr(found)


def test_a_suspended_account_needs_nothing() -> None:
    resources = load(ACCOUNT + "  suspend: true\n")
    assert check(resources, None, None) == []
    assert [item.key for item in pools(resources)] == [("default", "main")]


def test_without_a_folder_of_secrets(secrets: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(load(ACCOUNT), None, None)
    assert str(caught.value) == (
        "ExchangeAccount default/mine: spec.credentialsSecretRef names Secret 'keys': give --secrets-dir with files "
        "keys/apiKey and keys/apiSecret in it, or suspend the account"
    )


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("apiKey", None, r"Secret 'keys', key 'apiKey': .*/keys holds no file apiKey: add it"),
        ("apiSecret", None, r"Secret 'keys': apiSecret is missing, or privateKey for an Ed25519 key$"),
        ("apiSecret", f"{VALUE} ", r"Secret 'keys': apiSecret is empty, or has white space"),
        ("privateKey", VALUE, r"Secret 'keys': apiSecret and privateKey are both given"),
        ("passphrase", VALUE, r"Secret 'keys': passphrase: binance Spot has none: leave it out"),
    ],
)
def test_secrets_that_cannot_be_right_are_told_without_them(
    key: str, text: str | None, said: str, secrets: Path
) -> None:
    place = secrets / "keys" / key
    if text is None:
        place.unlink()
    else:
        place.write_text(text)
    with pytest.raises(
        ConfigError, match=r"^ExchangeAccount default/mine: spec.credentialsSecretRef: " + said
    ) as caught:
        check(load(ACCOUNT), None, secrets)
    assert VALUE not in str(caught.value)


def test_a_secret_that_is_swapped_while_it_is_read_is_read_again(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = SecretsDir.read, []

    def swapping(self: SecretsDir, name: str, key: str) -> object:
        found = read(self, name, key)
        calls.append(key)
        if len(calls) == 1:  # The key was read, the secret not yet.
            (secrets / "keys" / "apiKey").write_text("n" * 16)
            (secrets / "keys" / "apiSecret").write_text("n3w-secret-value")
        return found

    monkeypatch.setattr(SecretsDir, "read", swapping)
    found = mounted.read(SecretsDir(secrets), "keys", "binance", "Spot")
    assert [secret.get_secret_value() for secret in found.values()] == ["n" * 16, "n3w-secret-value"]


def test_a_link_out_of_the_folder_is_not_followed(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(VALUE)
    (secrets / "keys" / "apiSecret").unlink()
    (secrets / "keys" / "apiSecret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="leads out of"):
        mounted.read(SecretsDir(secrets), "keys", "binance", "Spot")


def test_a_market_is_given_what_it_takes(secrets: Path) -> None:
    (secrets / "keys" / "apiSecret").rename(secrets / "keys" / "privateKey")
    with pytest.raises(SecretsError, match=r"^Secret 'keys': privateKey: deribit Derivatives is used with apiSecret"):
        mounted.read(SecretsDir(secrets), "keys", "deribit", "Derivatives")


STORE = "  accounts: {keyEncryptionSecretRef: {name: kek, key: kek}}\n"


def test_the_credential_store_needs_a_key_encryption_key(secrets: Path, tmp_path: Path) -> None:
    told = "pipeline main: no key-encryption key is given, so only ExchangeAccounts are listened to: for those of "
    assert check(load(pipeline("  accounts: {}\n")), None, secrets) == [
        f"{told}feedmill accounts give --kek-file or FEEDMILL_KEK_FILE"
    ]
    assert check(load(pipeline(STORE)), None, None) == [
        f"{told}feedmill accounts give --secrets-dir with kek/kek, --kek-file or FEEDMILL_KEK_FILE"
    ]
    assert check(load(pipeline(STORE)), None, secrets) == []
    given = tmp_path / "my-kek"
    given.write_text(f"mine {bytes(range(1, 33)).hex()}\n")
    assert check(load(pipeline("  accounts: {}\n")), given, None) == []
    # Where there is no pool, nobody needs it.
    assert check(load(pipeline("")), tmp_path / "nowhere", None) == []


def test_a_key_encryption_key_that_cannot_be_used_is_told(secrets: Path, tmp_path: Path) -> None:
    (secrets / "kek" / "kek").write_text(f"2026-11 {VALUE}")
    said = r"^pipeline main: spec.accounts.keyEncryptionSecretRef .*, line 1: the key is not 32 bytes as base64 or hex"
    with pytest.raises(ConfigError, match=said) as caught:
        check(load(pipeline(STORE)), None, secrets)
    assert VALUE not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^--kek-file .*: there is no file .*nowhere: check the path$"):
        check(load(pipeline("  accounts: {}\n")), tmp_path / "nowhere", None)


def test_one_database_is_listened_to_by_one_pool() -> None:
    one, other = pipeline("  accounts: {}\n"), pipeline("  accounts: {}\n", "other")
    with pytest.raises(ConfigError, match=r"^pipelines default/main, default/other all have accounts: local mode has"):
        pools(load(one, other))
    assert len(pools(load(one, pipeline("  accounts: {}\n  suspend: true\n", "other")))) == 1
