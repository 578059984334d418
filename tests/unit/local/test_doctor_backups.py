"""What doctor says of a manifest's backups: the destination is a folder here, or a bucket behind a closed port."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from feedmill.local.doctor import backups
from feedmill.local.doctor.check import Grade, ok
from feedmill.resources.collection import Resources
from feedmill.resources.load import load_texts

KEYS = [base64.b64encode(bytes((31 * i + shift) % 256 for i in range(32))).decode() for shift in range(3)]
MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: NAME}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  backup:
    schedule: "0 3 * * *"
    destination: {DESTINATION}
    encryption: {keySecretRef: {name: backup-key, key: key}}
"""
BUCKETS = {
    "s3": "s3: {bucket: mine, endpoint: 'http://127.0.0.1:9', credentialsSecretRef: {name: s3}}",
    "b2": "b2: {bucket: my-backups, realm: 'http://127.0.0.1:9', credentialsSecretRef: {name: b2}}",
}
CREDENTIALS = {
    "s3": {"accessKeyId": "an-id", "secretAccessKey": "pl4nted-s3cret"},
    "b2": {"keyId": "an-id", "applicationKey": "pl4nted-s3cret"},
}


def resources(destination: str, *names: str) -> Resources:
    texts = {f"{name}.yaml": MANIFEST.replace("NAME", name).replace("DESTINATION", destination) for name in names}
    return load_texts(texts, local=True)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name, values in (CREDENTIALS | {"backup-key": {"key": f"2026-11 {KEYS[0]}\n"}}).items():
        (tmp_path / "secrets" / name).mkdir(parents=True)
        for key, value in values.items():
            (tmp_path / "secrets" / name / key).write_text(value)
    return tmp_path / "secrets"


async def test_a_folder_is_tried_and_nothing_stays_there(secrets: Path, tmp_path: Path) -> None:
    store = tmp_path / "a" / "store"
    wanted = resources(f"folder: {{path: '{store}'}}", "main", "other")
    assert await backups.checks(wanted, secrets) == [
        ok(f"backups of default/{name}", f"folder {store} takes them, key 2026-11 seals") for name in ("main", "other")
    ]
    assert not (tmp_path / "a").exists()
    (secrets / "backup-key" / "key").write_text(f"c {KEYS[2]}\nb {KEYS[1]}\na {KEYS[0]}\n")
    assert (await backups.checks(wanted, secrets))[0].found.endswith("key c seals, 2 more open")


async def test_a_folder_that_takes_none_fails(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    [found] = await backups.checks(resources(f"folder: {{path: '{tmp_path / 'file'}'}}", "main"), secrets)
    assert (found.grade, found.found) == (Grade.FAIL, "none would be made")
    assert "check the folder, its owner and its disk" in found.remedy


async def test_without_the_folder_of_secrets_nothing_is_said(tmp_path: Path) -> None:
    [found] = await backups.checks(resources(BUCKETS["b2"], "main"), None)
    assert (found.grade, found.found) == (Grade.WARN, "were not looked at")
    assert found.remedy == "give --secrets-dir with backup-key/key"
    [found] = await backups.checks(resources(BUCKETS["b2"], "main"), tmp_path / "nowhere")
    assert (found.grade, "there is no such folder" in found.remedy) == (Grade.FAIL, True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "holds no file key"),
        ("", "is empty"),
        (f"2026-11 {KEYS[0]}x", "line 1: the key is not 32 bytes"),
        (f"2026-11 {KEYS[0]}\n2026-11 {KEYS[1]}", "line 2: the id 2026-11 stands in an earlier line already"),
    ],
    ids=["missing", "empty", "too long", "twice"],
)
async def test_a_key_file_that_cannot_be_used_fails(secrets: Path, content: str | None, told: str) -> None:
    path = secrets / "backup-key" / "key"
    path.unlink() if content is None else path.write_text(content)
    [found] = await backups.checks(resources(BUCKETS["s3"], "main"), secrets)
    assert (found.grade, found.found) == (Grade.FAIL, "none would be made")
    assert told in found.remedy
    assert KEYS[0] not in str(found)


async def test_a_key_beside_what_opens_the_destination_fails(secrets: Path, tmp_path: Path) -> None:
    (secrets / "backup-key" / "key").rename(secrets / "b2" / "key")
    (secrets / "backup-key").rmdir()
    (secrets / "backup-key").symlink_to(secrets / "b2")
    [found] = await backups.checks(resources(BUCKETS["b2"], "main"), secrets)
    assert (found.grade, "are one folder" in found.remedy) == (Grade.FAIL, True)
    [found] = await backups.checks(resources(f"folder: {{path: '{tmp_path}'}}", "main"), secrets)
    assert (found.grade, "lies in the folder of spec.backup.destination" in found.remedy) == (Grade.FAIL, True)


@pytest.mark.parametrize("kind", ["s3", "b2"])
async def test_a_bucket_that_does_not_answer_is_a_warning(
    secrets: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "PATIENCE", 0.0)
    monkeypatch.setattr(backups, "TIMEOUT", 200.0)  # The library for it is loaded meanwhile.
    [found] = await backups.checks(resources(BUCKETS[kind], "main"), secrets)
    assert found.grade is Grade.WARN
    assert "does not answer" in found.found
    assert found.remedy == "check the way to it; a backup would fail until then"
    assert "pl4nted-s3cret" not in str(found)


@pytest.mark.parametrize("kind", ["s3", "b2"])
async def test_credentials_that_are_missing_fail(secrets: Path, kind: str) -> None:
    missing = list(CREDENTIALS[kind])[1]
    (secrets / kind / missing).unlink()
    [found] = await backups.checks(resources(BUCKETS[kind], "main"), secrets)
    assert (found.grade, found.found) == (Grade.FAIL, "none would be made")
    assert f"holds no file {missing}" in found.remedy
