"""Settings: from the environment, from files and from mounted Secrets, checked before anything connects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from feedmill.resources.pipeline import FeedPipeline, default_pipeline
from feedmill.shared import log
from feedmill.shared.config import (
    MAX_SECRET_BYTES,
    ConfigError,
    SecretsDir,
    check_database_url,
    read_setting,
    resolve_urls,
)
from feedmill.shared.log import redact

SECRET = "hunter2222"
REDIS, DATABASE = f"redis://:{SECRET}@r:6379/1", f"postgresql://me:{SECRET}@p:5432/feeds"


@pytest.fixture(autouse=True)
def only_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_secrets", [])


def own_servers(**tls: Any) -> FeedPipeline:
    def server(name: str) -> dict[str, Any]:
        ca = {"tls": {"caSecretRef": {"name": name, "key": "ca.crt"}}} if tls.get(name) else {}
        return {"urlSecretRef": {"name": name, "key": "url"}, **ca}

    spec = {"redis": server("redis"), "postgres": server("postgres")}
    return FeedPipeline.model_validate({"metadata": {"name": "main"}, "spec": spec})


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Secrets as the kubelet mounts them: key -> ..data/key, ..data -> a folder with a date."""
    root = tmp_path / "secrets"
    for name, files in {
        "redis": {"url": REDIS, "ca.crt": "PEM"},
        "postgres": {"url": f"{DATABASE}\n", "ca.crt": "PEM"},
    }.items():
        data = root / name / "..2026_01_02"
        data.mkdir(parents=True)
        (root / name / "..data").symlink_to("..2026_01_02")
        for key, content in files.items():
            (data / key).write_text(content)
            (root / name / key).symlink_to(f"..data/{key}")
    return root


def test_a_setting_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{REDIS}\n")
    assert read_setting({}, "REDIS_URL") is None
    assert read_setting({"REDIS_URL": "", "REDIS_URL_FILE": ""}, "REDIS_URL") is None
    for env in ({"REDIS_URL": REDIS}, {"REDIS_URL_FILE": str(file)}):
        value = read_setting(env, "REDIS_URL")
        assert value is not None
        assert value.get_secret_value() == REDIS
        assert SECRET not in f"{value} {value!r}"


def test_both_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL and REDIS_URL_FILE are both set: keep one$"):
        read_setting({"REDIS_URL": REDIS, "REDIS_URL_FILE": str(tmp_path / "url")}, "REDIS_URL")


def test_files_that_hold_no_setting(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * (MAX_SECRET_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("missing", "there is no file .*: check the path"),
        ("empty", "is empty: write the value into it"),
        ("large", "is larger than 65536 bytes: it should hold one value"),
        ("binary", "is not UTF-8 text"),
        ("pipe", "is not a regular file"),
        (".", "is not a regular file"),
    ):
        with pytest.raises(ConfigError, match=rf"^DATABASE_URL_FILE: .*{said}"):
            read_setting({"DATABASE_URL_FILE": str(tmp_path / name)}, "DATABASE_URL")


def test_mounted_secrets_are_read_and_redacted(secrets: Path) -> None:
    value = SecretsDir(secrets).read("postgres", "url")
    assert value.get_secret_value() == DATABASE
    assert DATABASE not in redact(f"it is {DATABASE}")


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("mysql", "url", r"Secret 'mysql', key 'url': .* does not exist: make it, or check the reference's name"),
        ("redis", "uri", r"Secret 'redis', key 'uri': .* holds no file uri: add it, or check the reference's key"),
        ("redis", "link", r"leads out of .*: put the file itself there"),
        ("redis", "up", r"leads out of .*: put the file itself there"),
        ("redis", "circle", "holds no file circle"),
        ("redis", "hanging", "holds no file hanging"),
        ("outside", "url", r"leads out of"),
        ("redis", "folder", "is not a regular file"),
        ("..", "url", "not a name Kubernetes knows"),
        ("a/b", "url", "not a name Kubernetes knows"),
        ("redis", "..", "not a name Kubernetes knows"),
        ("redis", "../redis/url", "not a name Kubernetes knows"),
        ("redis", "..data", "not a name Kubernetes knows"),
        ("", "url", "not a name Kubernetes knows"),
        ("redis", "", "not a name Kubernetes knows"),
        ("redis", "url\n", "not a name Kubernetes knows"),
    ],
)
def test_nothing_outside_of_the_folder_is_read(name: str, key: str, said: str, secrets: Path) -> None:
    outside = secrets.parent / "outside"
    outside.mkdir()
    (outside / "url").write_text(SECRET)
    (secrets / "redis" / "link").symlink_to(outside / "url")
    (secrets / "redis" / "up").symlink_to("../../outside/url")
    (secrets / "redis" / "circle").symlink_to("circle")
    (secrets / "redis" / "hanging").symlink_to("nothing")
    (secrets / "redis" / "folder").mkdir()
    (secrets / "outside").symlink_to(outside)
    with pytest.raises(ConfigError, match=said) as caught:
        SecretsDir(secrets).read(name, key)
    assert SECRET not in str(caught.value)


def test_a_folder_reached_by_a_link_is_contained_alike(secrets: Path) -> None:
    link = secrets.parent / "link"
    link.symlink_to(secrets)
    assert SecretsDir(link).read("redis", "url").get_secret_value() == REDIS
    with pytest.raises(ConfigError, match="there is no such folder: check the path"):
        SecretsDir(secrets / "nowhere")
    with pytest.raises(ConfigError, match="is not a folder"):
        SecretsDir(secrets / "redis" / "url")


def test_urls_from_the_environment_come_first(secrets: Path) -> None:
    env = {"REDIS_URL": "redis://other:1/0", "DATABASE_URL": "postgresql://me@other/feeds"}
    redis, database = resolve_urls(own_servers(), env, secrets)
    assert (redis.host, database) == ("other", "postgresql://me@other/feeds")
    redis, database = resolve_urls(default_pipeline("default", "main"), env)
    assert redis.port == 1


def test_urls_from_the_secrets_the_pipeline_names(secrets: Path) -> None:
    redis, database = resolve_urls(own_servers(), {}, secrets)
    assert (redis.host, redis.db, redis.password, database) == ("r", 1, SECRET, DATABASE)
    assert redact(f"with {SECRET} inside") == "with [redacted] inside"


def test_certificate_authorities(secrets: Path) -> None:
    (secrets / "redis" / "..data" / "url").write_text("rediss://r/0")
    redis, database = resolve_urls(own_servers(redis=True, postgres=True), {}, secrets)
    assert redis.ca_file == str((secrets / "redis" / "ca.crt").resolve())
    assert "sslmode=verify-full" in database
    assert "sslrootcert=" in database
    (secrets / "postgres" / "..data" / "url").write_text(f"{DATABASE}?sslmode=prefer")
    with pytest.raises(ConfigError, match="sslmode may go without: remove sslmode"):
        resolve_urls(own_servers(postgres=True), {}, secrets)
    (secrets / "redis" / "..data" / "url").write_text("redis://r/0")
    with pytest.raises(ConfigError, match=r"spec.redis.tls is set, but the URL is not rediss://: change one of them"):
        resolve_urls(own_servers(redis=True), {}, secrets)
    with pytest.raises(ConfigError, match=r"caSecretRef names Secret 'redis': give --secrets-dir"):
        resolve_urls(own_servers(redis=True), {"REDIS_URL": "rediss://r/0", "DATABASE_URL": DATABASE})


def test_what_is_missing_is_named_with_every_way_to_give_it() -> None:
    managed = default_pipeline("team", "main")
    said = "^FeedPipeline team/main: spec.redis is managed and REDIS_URL is not set: start it with feedmill up, or set"
    with pytest.raises(ConfigError, match=said):
        resolve_urls(managed, {})
    with pytest.raises(ConfigError, match=r"spec.postgres is managed and DATABASE_URL is not set"):
        resolve_urls(managed, {"REDIS_URL": REDIS})
    said = (
        "spec.redis.urlSecretRef names Secret 'redis': give --secrets-dir with a file redis/url in it, or set REDIS_URL"
    )
    with pytest.raises(ConfigError, match=said):
        resolve_urls(own_servers(), {})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/d",
        "postgres://me:p%2Fw@h:5432/d",
        "postgresql://me@h1:1,h2:2/d?target_session_attrs=read-write",
        "postgresql://me@[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://me@h/?dbname=d",
        "postgresql://me@h/d?sslmode=verify-full",
    ],
)
def test_database_urls(url: str) -> None:
    assert check_database_url(f" {url}\n") == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"mysql://me:{SECRET}@h/d", "does not begin with postgresql://"),
        (f"{SECRET}", "does not begin with postgresql://"),
        (f"{SECRET}://h", "does not begin with postgresql://"),
        (f"postgresql+asyncpg://me:{SECRET}@h/d", r"names a driver \(\+\.\.\.\)"),
        (f"postgresql://me:{SECRET}/x@h/d", "host and port cannot be read"),
        (f"postgresql://me:{SECRET}#x@h/d", "host and port cannot be read"),
        (f"postgresql://me:{SECRET}?x@h/d", "host and port cannot be read"),
        (f"postgresql://me:12/{SECRET}@h/d", "database name cannot be read"),
        (f"postgresql://me:{SECRET}@", "names no host"),
        (f"postgresql://me:{SECRET}@h", "names no database"),
        (f"postgresql://me:{SECRET}@h/", "names no database"),
        (f"postgresql://me:{SECRET}@h:0/d", "port is not 1 to 65535"),
        (f"postgresql://me:{SECRET}@h:70000/d", "port is not 1 to 65535"),
        (f"postgresql://me:{SECRET}@h:{SECRET}/d", "host and port cannot be read"),
        (f"postgresql://me:{SECRET}@[::1/d", "cannot be read"),
        (f"postgresql://me:{SECRET}@h/d?sslmode={SECRET}", "sslmode is not known: write one of disable, allow,"),
        (f"postgresql://me:{SECRET}@h/d#{SECRET}", "database name cannot be read"),
    ],
)
def test_wrong_database_urls_are_not_repeated(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^DATABASE_URL: the database URL.*{said}") as caught:
        check_database_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("bad", [f"redis://:{SECRET}/x@h", f"http://{SECRET}", f"redis://h/{SECRET}"])
def test_wrong_redis_urls_are_not_repeated_and_their_source_is_named(bad: str, secrets: Path) -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL: ") as caught:
        resolve_urls(own_servers(), {"REDIS_URL": bad}, secrets)
    assert SECRET not in str(caught.value)
    (secrets / "redis" / "..data" / "url").write_text(bad)
    with pytest.raises(ConfigError, match=r"^FeedPipeline default/main: spec\.redis\.urlSecretRef: ") as caught:
        resolve_urls(own_servers(), {}, secrets)
    assert SECRET not in str(caught.value)


def test_passwords_of_urls_are_redacted_also_percent_encoded() -> None:
    check_database_url("postgresql://me:p%40ss%2Fword@h/d?password=an0therone")
    shown = redact("p@ss/word, p%40ss%2Fword and an0therone")
    assert shown == "[redacted], [redacted] and [redacted]"
