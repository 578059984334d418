"""What is logged at the debug level by whoever, exceptions included: scanned for planted secrets of every kind."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from faults.leaks import Scanner, Secret

from feedmill.shared import log

REGISTERED = {
    "key id": "PlantedKeyId" * 5, "key secret": "PlantedKeySecret/+=" * 3, "client id": "PlantCi8",
    "redis password": "Planted p@ss/word", "postgres password": "Planted%21pw", "KEK": "UGxhbnRlZEtla1BsYW50ZWRLZWs=",
    "private key": Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode(),
}  # fmt: skip
BY_FORM = {  # Of these nobody is told before they are there.
    "signature": "8579d9003d32" * 5, "listen key": "pqia91ma19" * 6, "access token": "1582628593469.1MbQ-J_4.CBP-OqOw",
    "refresh token": "1582628593470.1Gs4-K_5.DCQ-PrPx",
}  # fmt: skip


@pytest.fixture
def scan(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Scanner]:
    """Logging as in a service, with all secrets planted; call it for the scanner that has seen what was written."""
    monkeypatch.setattr(log, "_secrets", [])
    out = io.StringIO()
    finish = log.configure("test", level="debug", stream=out)
    scanner = Scanner()
    for kind, value in (REGISTERED | BY_FORM).items():
        scanner.plant(Secret(kind, value))
    for value in REGISTERED.values():
        log.register_secret(value)

    def scanned() -> Scanner:
        finish()
        assert out.getvalue().count("[redacted]") >= 5, out.getvalue()
        scanner.look("log", out.getvalue())
        return scanner

    return scanned


def shown() -> list[Any]:
    """As libraries show what they were given."""
    found: list[Any] = []
    for value in REGISTERED.values():
        found += [value, f"cannot use {value!r}", {"params": [value]}, f"https://h/x?k={quote(value, safe='')}&y=1"]
        found += [f"GET /api?k={value}", value.encode(), (value, {value: 1})]
    signature, listen_key, access, refresh = BY_FORM.values()
    return [
        *found,
        f"https://api/x?symbol=A&signature={signature}", f"wss://h/private/ws/{listen_key}", f"?listenKey={listen_key}",
        f"Authorization: Bearer {access}", {"Authorization": f"deri-hmac-sha256 sig={signature}"},
        f'{{"access_token":"{access}","refresh_token":"{refresh}"}}', {"refresh_token": refresh, "token": access},
        f"{{'access_token': '{access}'}}", repr([("X-MBX-APIKEY", signature)]), {"listenKey": listen_key},
    ]  # fmt: skip


def test_values_of_lines_and_arguments_of_other_libraries(scan: Callable[[], Scanner]) -> None:
    ours, theirs = log.get_logger(), logging.getLogger("aiohttp.client")
    for each in shown():
        ours.debug("asked", what=each, more={"deep": [each]})
        theirs.debug("sent %s", each)
    assert scan().leaks == []


def test_exceptions_with_those_behind_them(scan: Callable[[], Scanner]) -> None:
    for each in shown():
        try:
            try:
                raise OSError(f"cannot connect to {each}")
            except OSError as error:
                raise ValueError(each) from error
        except ValueError:
            log.get_logger().exception("failed")
            logging.getLogger("other").exception("failed: %s", each)
    assert scan().leaks == []


def test_a_task_whose_exception_nobody_looked_at(scan: Callable[[], Scanner]) -> None:
    async def fails(what: Any) -> None:
        raise RuntimeError(what)

    async def work() -> None:
        tasks = [asyncio.create_task(fails(each)) for each in shown()]
        await asyncio.wait(tasks)
        del tasks
        gc.collect()

    asyncio.run(work())
    gc.collect()
    assert scan().leaks == []
