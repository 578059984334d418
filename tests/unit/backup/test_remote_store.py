"""What S3 and B2 have in common, with a bucket in memory: credentials that become others while calls are under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from pydantic import SecretStr

from feedmill.general.backup.stores.base import Found, StoreError, StoreRefused
from feedmill.general.backup.stores.credentials import Credentials
from feedmill.general.backup.stores.remote import PARALLEL, Reading, RemoteStore, Unfinished
from feedmill.shared.config import ConfigError

PART = 16
CONTENT = bytes(range(200))


class Bucket:
    """Takes the secret ``good`` alone; parts with another one wait for each other and are then refused together."""

    where = "test://bucket/"
    prefix = ""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.read = Credentials(lambda key: self._secret(secrets, key), "id", "secret")
        self.parts: dict[int, bytes] = {}
        self.finished = b""
        self._together = threading.Barrier(PARALLEL)

    @staticmethod
    def _secret(secrets: dict[str, str], key: str) -> SecretStr:
        if key not in secrets:
            raise ConfigError(f"Secret 'bucket', key {key!r}: holds no file {key}")
        return SecretStr(secrets[key])

    @property
    def credentials(self) -> int:
        return self.read.version

    def renew(self, used: int) -> bool:
        return self.read.renew(used)

    def translated(self, error: Exception) -> StoreError | None:
        return None

    def check(self) -> None:
        self._let_in()

    def _let_in(self) -> None:
        if self.read.values()[1] != "good":
            raise StoreRefused(f"{self.where}: refused")

    def small(self, key: str, content: bytes) -> None:
        raise NotImplementedError

    def begin(self, key: str) -> str:
        return "upload"

    def part(self, key: str, upload: str, number: int, content: bytes) -> str:
        if self.read.values()[1] != "good":
            self._together.wait(60.0)
            raise StoreRefused(f"{self.where}: part {number} refused")
        self.parts[number] = content
        return f"{number}"

    def finish(self, key: str, upload: str, tags: list[str]) -> None:
        self.finished = b"".join(self.parts[int(tag)] for tag in tags)

    def abandon(self, key: str, upload: str) -> None:
        self.parts.clear()

    def open(self, key: str, start: int, size_bytes: int | None) -> Reading:
        raise NotImplementedError

    def page(self, prefix: str, after: str | None) -> tuple[list[Found], str | None]:
        return [Found(name, 1, 0) for name in ("a/b", "a/", "a/.hidden", "a/with space", "/c", "d")], None

    def unfinished(self, prefix: str, after: str | None) -> tuple[list[Unfinished], str | None]:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError


@pytest.fixture
def secrets() -> dict[str, str]:
    return {"id": "me", "secret": "former"}


@pytest.fixture
def bucket(secrets: dict[str, str]) -> Bucket:
    return Bucket(secrets)


@pytest.fixture
async def store(bucket: Bucket) -> AsyncIterator[RemoteStore]:
    made = RemoteStore(bucket, patience=1.0, pause=0.01, part_bytes=PART)
    yield made
    await made.close()


async def pieces() -> AsyncGenerator[bytes, None]:
    yield CONTENT


async def test_parts_that_are_refused_together_all_go_on_with_the_new_credentials(
    bucket: Bucket, store: RemoteStore, secrets: dict[str, str]
) -> None:
    assert bucket.read.values() == ("me", "former")
    secrets["secret"] = "good"
    assert (await store.put("a", pieces())).size_bytes == len(CONTENT)
    assert bucket.finished == CONTENT


async def test_what_is_refused_with_the_same_credentials_again_is_refused(bucket: Bucket, store: RemoteStore) -> None:
    with pytest.raises(StoreRefused, match="refused"):
        await store.check()
    assert bucket.credentials == 0


async def test_a_secret_that_is_away_is_told_as_a_refusal_and_may_come_back(
    bucket: Bucket, store: RemoteStore, secrets: dict[str, str]
) -> None:
    taken = secrets.pop("secret")
    with pytest.raises(StoreRefused, match="holds no file secret"):
        await store.check()
    secrets["secret"] = taken
    with pytest.raises(StoreRefused, match="refused"):
        await store.check()
    del secrets["secret"]  # It is being replaced.
    with pytest.raises(StoreRefused, match="holds no file secret"):
        await store.check()
    secrets["secret"] = "good"
    await asyncio.gather(*(store.check() for _ in range(8)))
    assert bucket.credentials == 1


async def test_names_that_are_none_of_ours_are_left_out(store: RemoteStore) -> None:
    assert [found.name for found in await store.list("")] == ["a/b", "d"]
