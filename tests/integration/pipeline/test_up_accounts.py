"""``feedmill up -f examples/accounts.yaml`` with simulated exchanges in the place of the real ones: from the Secrets in
files to what ``feedmill fills`` shows, judged by the exchanges' ledger."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import yaml

from feedmill.local.demo.simulation import Simulation
from feedmill.local.embedded import EmbeddedRedis
from feedmill.simulator.report import Report
from feedmill.simulator.verify import verify

EXAMPLE = Path(__file__).parents[3] / "examples" / "accounts.yaml"
pytestmark = pytest.mark.timeout(600)
VENUES = {"binance-main": "binance/Spot", "deribit-main": "deribit/Derivatives"}


class Stage:
    """The example, pointed at simulated exchanges, with its Secrets as files."""

    def __init__(self, folder: Path, simulation: Simulation, environ: dict[str, str], kit: Any) -> None:
        self.folder, self.simulation, self.environ, self.kit = folder, simulation, environ, kit
        self.keys = json.loads((folder / "keys.json").read_text())
        self.names = {mine: self.keys[venue]["accounts"][0]["account"] for mine, venue in VENUES.items()}
        """ExchangeAccount -> the exchange's name of it."""
        self.manifest = folder / "accounts.yaml"
        documents = list(yaml.safe_load_all(EXAMPLE.read_text()))
        for document in documents:
            if document["kind"] == "ExchangeAccount":
                mine = document["metadata"]["name"]
                at = self.keys[VENUES[mine]]
                document["spec"]["exchange"]["endpoints"] = {"stream": at["stream"], "rest": at["rest"]}
                # The ledger knows accounts by the exchange's names.
                document["metadata"]["name"] = self.names[mine]
                self.put(document["spec"]["credentialsSecretRef"]["name"], at["accounts"][0])
        self.manifest.write_text(yaml.safe_dump_all(documents))

    def put(self, secret: str, key: dict[str, str]) -> None:
        """Both files at once, as Kubernetes does it: who looks in between would try a new key with an old secret."""
        place = self.folder / "secrets" / secret
        files, link = place.with_name(f".{secret}-{time.time_ns()}"), place.with_name(f".{secret}.new")
        files.mkdir(parents=True)
        for name in ("apiKey", "apiSecret"):
            (files / name).write_text(key[name])
        link.symlink_to(files.name)
        link.replace(place)

    async def feedmill(self, *arguments: str) -> asyncio.subprocess.Process:
        process: asyncio.subprocess.Process = await self.kit.feedmill(*arguments, **self.environ)
        return process

    async def up(self, *more: str) -> asyncio.subprocess.Process:
        files = ("-f", str(self.manifest), "--secrets-dir", str(self.folder / "secrets"))
        return await self.feedmill("up", *files, "--data-dir", str(self.folder / "data"), "--api-port", "0", *more)

    async def said(self, *arguments: str) -> tuple[int | None, str]:
        """Of a command that ends by itself."""
        process = await self.feedmill(*arguments)
        text: str = await self.kit.ended(process)
        return process.returncode, text

    async def sim(self, venue: str, path: str, body: Any = None) -> Any:
        url = f"{self.simulation.endpoints[venue].rest}/_sim/{path}"
        async with aiohttp.ClientSession() as http, http.post(url, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def new_key(self, mine: str) -> None:
        """Make one at the exchange, put it into the file, wait until it is used, end the former one."""
        venue, account = VENUES[mine], self.names[mine]
        await self.sim(venue, "accounts/key", {"account": account, "rotate": True, "seconds": 3600})
        written = json.loads((self.folder / "keys.json").read_text())[venue]["accounts"]
        self.put(mine, [key for key in written if key["account"] == account and "apiSecret" in key][-1])

        async def used() -> bool:
            keys = [key for key in await self.sim_keys(venue, account) if key["type"] == "hmac"]
            return len(keys) == 2 and keys[-1]["uses"] > 0

        await self.kit.until(used, 60.0)
        await self.sim(venue, "accounts/key", {"account": account, "replaced": True, "seconds": 0})

    async def sim_keys(self, venue: str, account: str) -> list[dict[str, Any]]:
        url = f"{self.simulation.endpoints[venue].rest}/_sim/accounts/keys"
        async with aiohttp.ClientSession() as http, http.get(url, params={"account": account}) as answer:
            found: list[dict[str, Any]] = await answer.json()
            return found

    async def rows(self, statement: str, *values: Any) -> list[Any]:
        try:
            connection = await asyncpg.connect(self.environ["DATABASE_URL"])
        except (OSError, asyncpg.PostgresError):
            return []
        try:
            return list(await connection.fetch(statement, *values))
        except asyncpg.UndefinedTableError:
            return []
        finally:
            await connection.close()

    async def health(self) -> dict[str, Any]:
        """What the account receiver says; empty while nobody answers."""
        try:
            port = int((self.folder / "data" / "run" / "main-accounts-0.port").read_text())
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/health") as answer:
                found: dict[str, Any] = (await answer.json())["accounts"]
                return found
        except (OSError, ValueError, KeyError, aiohttp.ClientError):
            return {}

    async def uses(self) -> dict[str, int]:
        """How often the audit log says that a Secret was used."""
        rows = await self.rows(
            "SELECT detail->>'secret' AS secret, count(*) AS n FROM audit_log WHERE action = 'use' GROUP BY 1"
        )
        return {row["secret"]: row["n"] for row in rows}

    async def act(self, venue: str, times: int) -> None:
        """Let the venue's account do something so many times."""
        await self.sim(venue, f"accounts/step?count={times}")

    async def has_state(self, name: str, state: str) -> bool:
        return ((await self.health()).get("states") or {}).get(f"default/{name}") == state

    async def until_listening(self, process: asyncio.subprocess.Process) -> None:
        async def listening() -> bool:
            assert process.returncode is None, "feedmill up has ended"
            states = (await self.health()).get("states") or {}
            return [states.get(f"default/{name}") for name in self.names.values()] == ["listening"] * 2

        await self.kit.until(listening, 180.0)

    async def until_whole(self, *, deribit: bool = True) -> None:
        """Until all that the exchanges did is stored."""
        before = (await self.gaps())[0] if deribit else -1
        if deribit:
            # It tells of deposits and withdrawals by REST alone, which is asked when an account is listened to anew.
            await self.simulation.cut_accounts(VENUES["deribit-main"])
        report = await self.compare()
        try:
            async with asyncio.timeout(180.0):
                # The cut is noticed, told as a gap and closed.
                while not report.ok or before == (told := await self.gaps())[0] or told[1]:
                    await asyncio.sleep(0.2)
                    report = await self.compare()
        except TimeoutError:
            pytest.fail("\n".join([*map(str, report.lines()), *(await self.explained())]))

    async def gaps(self) -> tuple[int, int]:
        """All there ever were, and those that are open."""
        (found,) = await self.rows("SELECT count(*), count(*) FILTER (WHERE state = 'open') FROM gaps")
        return found[0], found[1]

    async def explained(self) -> list[str]:
        """For a failure's message: what is missing, and where it could have gone."""
        gaps = await self.rows("SELECT shard, cause, state, from_ns, to_ns FROM gaps ORDER BY shard, from_ns")
        changes = await self.rows("SELECT account_id, asset, change, venue_ns FROM balance_changes ORDER BY venue_ns")
        told = (self.folder / "ledger" / "binance-Spot.transfers.tsv").read_text().splitlines()
        return [*(str(dict(row)) for row in (*gaps, *changes)), *told]

    async def compare(self) -> Report:
        return await verify(self.folder / "ledger", self.environ["DATABASE_URL"])


@pytest.fixture
async def stage(tmp_path: Path, redis_server: EmbeddedRedis, database_url: str, kit: Any) -> AsyncIterator[Stage]:
    counts = ",".join(f"{venue}=1" for venue in VENUES.values())
    asked = [part for venue in VENUES.values() for part in ("--exchange", venue)]
    asked += ["--ledger", str(tmp_path / "ledger"), "--keys", str(tmp_path / "keys.json"), "--rate", "0.001"]
    asked += ["--accounts", counts, "--account-rate", "0"]
    simulation = Simulation(tmp_path, tmp_path / "simulator.log", asked)
    await simulation.start()
    try:
        yield Stage(tmp_path, simulation, {"REDIS_URL": redis_server.url, "DATABASE_URL": database_url}, kit)
    finally:
        await simulation.stop()


async def stop(process: asyncio.subprocess.Process, kit: Any) -> str:
    process.send_signal(signal.SIGINT)
    text: str = await kit.ended(process)
    return text


async def test_the_example_from_secrets_to_fills(stage: Stage, kit: Any) -> None:
    # What happened before anybody listened is asked for.
    for venue in VENUES.values():
        await stage.act(venue, 40)
    process = await stage.up()
    try:
        await stage.until_listening(process)
        for venue in VENUES.values():
            await stage.act(venue, 60)
        await stage.until_whole()

        # No feed tells what the instruments are counted in: the accounts' own markets do.
        assert await stage.rows("SELECT FROM results")
        assert not await stage.rows(
            "SELECT FROM fills f LEFT JOIN results r USING (account_id, instrument_id) WHERE r.account_id IS NULL"
        )

        text = ""

        async def all_said() -> bool:
            nonlocal text
            code, text = await stage.said("status", "--data-dir", str(stage.folder / "data"))
            return code == 0 and "2 of 2 accounts listened to" in text

        # Deribit's connection was cut to make it whole; who was asked before it was ready is asked again in a while.
        await kit.until(all_said, 90.0)
        assert "main-accounts-0" in text
        shown = {line.split()[0]: line.split()[1] for line in text.splitlines() if len(line.split()) == 2}
        assert {shown.get(name) for name in stage.names.values()} == {"listening"}, text
        fills = await stage.rows("SELECT a.name FROM fills JOIN accounts a ON a.id = account_id")
        assert {row["name"] for row in fills} == set(stage.names.values())
        code, text = await stage.said("fills", "-o", "csv", "--limit", "10000")
        assert (code, len(text.splitlines())) == (0, 1 + len(fills)), text[:500]

        assert await stage.uses() == {"binance-main": 1, "deribit-main": 1}
        await stage.new_key("binance-main")
        assert (await stage.uses())["binance-main"] == 2
        # The former key is dead: what comes now comes by the new one.
        for venue in VENUES.values():
            await stage.act(venue, 30)
        await stage.until_whole()
    finally:
        text = await stop(process, kit)
    assert process.returncode == 0, text
    assert "stopping receivers and account receivers (they hand over what they hold)" in text
    assert "note:" not in text
    stored = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith("  ")}
    (at_end,) = await stage.rows("SELECT count(*) FROM fills")
    assert at_end["count"] > len(fills)
    assert stored["fills"] == f"{at_end['count']:,}"
    assert "orders" in stored
    # That nobody listens now is no gap to be told of: it is asked for at the next start.
    assert not [line for line in text.splitlines() if line.startswith("  gaps") and "open" in line], text
    assert (await stage.compare()).ok


async def test_what_happens_while_it_is_down_is_stored_at_the_next_start(stage: Stage, kit: Any) -> None:
    for round_ in range(2):
        process = await stage.up()
        try:
            await stage.until_listening(process)
            await stage.until_whole()
        finally:
            text = await stop(process, kit)
        assert process.returncode == 0, text
        if round_ == 0:
            for venue in VENUES.values():
                await stage.act(venue, 50)
            assert not (await stage.compare()).ok


async def test_a_key_that_may_withdraw_is_told_by_up_and_by_doctor(stage: Stage, kit: Any) -> None:
    venue, name = VENUES["binance-main"], stage.names["binance-main"]
    await stage.sim(venue, "accounts/key", {"account": name, "withdraw": True})
    secrets = ("--secrets-dir", str(stage.folder / "secrets"))
    code, text = await stage.said("doctor", "-f", str(stage.manifest), *secrets, "--json")
    found = {item["what"]: item for item in json.loads(text)}
    assert code == 1
    assert found[f"account default/{name}"]["grade"] == "fail", found
    assert "may withdraw" in found[f"account default/{name}"]["remedy"]
    other = found[f"account default/{stage.names['deribit-main']}"]
    assert other["grade"] in ("ok", "warn"), other

    process = await stage.up("--plain")
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(180):
            while not said or "may withdraw" not in said[-1]:
                line = await process.stdout.readline()
                assert line, "".join(said)
                said.append(line.decode())
        assert f"account default/{name}: " in said[-1]

        async def shown() -> bool:
            """A member that is too busy to answer in time is not shown."""
            _, words = await stage.said("status", "--data-dir", str(stage.folder / "data"))
            return f"account default/{name}: " in words

        await kit.until(shown)
    finally:
        text = await stop(process, kit)
    assert process.returncode == 0, text


STORE = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  accounts: {keyEncryptionSecretRef: {name: kek, key: kek}}
"""


async def test_accounts_of_the_store_come_and_go_while_it_runs(stage: Stage, kit: Any) -> None:
    kek = stage.folder / "secrets" / "kek" / "kek"
    kek.parent.mkdir()
    kek.write_text(f"2026-11 {bytes(range(7, 39)).hex()}\n")
    stage.manifest.write_text(STORE)
    at, name = stage.keys["binance/Spot"], stage.names["binance-main"]
    process = await stage.up()
    try:
        await kit.until(stage.health, 90.0)
        code, text = await stage.said(
            *("accounts", "add", name, "--exchange", "binance", "--market", "Spot", "--kek-file", str(kek)),
            *("--stream-endpoint", at["stream"], "--rest-endpoint", at["rest"]),
            *("--secret-file", str(stage.folder / "secrets" / "binance-main")),
        )
        assert code == 0, text
        await kit.until(lambda: stage.has_state(name, "listening"), 60.0)
        await stage.act("binance/Spot", 60)
        await stage.until_whole(deribit=False)
        code, text = await stage.said("accounts", "disable", name)
        assert code == 0, text
        await kit.until(lambda: stage.has_state(name, "disabled"), 60.0)
    finally:
        text = await stop(process, kit)
    assert process.returncode == 0, text
    assert "note:" not in text


async def test_an_account_without_its_secrets_is_refused_before_anything_starts(stage: Stage) -> None:
    (stage.folder / "secrets" / "deribit-main" / "apiSecret").unlink()
    files = ("-f", str(stage.manifest), "--secrets-dir", str(stage.folder / "secrets"))
    code, text = await stage.said("up", *files, "--data-dir", str(stage.folder / "data"))
    assert code == 2
    name = stage.names["deribit-main"]
    assert (
        f"ExchangeAccount default/{name}: spec.credentialsSecretRef: Secret 'deribit-main': apiSecret is miss" in text
    )
    assert not (stage.folder / "data").exists()
    assert stage.keys["deribit/Derivatives"]["accounts"][0]["apiKey"] not in text
