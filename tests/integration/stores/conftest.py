"""Stores to test: a folder, S3 by moto's server, B2 by b2sdk's simulator; the latter two over HTTP."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from b2_server import B2Server
from s3_server import S3Server
from store_helpers import bucket_of, remote

from feedmill.general.backup.stores.base import ObjectStore
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.general.backup.stores.remote import RemoteStore


@pytest.fixture
def b2() -> Iterator[B2Server]:
    server = B2Server()
    yield server
    server.stop()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(params=["s3", "b2"])
def server(request: pytest.FixtureRequest) -> S3Server | B2Server:
    found: S3Server | B2Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def remote_store(server: S3Server | B2Server) -> AsyncIterator[RemoteStore]:
    store = remote(bucket_of(server))
    yield store
    await store.close()


@pytest.fixture(params=["folder", "s3", "b2"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    found: ObjectStore
    if request.param == "folder":
        found = FolderStore(tmp_path / "backups")
    else:
        found = remote(bucket_of(request.getfixturevalue(request.param)))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(found.close)
        yield found
