"""URLs of the user's own servers that stand in files are followed, by this process and by its services."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.local.servers import LocalServers
from feedmill.shared.log import redact

REDIS = "redis://me:{}@127.0.0.1:6379/0"
DATABASE = "postgresql://me:{}@127.0.0.1:5432/feeds"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"REDIS_URL_FILE": tmp_path / "redis", "DATABASE_URL_FILE": tmp_path / "database"}
    found["REDIS_URL_FILE"].write_text(REDIS.format("first-one") + "\n")
    found["DATABASE_URL_FILE"].write_text(DATABASE.format("first-one") + "\n")
    return found


def test_services_get_the_files_and_this_process_their_content(tmp_path: Path, files: dict[str, Path]) -> None:
    servers = LocalServers(tmp_path, {name: str(path) for name, path in files.items()}, embedded=False)
    assert servers.environment() == {name: str(path) for name, path in files.items()}
    assert (servers.redis_url, servers.database_url) == (REDIS.format("first-one"), DATABASE.format("first-one"))

    files["REDIS_URL_FILE"].write_text(REDIS.format("second-one"))
    files["DATABASE_URL_FILE"].write_text(DATABASE.format("second-one"))
    servers.follow()
    assert (servers.redis_url, servers.database_url) == (REDIS.format("second-one"), DATABASE.format("second-one"))
    assert "second-one" not in redact("the password is second-one")


@pytest.mark.parametrize("content", ["", "http://elsewhere", "postgresql://"])
def test_what_cannot_be_used_is_not_taken_up(tmp_path: Path, files: dict[str, Path], content: str) -> None:
    servers = LocalServers(tmp_path, {name: str(path) for name, path in files.items()}, embedded=False)
    for path in files.values():
        path.write_text(content)
    servers.follow()
    assert (servers.redis_url, servers.database_url) == (REDIS.format("first-one"), DATABASE.format("first-one"))
    files["REDIS_URL_FILE"].unlink()
    servers.follow()
    assert servers.redis_url == REDIS.format("first-one")


def test_urls_themselves_are_handed_on(tmp_path: Path) -> None:
    given = {"REDIS_URL": REDIS.format("only-one"), "DATABASE_URL": DATABASE.format("only-one")}
    servers = LocalServers(tmp_path, given, embedded=False)
    servers.follow()
    assert servers.environment() == given
