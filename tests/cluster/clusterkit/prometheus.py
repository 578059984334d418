"""A real Prometheus (Debian's) for a test: it scrapes, evaluates rules, and is asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = "prometheus"
HOW = "prometheus is not installed (Debian: apt-get install prometheus)"
SCRAPE, LOOK = "1s", "500ms"
_MINUTES = re.compile(r"\b(\d+)m\b")


def installed() -> bool:
    return shutil.which(PROGRAM) is not None


def compressed(rule: dict[str, Any], factor: int) -> dict[str, Any]:
    """The same rule with its ``for`` and its ranges a ``factor`` shorter; no threshold, metric or label is touched."""

    def shorter(text: str) -> str:
        return _MINUTES.sub(lambda found: f"{int(found[1]) * 60_000 // factor}ms", text)

    # Ranges stand in brackets or behind the word offset; nothing else in these expressions ends in a bare m.
    expression = re.sub(r"\[\d+m\]|offset \d+m", lambda found: shorter(found[0]), rule["expr"])
    return rule | {"expr": expression, "for": shorter(rule["for"])}


class Prometheus:
    """``async with Prometheus(folder, scrape, rules) as prometheus``; its data is in ``folder`` and goes with it."""

    def __init__(self, folder: Path, scrape: dict[str, Any], rules: Sequence[dict[str, Any]]) -> None:
        """``scrape``: one of its ``scrape_configs``."""
        self._folder = folder
        self._scrape = scrape
        self._rules = list(rules)
        self._process: subprocess.Popen[bytes] | None = None
        self._http: aiohttp.ClientSession | None = None
        self.url = ""
        self.began = 0.0
        """Unix time."""

    async def __aenter__(self) -> Prometheus:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "rules.json").write_text(json.dumps({"groups": [{"name": "all", "rules": self._rules}]}))
        scrape = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE} | self._scrape
        config = {
            "global": {"evaluation_interval": LOOK},
            "rule_files": ["rules.json"],
            "scrape_configs": [scrape],
        }
        (self._folder / "prometheus.json").write_text(json.dumps(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.began = f"http://127.0.0.1:{port}", time.time()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    PROGRAM, "--config.file=prometheus.json", "--storage.tsdb.path=data", "--log.level=warn",
                    f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
                ],
                cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        async with asyncio.timeout(60):
            while not await self._ready():
                assert self._process.poll() is None, (self._folder / "log").read_text("utf-8", "replace")
                await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()
        if self._process is not None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, 20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)

    async def _ready(self) -> bool:
        assert self._http is not None
        try:
            async with self._http.get(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _ask(self, path: str, **parameters: str) -> Any:
        assert self._http is not None
        async with self._http.post(f"{self.url}/api/v1/{path}", data=parameters) as answer:
            document = await answer.json()
            assert document["status"] == "success", f"{document}\n{parameters}"
            return document["data"]

    async def now(self, expression: str) -> list[dict[str, Any]]:
        """Series with their values at present."""
        found: list[dict[str, Any]] = (await self._ask("query", query=expression))["result"]
        return found

    async def since(self, expression: str, began: float | None = None) -> list[dict[str, Any]]:
        """Series with their values since ``began`` (Unix time; None = the beginning), one every two seconds."""
        asked = {"start": f"{began or self.began:.3f}", "end": f"{time.time():.3f}", "step": "2"}
        found: list[dict[str, Any]] = (await self._ask("query_range", query=expression, **asked))["result"]
        return found

    async def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {series["metric"]["alertname"] for series in await self.now('ALERTS{alertstate="firing"}')}

    async def fired(self, since: float) -> set[str]:
        """Names of the alerts that have fired at some time since then (monotonic seconds)."""
        window = max(1000, round((time.monotonic() - since) * 1000))
        found = await self.now(f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{window}ms]))')
        return {series["metric"]["alertname"] for series in found}

    async def until_fires(self, *names: str, since: float, timeout: float = 120.0) -> float:
        """Until each has fired at some time since then (monotonic); answers how many seconds that took."""
        began, waiting = time.monotonic(), set(names)
        try:
            async with asyncio.timeout(timeout):
                while waiting := set(names) - await self.fired(since):
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise AssertionError(f"did not fire within {timeout:g} s: {sorted(waiting)}") from None
        return time.monotonic() - began

    async def until_resolved(self, *names: str, timeout: float = 120.0) -> float:
        """Until none of them fires; answers how many seconds that took."""
        began, waiting = time.monotonic(), set(names)
        try:
            async with asyncio.timeout(timeout):
                while waiting := set(names) & await self.firing():
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise AssertionError(f"did not resolve within {timeout:g} s: {sorted(waiting)}") from None
        return time.monotonic() - began

    async def metrics(self) -> set[str]:
        """Names of all series there have been."""
        return set(await self._get("label/__name__/values"))

    async def _get(self, path: str) -> Any:
        assert self._http is not None
        async with self._http.get(f"{self.url}/api/v1/{path}") as answer:
            return (await answer.json())["data"]
