"""``feedmill run accounts`` as a process: it follows its manifests and mounted secrets, and says how accounts are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pool_stage import DERIBIT, SPOT, Bed, until

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.
PIPELINE = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main}}
spec:
  redis: {{managed: {{}}}}
  postgres: {{managed: {{}}}}
  accounts: {{keyEncryptionSecretRef: {{name: kek, key: keys}}, permissions: {{withdraw: {withdraw}}}}}
"""
ACCOUNT = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: {exchange}, market: {market}, endpoints: {{stream: "{stream}", rest: "{rest}"}}}}
  credentialsSecretRef: {{name: {name}}}
  suspend: {suspend}
"""


def replace_file(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


class Process:
    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.manifest = bed.folder / "manifest.yaml"
        self.log = bed.folder / "member.log"
        self._port_file = bed.folder / "port"
        self._process: asyncio.subprocess.Process | None = None

    def write(self, *accounts: tuple[str, str, bool], withdraw: str = "Refuse") -> None:
        """``accounts``: venue, namespace/name, suspended."""
        text = PIPELINE.format(withdraw=withdraw)
        for venue, name, suspend in accounts:
            exchange, _, market = venue.partition("/")
            text += ACCOUNT.format(
                name=name.rpartition("/")[2], exchange=exchange, market=market, suspend=json.dumps(suspend),
                **self.bed.endpoints(venue),
            )  # fmt: skip
        replace_file(self.manifest, text)

    async def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if name != "FEEDMILL_KEK_FILE"}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feedmill.cli.main", "run", "accounts", "-c", str(self.manifest),
                "--pipeline", "default/main", "--secrets-dir", str(self.bed.settings.secrets_dir),
                "--port-file", str(self._port_file),
                env=kept | {"REDIS_URL": self.bed.redis.url, "DATABASE_URL": self.bed.database_url},
                stdout=log, stderr=log,
            )  # fmt: skip
        await until(self._port_file.exists)

    async def health(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{int(self._port_file.read_text())}/health") as answer,
        ):
            found = await answer.json()
            assert isinstance(found, dict)
            return found

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{int(self._port_file.read_text())}/metrics") as answer,
        ):
            return await answer.text()

    async def states(self, wanted: dict[str, str]) -> None:
        async def so() -> bool:
            return bool((await self.health())["accounts"]["states"] == wanted)

        try:
            await until(so)
        except TimeoutError:
            raise AssertionError(f"{await self.health()}\n{self.log.read_text()}") from None

    async def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def test_it_follows_manifests_secrets_and_key_files(start_bed: Start) -> None:
    bed = await start_bed(SPOT, DERIBIT)
    one, stored = bed.names(SPOT)
    option, later = bed.names(DERIBIT)
    await bed.add(SPOT, stored)
    for name in (option, later):
        bed.write_secret(DERIBIT, name)
    process = Process(bed)
    process.write((SPOT, one, False), (DERIBIT, option, False))
    await process.start()
    try:
        # Neither the key-encryption keys nor one of the Secrets are there yet.
        await process.states({one: "refused", option: "listening", stored: "refused"})
        problems = (await process.health())["accounts"]["problems"]
        assert "spec.credentialsSecretRef" in problems[one]["why"]
        assert "keys" in problems[stored]["why"]
        folder = bed.settings.secrets_dir
        assert folder is not None
        (folder / "kek").mkdir()
        replace_file(folder / "kek" / "keys", bed.kek.read_text())
        bed.write_secret(SPOT, one)
        await process.states({one: "listening", option: "listening", stored: "listening"})

        before = (await process.health())["config"]["hash"]
        process.write((SPOT, one, True), (DERIBIT, option, False), (DERIBIT, later, False))
        await process.states({one: "disabled", option: "listening", stored: "listening", later: "listening"})
        config = (await process.health())["config"]
        assert config["hash"] != before
        assert config["error"] == ""

        bed.side(DERIBIT).change_key(later.rpartition("/")[2], {"withdraw": True})
        process.write((SPOT, one, False), (DERIBIT, option, False), (DERIBIT, later, False), withdraw="Flag")
        await process.states({one: "listening", option: "listening", stored: "listening", later: "listening"})
        await bed.step(60)
        await bed.equal()
        done = (await process.health())["work"]
        assert done["storing"]["fills"] > 10
        assert {each["error"] for each in (done["storing"], *done["distributing"].values())} == {""}

        async def counted() -> bool:
            states = 'feedmill_account_accounts{exchange="binance",market="Spot",state="listening"} 2.0'
            return states in await process.metrics()

        await until(counted)  # They are counted every few seconds.
        metrics = await process.metrics()
        assert 'feedmill_account_keys{verdict="warning"}' in metrics
        assert "feedmill_account_receive_to_commit_seconds_count" in metrics
        assert "binance-spot-000" not in metrics
        assert await process.stop() == 0, process.log.read_text()
    finally:
        await process.kill()
    said = process.log.read_text()
    secrets = [*bed.secrets(SPOT, one).values(), *bed.secrets(SPOT, stored).values()]
    assert not any(secret.get_secret_value() in said for secret in secrets)
    assert bed.kek.read_text().split()[1] not in said
