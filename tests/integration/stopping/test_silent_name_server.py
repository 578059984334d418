"""SIGTERM while a name server does not answer: the question holds a thread for a minute, and nobody waits for it.

In a mount namespace of its own, whose resolver asks a socket of this test: as root only.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .places import Place

pytestmark = pytest.mark.slow
NAME = "nosuch.feedmill.test"
ALONE = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')


class Silence:
    """A name server that is asked and says nothing."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        address = f"127.77.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}"
        self._socket.bind((address, 53))
        self._socket.setblocking(False)
        self._file = folder / "resolv.conf"
        self._file.write_text(f"nameserver {address}\noptions timeout:30 attempts:2\n")

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command: it and its children ask this server."""
        return (*ALONE, str(self._file))

    async def asked(self) -> None:
        async with asyncio.timeout(60):
            question = b""
            while b"feedmill" not in question:
                question = await asyncio.get_running_loop().sock_recv(self._socket, 1000)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def silence(tmp_path: Path) -> Iterator[Silence]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    try:
        made = Silence(tmp_path)
    except OSError as error:
        pytest.skip(f"no name server can be played here: {error}")
    try:
        if subprocess.run([*made.prefix, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no mount namespace can be made here")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("role", ["receiver", "distributor", "processor", "accounts", "maintenance"])
async def test_a_name_server_that_says_nothing(place: Place, silence: Silence, role: str) -> None:
    redis = database = ""
    if role == "receiver":
        place.stream = f"ws://{NAME}:9"
    elif role == "distributor":
        redis = f"redis://{NAME}:6379"
    else:
        database = f"postgresql://me:secret@{NAME}/d"
    service = await place.start(role, redis_url=redis, database_url=database, prefix=silence.prefix)
    await silence.asked()
    began = asyncio.get_running_loop().time()
    assert await service.end() == 0, service.text
    assert asyncio.get_running_loop().time() - began < 45, "it waited for the name server"
    service.assert_clean()
    assert service.events()[-1] == "stopped"
