"""A store as a pipeline declares it: which it is, and that neither logs nor messages hold what opens it."""

from __future__ import annotations

import base64
import logging
import subprocess
import sys

import pytest
from b2_server import BUCKET, B2Server
from faults_http import Fault
from pydantic import SecretStr
from s3_server import S3Server

from feedmill.general.backup.stores import open_store
from feedmill.general.backup.stores.base import ObjectStore, StoreError, get_bytes, put_bytes
from feedmill.resources.backup_policy import Destination

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


def opened(server: S3Server | B2Server, *, wrong: bool = False) -> tuple[ObjectStore, list[str]]:
    """(store, what must be told nowhere)."""
    reference = {"name": "credentials"}
    if isinstance(server, B2Server):
        key = "wrong-" + SECRET if wrong else server.application_key
        values = {"keyId": server.key_id, "applicationKey": key}
        place = {"b2": {"bucket": BUCKET, "prefix": "home", "realm": server.realm, "credentialsSecretRef": reference}}
        pair = base64.b64encode(f"{server.key_id}:{key}".encode()).decode()
        hidden = [key, pair, "auth_token_"]
    else:
        values = {"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": SECRET}
        place = {
            "s3": {
                "bucket": BUCKET, "prefix": "home", "endpoint": server.endpoint, "pathStyle": True,
                "credentialsSecretRef": reference,
            }
        }  # fmt: skip
        hidden = [SECRET, "AWS4-HMAC-SHA256", "AKIAIOSFODNN7EXAMPLE"]
    return open_store(Destination.model_validate(place), lambda name: SecretStr(values[name])), hidden


async def test_it_works_and_logs_no_secret(server: S3Server | B2Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        store, hidden = opened(server)
        await store.check()
        await put_bytes(store, "a/data", b"x" * 100_000)
        assert await get_bytes(store, "a/data") == b"x" * 100_000
        assert server.versions() == [("home/a/data", "upload")]
        await store.delete("a/data")
        await store.close()
    assert not [one for one in hidden if one in caplog.text]


async def test_no_message_of_an_error_holds_a_secret(
    server: S3Server | B2Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        store, hidden = opened(server, wrong=True)
        server.faults.add(Fault("GET /feedmill-test", times=10**6, status=403, code="SignatureDoesNotMatch"))
        with pytest.raises(StoreError) as caught:
            await store.list("")
        await store.close()
    told = f"{caught.value} {caught.value!r} {store.where} {store!r} {caplog.text}"
    assert not [one for one in hidden if one in told]


def test_the_clients_of_stores_are_imported_only_where_they_are_used() -> None:
    looked = (
        "import sys; import feedmill.cli.backup, feedmill.general.backup.target, feedmill.general.backup.prune; "
        "print([name for name in ('b2sdk', 'botocore', 'boto3', 'requests') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
