"""Buckets of the test servers, and stores in them."""

from __future__ import annotations

from typing import Any

from b2_server import BUCKET, B2Server
from pydantic import SecretStr
from s3_server import S3Server

from feedmill.general.backup.stores.b2 import B2Bucket
from feedmill.general.backup.stores.remote import Bucket, RemoteStore
from feedmill.general.backup.stores.s3 import S3Bucket

PART = 4096
"""Bytes; the real one is 5 MiB."""
PREFIX = "home/backups/"


def bucket_of(server: S3Server | B2Server, secrets: dict[str, str] | None = None, prefix: str = PREFIX) -> Bucket:
    """``secrets`` may change while the store lives, as a rotated Secret does."""
    if isinstance(server, B2Server):
        values = {"keyId": server.key_id, "applicationKey": server.application_key} if secrets is None else secrets
        return B2Bucket(BUCKET, prefix, lambda key: SecretStr(values[key]), realm=server.realm)
    pair = {"accessKeyId": "test", "secretAccessKey": "test"} if secrets is None else secrets
    return S3Bucket(
        BUCKET, prefix, lambda key: SecretStr(pair[key]), region="us-east-1", endpoint=server.endpoint, path_style=True
    )


def remote(bucket: Bucket, **settings: Any) -> RemoteStore:
    # Patience for a slow machine: the first try makes the client, and what is to be repeated is repeated after that.
    return RemoteStore(bucket, **({"part_bytes": PART, "patience": 60.0, "pause": 0.01} | settings))
