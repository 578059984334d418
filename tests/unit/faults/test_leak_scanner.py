"""The scanner of the leak test: a secret that is put somewhere is found, in whatever form."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from faults.leaks import Leak, Scanner, Secret
from hypothesis import given
from hypothesis import strategies as st

from faults import leaks

SECRET = 'pla+nted/"\\se=cret'
PEM = Ed25519PrivateKey.from_private_bytes(b"k" * 32).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
).decode()  # fmt: skip


def scanner(*values: str) -> Scanner:
    made = Scanner()
    for number, value in enumerate(values):
        made.plant(Secret(f"kind {number}", value))
    return made


SHOWN: dict[str, Callable[[str], str | bytes]] = {
    "a log line": lambda secret: f'{{"event": "asked", "key": "{secret}"}}',
    "a signed query": lambda secret: f"GET /order?signature={quote(secret, safe='')}&x=1",
    "a form": lambda secret: f"a={quote_plus(secret)}&b=1",
    "a query in a query": lambda secret: f"next={quote(quote(secret, safe=''), safe='')}",
    "JSON": lambda secret: json.dumps({"key": secret}),
    "JSON in JSON": lambda secret: json.dumps({"body": json.dumps({"key": secret})}),
    "bytea of PostgreSQL": lambda secret: "\\x" + f"ab{secret}cd".encode().hex(),
    "Basic authorization": lambda secret: base64.b64encode(f"user:{secret}".encode()),
    "a repr": lambda secret: repr({"secret": secret}).encode(),
    "an environment": lambda secret: f"A=1\0URL=redis://u:{quote(secret)}@h\0".encode(),
}


@pytest.mark.parametrize("shape", SHOWN)
def test_a_leak_that_is_put_in_is_found(shape: str) -> None:
    found = scanner("another-one", SECRET)
    assert found.look("clean", SHOWN[shape]("no-secret-here")) == []
    [*leaked] = found.look(shape, SHOWN[shape](SECRET))
    assert {leak.kind for leak in leaked} == {"kind 1"}
    assert found.leaks == leaked
    assert SECRET not in repr(found.leaks)
    assert set(found.looked) == {"clean", shape}


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.binary(max_size=5),
       st.binary(max_size=5))  # fmt: skip
def test_base64_of_anything_around_it(secret: str, before: bytes, behind: bytes) -> None:
    assert scanner(secret).look("x", base64.b64encode(before + secret.encode() + behind))
    assert scanner(secret).look("x", base64.urlsafe_b64encode(before + secret.encode() + behind))


def test_a_private_key_of_which_one_line_stands_somewhere() -> None:
    assert scanner(PEM).look("x", f"cannot read {PEM.splitlines()[1]}") == [Leak("kind 0", "x", "a line of it")]
    assert scanner(PEM).look("x", "-----BEGIN PRIVATE KEY-----") == []


@pytest.mark.parametrize("grep", [True, False])
def test_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grep: bool) -> None:
    monkeypatch.setattr(leaks, "CHUNK", 64)
    if not grep:
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "torn.log").write_bytes(b"." * 60 + SECRET.encode() + b"." * 500)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text(SECRET)
    (tmp_path / "here-may-it-be").write_text(SECRET)
    allowed = frozenset((tmp_path / "secrets", tmp_path / "here-may-it-be"))
    (tmp_path / "clean.log").write_text("nothing")
    found = scanner(SECRET, PEM)
    found.look_folder(tmp_path, allowed)
    assert {leak.where for leak in found.leaks} == {"a/torn.log"}
    assert found.looked["clean.log"] == len("nothing")
    (tmp_path / "named-secret").touch()
    assert {leak.where for leak in scanner("named-secret").look_folder(tmp_path, allowed)} == {"names of files"}


def test_what_cannot_be_looked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        scanner("abc")


def test_the_files_of_a_fault(tmp_path: Path) -> None:
    for name in ("redis", "postgres", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "redis" / "password").write_text("Planted-redis-1\n")
    (tmp_path / "redis" / "redis.conf").write_text("requirepass Planted-redis-1")
    (tmp_path / "postgres" / "password").write_text("Planted-postgres-2\n")
    (tmp_path / "kek").write_text("first Planted-kek-3\n")
    key = {"account": "a", "type": "hmac", "apiKey": "Planted-id-4", "apiSecret": "Planted-secret-5"}
    (tmp_path / "keys.json").write_text(json.dumps({"deribit/Derivatives": {"accounts": [key]}}))
    log = tmp_path / "logs" / "accounts.log"
    log.write_text("nothing\n")
    assert leaks.of_run(tmp_path) == []
    for number, kind in enumerate((
        "password of redis", "password of postgres", "KEK", "apiKey at deribit/Derivatives",
        "apiSecret at deribit/Derivatives",
    ), 1):  # fmt: skip
        log.write_text(f"said Planted-{('redis', 'postgres', 'kek', 'id', 'secret')[number - 1]}-{number} to nobody")
        assert leaks.of_run(tmp_path) == [f"{kind} in logs/accounts.log (as it is)"]
