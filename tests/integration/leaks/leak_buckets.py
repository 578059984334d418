"""Buckets of S3 and B2 over HTTP whose credentials are planted, and which refuse in the words that they were asked in.

Amazon's own answer to a wrong signature has all that was signed in it; what stands between here and there may do worse.
"""

from __future__ import annotations

import base64
import secrets as random
import sys
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, Protocol

import pytest
from b2sdk.v3 import RawSimulator

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

import b2_server
from b2_server import BUCKET, B2Server
from faults_http import Fault
from s3_server import S3Server
from store_helpers import bucket_of, remote

Plant = Callable[[str, str], None]
TOKENS = 24
"""Made and planted before the server's threads hand them out, since who looks for them does so beside those."""
MAX_SIGNATURES = 40
CAN = ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"]


class Bucket(Protocol):
    """One that refuses whoever has not the credentials of the day."""

    kinds: frozenset[str]
    """Of the secrets that it plants."""
    refused: int

    def files(self) -> dict[str, str]:
        """The Secret, as a user would write it; what was in it before is refused from now on. Planted."""

    def revoke(self) -> None:
        """Nobody's credentials are right any more."""

    def tire(self) -> None:
        """Answer 503 to all, until rested."""

    def rest(self) -> None: ...

    def spec(self) -> str:
        """Of the destination, in YAML."""

    def plant_late(self) -> None:
        """What came to be on the way."""

    async def objects(self) -> list[tuple[str, bytes]]: ...

    def stop(self) -> None: ...


async def _objects(server: S3Server | B2Server) -> list[tuple[str, bytes]]:
    from feedmill.general.backup.stores.base import get_bytes

    store = remote(bucket_of(server, prefix=""))
    try:
        return [(found.name, await get_bytes(store, found.name)) for found in await store.list("")]
    finally:
        await store.close()


class EchoingS3(S3Server):
    """Moto checks no credentials: here they are, and refusals repeat headers, path and query."""

    kinds = frozenset(("S3 access key id", "S3 secret access key", "signature of a request to S3"))

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._allowed = {"test"}  # The tests' own.
        self._tired = False
        self._signatures: list[str] = []
        self.refused = 0
        super().__init__()

    def files(self) -> dict[str, str]:
        identity = "AKIA" + base64.b32encode(random.token_bytes(10)).decode()
        secret = base64.b64encode(random.token_bytes(30)).decode()
        self._plant("S3 access key id", identity)
        self._plant("S3 secret access key", secret)
        self._allowed = {"test", identity}
        return {"accessKeyId": identity, "secretAccessKey": secret}

    def revoke(self) -> None:
        self._allowed = {"test"}

    def tire(self) -> None:
        self._tired = True

    def rest(self) -> None:
        self._tired = False

    def spec(self) -> str:
        place = f'bucket: {BUCKET}, prefix: home, endpoint: "{self.endpoint}", pathStyle: true'
        return f"{{s3: {{{place}, credentialsSecretRef: {{name: bucket}}}}}}"

    def plant_late(self) -> None:
        for signature in self._signatures[:: max(1, len(self._signatures) // MAX_SIGNATURES)]:
            self._plant("signature of a request to S3", signature)

    async def objects(self) -> list[tuple[str, bytes]]:
        self.rest()
        return await _objects(self)

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        signed = environ.get("HTTP_AUTHORIZATION", "")
        known = any(f"Credential={identity}/" in signed for identity in self._allowed)
        tests_own = "Credential=test/" in signed
        if not tests_own:
            self._signatures.append(signed.rpartition("Signature=")[2])
        if tests_own or (known and not self._tired):
            return super()._serve(environ, start)
        self.refused += 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        said = escape(" ".join(f"{name}: {value}" for name, value in environ.items() if name.isupper()))
        code = "SlowDown" if known else "InvalidAccessKeyId"
        body = f"<Error><Code>{code}</Code><Message>{said}</Message><StringToSign>{said}</StringToSign></Error>"
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body.encode())))]
        start("503 Busy" if known else "403 No", headers)
        return [body.encode()]


class EchoingB2(B2Server):
    """Its refusals repeat headers and path, as JSON or as a page of whatever stands between."""

    kinds = frozenset(("B2 key id", "B2 application key", "B2 token"))

    def __init__(self, plant: Plant, patch: pytest.MonkeyPatch) -> None:
        self._plant = plant
        self._key: tuple[str, str] | None = None
        self.refused = 0
        self._hand_out_tokens(patch)
        owner = self

        class Handler(b2_server._Handler):
            def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
                if status >= 400:
                    owner.refused += 1
                    said = f"{self.command} {self.path} {dict(self.headers)}"
                    if status == 503 and owner.refused % 2:
                        self._page(status, said)
                        return
                    document = {**document, "message": said}
                super()._send(status, document, headers)

            def _page(self, status: int, said: str) -> None:
                body = f"<html>{said}</html>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        patch.setattr(b2_server, "_Handler", Handler)
        super().__init__()

    def _hand_out_tokens(self, patch: pytest.MonkeyPatch) -> None:
        tokens = [f"4_005{random.token_urlsafe(40)}" for _ in range(TOKENS)]
        for token in tokens:
            self._plant("B2 token", token)
        next_token: Iterator[str] = iter(tokens)
        really = RawSimulator.authorize_account

        def authorize(simulator: RawSimulator, realm: str, identity: str, secret: str) -> Any:
            document = really(simulator, realm, identity, secret)
            token = next(next_token)
            simulator.auth_token_to_key[token] = simulator.auth_token_to_key.pop(document["authorizationToken"])
            simulator.current_token = token
            return document | {"authorizationToken": token}

        patch.setattr(RawSimulator, "authorize_account", authorize)

    def files(self) -> dict[str, str]:
        self.revoke()
        simple, _ = self.make_key(CAN)
        key = self.simulator.key_id_to_key.pop(simple)
        key.application_key_id = f"005{random.token_hex(11)}"
        key.key = f"K005{random.token_urlsafe(20)}"
        self._plant("B2 key id", key.application_key_id)
        self._plant("B2 application key", key.key)
        self.simulator.key_id_to_key[key.application_key_id] = key
        self._key = key.application_key_id, key.key
        return {"keyId": key.application_key_id, "applicationKey": key.key}

    def revoke(self) -> None:
        if self._key is not None:
            with self.lock:
                del self.simulator.key_id_to_key[self._key[0]]
                self.expire_tokens()
            self._key = None

    def tire(self) -> None:
        self.faults.add(Fault(".", times=10**6, status=503))

    def rest(self) -> None:
        self.faults.clear()

    def spec(self) -> str:
        place = f'bucket: {BUCKET}, prefix: home, realm: "{self.realm}"'
        return f"{{b2: {{{place}, credentialsSecretRef: {{name: bucket}}}}}}"

    def plant_late(self) -> None:
        """All are known from the beginning."""

    async def objects(self) -> list[tuple[str, bytes]]:
        self.rest()
        return await _objects(self)


def make_bucket(kind: str, plant: Plant, patch: pytest.MonkeyPatch) -> Bucket:
    return EchoingS3(plant) if kind == "s3" else EchoingB2(plant, patch)
