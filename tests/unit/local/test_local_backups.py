"""Which backups local mode makes, and what it says where it cannot."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from feedmill.local.backups import backup_workloads
from feedmill.resources.collection import Resources
from feedmill.resources.load import load_files
from feedmill.shared.config import ConfigError

PIPELINE = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: {name}}}
spec:
  redis: {{managed: {{}}}}
  postgres: {{managed: {{}}}}
  backup:
    schedule: "0 3 * * *"
    destination: {{folder: {{path: backups}}}}
    encryption: {{keySecretRef: {{name: backup-key, key: key}}}}
    suspend: {suspend}
---
"""


def resources(folder: Path, *names: str, suspend: str = "false") -> Resources:
    path = folder / "pipelines.yaml"
    path.write_text("".join(PIPELINE.format(name=name, suspend=suspend) for name in names))
    return load_files([path], local=True)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    key = tmp_path / "secrets" / "backup-key" / "key"
    key.parent.mkdir(parents=True)
    key.write_text(f"k1 {base64.b64encode(os.urandom(32)).decode()}\n")
    return tmp_path / "secrets"


def test_one_process_does_all_of_it(tmp_path: Path, secrets: Path) -> None:
    (load,), lines = backup_workloads(resources(tmp_path, "main"), secrets)
    assert (load.role, load.name) == ("backup", "main-backup")
    assert load.args == ("run", "backup", "--pipeline", "default/main", "--schedules")
    assert lines == []


def test_without_secrets_it_is_said_that_nothing_is_backed_up(tmp_path: Path) -> None:
    made, (line,) = backup_workloads(resources(tmp_path, "main"), None)
    assert made == []
    assert "NOTHING IS BACKED UP" in line
    assert "backup-key/key" in line


def test_suspended_ones_are_left_out(tmp_path: Path) -> None:
    assert backup_workloads(resources(tmp_path, "main", suspend="true"), None) == ([], [])


def test_a_key_that_is_missing_is_told_before_anything_starts(tmp_path: Path, secrets: Path) -> None:
    (secrets / "backup-key" / "key").unlink()
    with pytest.raises(ConfigError, match="key"):
        backup_workloads(resources(tmp_path, "main"), secrets)


def test_one_database_one_backup(tmp_path: Path, secrets: Path) -> None:
    with pytest.raises(ConfigError, match="local mode has one database"):
        backup_workloads(resources(tmp_path, "main", "other"), secrets)
