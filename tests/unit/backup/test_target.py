"""What a pipeline declares of its backups, and what is refused: no key, no credentials, both in one place."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedmill.accounts.keyring import parse_keyring
from feedmill.cli.backup import app
from feedmill.general.backup.target import open_target
from feedmill.resources.load import load_texts
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.problems import ResourceError
from feedmill.shared.config import ConfigError

KEY = base64.b64encode(bytes((31 * i) % 256 for i in range(32))).decode()
FOLDER = "folder: {path: PATH}"
B2 = "b2: {bucket: my-backups, prefix: home/feedmill, credentialsSecretRef: {name: b2}}"
S3 = "s3: {bucket: my-backups, credentialsSecretRef: {name: s3}}"
SECRETS = {"b2": {"keyId": "an-id", "applicationKey": "a-secret-key"}, "s3": {"accessKeyId": "an-id"}}


def manifest(destination: str, key: str = "backup-key") -> str:
    backup = f"""
  backup:
    schedule: "0 3 * * *"
    destination: {{{destination}}}
    encryption: {{keySecretRef: {{name: {key}, key: key}}}}
"""
    return f"""
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main, namespace: default}}
spec:
  redis: {{managed: {{}}}}
  postgres: {{managed: {{}}}}
{backup if destination else ""}"""


def pipeline(destination: str, key: str = "backup-key") -> FeedPipeline:
    (found,) = load_texts({"feed.yaml": manifest(destination, key)}, local=True).pipelines.values()
    return found


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name, values in (SECRETS | {"backup-key": {"key": f"2026-11 {KEY}\n"}}).items():
        (tmp_path / "secrets" / name).mkdir(parents=True)
        for field, value in values.items():
            (tmp_path / "secrets" / name / field).write_text(value)
    return tmp_path / "secrets"


@pytest.mark.parametrize(
    ("destination", "where"),
    [(FOLDER, "folder "), (B2, "b2://my-backups/home/feedmill/"), (S3, "s3://my-backups/")],
    ids=["folder", "b2", "s3"],
)
async def test_every_kind_of_destination(secrets: Path, tmp_path: Path, destination: str, where: str) -> None:
    target = open_target(pipeline(destination.replace("PATH", str(tmp_path / "store"))), secrets)
    assert target.store.where.startswith(where)
    assert (await target.ring()).current == "2026-11"
    assert target.names.root == "default/main/"
    await target.store.close()


def test_a_pipeline_without_backups_is_told(secrets: Path) -> None:
    with pytest.raises(ConfigError, match=r"FeedPipeline default/main: spec\.backup is not set"):
        open_target(pipeline(""), secrets)


def test_a_missing_key_is_told_before_anything_connects(secrets: Path) -> None:
    with pytest.raises(ConfigError, match="give --secrets-dir with a file backup-key/key"):
        open_target(pipeline(B2), None)
    (secrets / "backup-key" / "key").unlink()
    with pytest.raises(ConfigError, match="holds no file key"):
        open_target(pipeline(B2), secrets)
    (secrets / "backup-key" / "key").write_text("not a key")
    with pytest.raises(ConfigError, match="line 1: is not an id and a key"):
        open_target(pipeline(B2), secrets)


def test_key_and_credentials_are_never_in_one_secret(secrets: Path) -> None:
    with pytest.raises(ResourceError, match="must not be in one Secret"):
        pipeline(B2, key="b2")


def test_nor_in_one_folder_under_two_names(secrets: Path) -> None:
    (secrets / "backup-key" / "key").rename(secrets / "b2" / "key")
    (secrets / "backup-key").rmdir()
    (secrets / "backup-key").symlink_to(secrets / "b2")
    with pytest.raises(ConfigError, match="are one folder"):
        open_target(pipeline(B2), secrets)


def test_nor_is_the_key_where_the_backups_go(secrets: Path, tmp_path: Path) -> None:
    for place in (tmp_path, secrets, secrets / "backup-key", secrets / ".." / "secrets"):
        with pytest.raises(ConfigError, match=r"key lies in the folder of spec\.backup\.destination"):
            open_target(pipeline(FOLDER.replace("PATH", str(place))), secrets)
    (tmp_path / "elsewhere").symlink_to(secrets)
    with pytest.raises(ConfigError, match="name another folder"):
        open_target(pipeline(FOLDER.replace("PATH", str(tmp_path / "elsewhere"))), secrets)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.output


def test_the_command_makes_a_key_file_and_shows_no_key(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "backup-key" / "key"
    code, said = run("key", path)
    assert code == 0
    ring = parse_keyring(path.read_text(), "keys")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().split()[1] not in said
    assert ring.current in said

    code, said = run("key", path)
    assert (code, "add --rotate" in said) == (2, True)
    code, said = run("key", path, "--rotate")
    assert code == 0
    rotated = parse_keyring(path.read_text(), "keys")
    assert rotated.ids == (rotated.current, ring.current)
    assert rotated.current != ring.current
    assert rotated.key(ring.current) == ring.key(ring.current)
    assert not any(line.split()[1] in said for line in path.read_text().splitlines())


def test_a_rotation_needs_a_key_file(tmp_path: Path) -> None:
    code, said = run("key", tmp_path / "none", "--rotate")
    assert (code, "leave --rotate out" in said) == (2, True)
    (tmp_path / "torn").write_text("nokey\n")
    code, said = run("key", tmp_path / "torn", "--rotate")
    assert code == 2
    assert "line 1: is not an id and a key" in said
    assert (tmp_path / "torn").read_text() == "nokey\n"


def test_prune_on_an_empty_folder(secrets: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed.yaml"
    feed.write_text(manifest(FOLDER.replace("PATH", str(tmp_path / "store"))))
    code, said = run("prune", "-c", feed, "--secrets-dir", secrets, "-o", "json")
    assert code == 0
    assert json.loads(said)["deletedBytes"] == 0
    assert not (tmp_path / "store").exists()
