"""What ``feedmill doctor`` says of buckets that take backups, refuse them, or cannot now."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from b2_server import BUCKET, B2Server
from faults_http import Fault
from s3_server import S3Server

from feedmill.local.doctor import backups
from feedmill.local.doctor.check import Check, Grade, ok
from feedmill.resources.load import load_texts

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  backup:
    schedule: "0 3 * * *"
    destination: {DESTINATION}
    encryption: {keySecretRef: {name: backup-key, key: key}}
"""
CAN = ["listBuckets", "listFiles", "readFiles", "writeFiles"]


def written(folder: Path, name: str, **values: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for key, value in values.items():
        (folder / name / key).write_text(value)


@pytest.fixture
def secrets(tmp_path: Path, server: S3Server | B2Server) -> Path:
    folder = tmp_path / "secrets"
    written(folder, "backup-key", key=f"b1 {base64.b64encode(os.urandom(32)).decode()}\n")
    if isinstance(server, B2Server):
        key_id, key = server.make_key(CAN)
        written(folder, "bucket", keyId=key_id, applicationKey=key)
    else:
        written(folder, "bucket", accessKeyId="AKIAIOSFODNN7EXAMPLE", secretAccessKey="pl4nted-s3cret")
    return folder


async def asked(server: S3Server | B2Server, secrets: Path, bucket: str = BUCKET) -> Check:
    reference = "credentialsSecretRef: {name: bucket}"
    if isinstance(server, B2Server):
        place = f"b2: {{bucket: {bucket}, prefix: home, realm: '{server.realm}', {reference}}}"
    else:
        place = f"s3: {{bucket: {bucket}, prefix: home, endpoint: '{server.endpoint}', pathStyle: true, {reference}}}"
    resources = load_texts({"feed.yaml": MANIFEST.replace("DESTINATION", place)}, local=True)
    [found] = await backups.checks(resources, secrets)
    return found


def where(server: S3Server | B2Server, bucket: str = BUCKET) -> str:
    return f"{'b2' if isinstance(server, B2Server) else 's3'}://{bucket}/home/"


async def test_a_bucket_that_takes_backups(server: S3Server | B2Server, secrets: Path) -> None:
    assert await asked(server, secrets) == ok("backups of default/main", f"{where(server)} takes them, key b1 seals")
    assert server.versions() == []


async def test_credentials_that_are_refused(server: S3Server | B2Server, secrets: Path) -> None:
    server.faults.add(Fault(".", times=10**6, status=403, code="InvalidAccessKeyId"))
    if isinstance(server, B2Server):
        server.faults.clear()
        written(secrets, "bucket", applicationKey="pl4nted-s3cret")
    found = await asked(server, secrets)
    assert (found.grade, found.found) == (Grade.FAIL, "none would be made")
    assert "check the" in found.remedy
    assert "pl4nted-s3cret" not in str(found)


async def test_a_bucket_that_is_not_there(server: S3Server | B2Server, secrets: Path) -> None:
    found = await asked(server, secrets, "feedmill-none")
    assert found.grade is Grade.FAIL
    assert found.remedy.startswith(where(server, "feedmill-none"))
    assert "check its name" in found.remedy


async def test_a_key_that_may_not_write(b2: B2Server, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    key_id, key = b2.make_key(["listBuckets", "listFiles", "readFiles"])
    written(folder, "backup-key", key=f"b1 {base64.b64encode(os.urandom(32)).decode()}\n")
    written(folder, "bucket", keyId=key_id, applicationKey=key)
    found = await asked(b2, folder)
    assert (found.grade, "lacks writeFiles" in found.remedy) == (Grade.FAIL, True)


async def test_a_bucket_that_is_away_for_now(
    server: S3Server | B2Server, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "PATIENCE", 0.1)
    server.faults.add(Fault(".", times=10**6, status=503))
    found = await asked(server, secrets)
    assert (found.grade, "503" in found.found) == (Grade.WARN, True)
    server.faults.clear()
    assert (await asked(server, secrets)).grade is Grade.OK
