"""Unique secrets of a dozen kinds are planted, everything runs through everything, and none is found anywhere.

That the scanner finds what is there is shown in tests/unit/faults/test_leak_scanner.py, and here on the secrets' files.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from leak_bed import ACCOUNT, DERIBIT, FEED, PIPELINE, SPOT, TELLS, USDM, Bed, bed, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STORED = {  # Account -> (venue, kind of key): in the credential store.
    "binance-spot-0001": (SPOT, "hmac"),
    "binance-spot-0002": (SPOT, "ed25519"),
    "binance-usdm-0001": (USDM, "hmac"),
    "deribit-derivatives-0001": (DERIBIT, "hmac"),
}
DECLARED = {"binance-usdm-0002": (USDM, "ed25519"), "deribit-derivatives-0002": (DERIBIT, "hmac")}
EVERY = {*STORED, *DECLARED}
BACKUP = """  backup:
    schedule: "0 3 * * *"
    destination: {{folder: {{path: "{folder}"}}}}
    encryption: {{keySecretRef: {{name: backup-key, key: key}}}}
"""
KEYS = {
    "Binance hmac key id", "Binance hmac key secret", "Binance ed25519 key id", "Binance ed25519 key secret",
    "Deribit client id", "Deribit client secret", "redis password", "postgres password", "KEK",
    "bot token",
}  # fmt: skip


async def test_services_through_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Any) -> None:
    async with bed(tmp_path, monkeypatch) as world:
        await _add_accounts(world)
        await _start(world, collector.url)
        await world.more_fills(EVERY)
        await _look(world)
        await _connections_end(world)
        await _servers_end(world)
        await _venues_refuse_and_repeat(world)
        await _look(world)
        await world.stop()
        await world.look_at_redis()
    for body in collector.bodies:
        world.scanner.look("traces", body)
    for text in world.chat.texts:
        world.scanner.look("messages", text)
    _look_at_files(world)
    assert world.scanner.kinds == {*KEYS, "listen key", "access token", "refresh token", "signature of a query"}
    assert world.scanner.leaks == []
    places = [f"{name}.log" for name in ("accounts", "receiver", "distributor", "processor", "maintenance", "notify")]
    for name in world.processes:
        places += [f"/health of {name}", f"/metrics of {name}", f"arguments of {name}"]
        if os.geteuid() == 0:  # Who is not root may not look into them: see feedmill.shared.dumps.
            places.append(f"environment of {name}")
    places += ["table fills", "table notifications", "traces", "messages"]
    _looked_at(world, "keys of Redis", "values of Redis: stream", *places)
    assert world.chat.refused
    assert any(place.startswith("redis/") and place.endswith(".aof") for place in world.scanner.looked)


async def test_commands_and_people_who_mistype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bed(tmp_path, monkeypatch) as world:
        await _add_accounts(world)
        await _people_look(world)
        await _people_err(world)
        await _move_in(world)
        await _back_up(world)
        await world.look_at_postgres()
    _look_at_files(world)
    # The keys are looked at at the exchanges before they are stored.
    asked = {"signature of a query", "access token", "refresh token"}
    assert world.scanner.kinds == {*KEYS, *asked, "imported secret", "mistyped secret", "backup key"}
    assert world.scanner.leaks == []
    said = [f"accounts {name}" for name in ("add", "list", "show", "rewrap")] + ["import pickle", "query select 1"]
    said += ["notify test", "notify list"]
    _looked_at(world, "arguments of feedmill accounts", *(f"output of feedmill {name}" for name in said))
    # What was backed up is sealed, manifests and drills are not.
    stored = [place for place in world.scanner.looked if place.startswith("backups/")]
    assert {place.rpartition("/")[2] for place in stored} >= {"data", "manifest.json"}
    assert any(place.startswith("backups/default/main/drills/") for place in stored)


def _look_at_files(world: Bed) -> None:
    """Also for what was planted late: logs, both servers' files, the ledger. The scanner finds what is there: in the
    secrets' own files."""
    scanner = world.scanner
    world.overheard.plant_signatures()
    servers = (world.work / "redis" / "password", world.work / "postgres" / "password")
    scanner.look_folder(world.work, frozenset(servers))
    _looked_at(world, "table credentials", "table audit_log", "pg_stat_activity", "postgres/postgresql.log")
    assert any(place.startswith("postgres/pgdata/pg_wal/") for place in scanner.looked)
    before = list(scanner.leaks)
    held = {leak.kind for leak in scanner.look_folder(world.secrets)}
    assert held >= {"Deribit client secret", "redis password", "postgres password", "KEK"}
    scanner.leaks[:] = before


def _looked_at(world: Bed, *places: str) -> None:
    assert [place for place in places if not world.scanner.looked.get(place)] == []


async def _add_accounts(world: Bed) -> None:
    await world.command("migrate")
    for name, (_, kind) in DECLARED.items():
        world.secret(name, **world.files_of(name, kind))
    for name, (venue, kind) in STORED.items():
        stream, rest = world.sim.endpoints[venue]
        options = ["--exchange", venue.partition("/")[0], "--market", venue.partition("/")[2]]
        options += ["--stream-endpoint", stream, "--rest-endpoint", rest]
        await world.command("accounts", "add", name, *options, "--secret-file", "-",
                            given=json.dumps(world.files_of(name, kind)))  # fmt: skip


async def _start(world: Bed, collector: str) -> None:
    traced = f'  monitoring: {{tracing: {{otlpEndpoint: "{collector}", samplingPercent: 100}}}}\n'
    manifest = PIPELINE + traced + TELLS.format(url=world.chat.url)
    manifest += FEED.format(stream=world.sim.endpoints[SPOT][0], rest=world.sim.endpoints[SPOT][1])
    for name, (venue, _) in DECLARED.items():
        exchange, _, market = venue.partition("/")
        stream, rest = world.sim.endpoints[venue]
        manifest += ACCOUNT.format(name=name, exchange=exchange, market=market, stream=stream, rest=rest)
    world.manifest.write_text(manifest)
    await world.start("accounts", "accounts", "--pipeline", "default/main")
    await world.start("receiver", "receiver", "--feed", "default/feed", "--shard", "0")
    await world.start("distributor", "distributor", "--feed", "default/feed", "--shard", "0")
    await world.start("processor", "processor", "--pipeline", "default/main")
    await world.start("maintenance", "maintenance", "--pipeline", "default/main")
    await world.start("notify", "notify", "--pipeline", "default/main", "--processes", str(world.work))


async def _look(world: Bed) -> None:
    await world.look_at_services()
    await world.look_at_redis()
    await world.look_at_postgres()


async def _connections_end(world: Bed) -> None:
    """Also what was granted for a time; and messages that nobody can read. Each end costs weight for reconciling."""
    # Those of before may have ended by themselves: until there is one.
    await until(lambda: world.sim.fault("abort", channel="Account") >= 1, "aborted")
    await world.more_fills(EVERY)
    world.sim.fault("bad_bytes", channel="Account", variant="json", count=1)
    world.sim.fault("unknown_fields", channel="Account", count=5)
    await until(lambda: world.sim.fault("expire_session") >= 1, "expired")
    await world.more_fills(EVERY)


async def _servers_end(world: Bed) -> None:
    for server in (world.redis, world.postgres):
        await asyncio.to_thread(server.kill)
    await until(lambda: "redis_away" in world.log_of("accounts"), "noticed")
    for server in (world.redis, world.postgres):
        await asyncio.to_thread(server.start)
    await world.more_fills(EVERY)


async def _venues_refuse_and_repeat(world: Bed) -> None:
    """Errors, whose text has all that was sent in it: URLs, signatures, keys, tokens."""
    echoed = world.overheard.echoed
    world.overheard.echo = True
    world.chat.refuses = True
    # With codes that nobody knows the venue's words are all there is to tell.
    world.overheard.unknown = True
    world.sim.fault("rest_500", count=10)
    world.sim.fault("abort", channel="Account")  # Each is reconciled over REST.
    await until(lambda: echoed["rest"] > 5, "refused")
    world.sim.fault("clear")
    for unknown in (False, True):
        world.overheard.unknown = unknown
        before = dict(echoed)
        for name, (venue, _) in (STORED | DECLARED).items():
            world.sim.venues[venue].private.rotate(name)  # What was opened with the old ones ends.
        await until(lambda before=before: all(echoed[way] > before[way] for way in echoed), "refused everywhere")
        await world.look_at_services()
        await world.look_at_redis()
        await _keys_change(world)
    await world.more_fills(EVERY)
    await until(lambda: world.chat.refused > 2, "refused by the chat")
    world.overheard.echo = world.chat.refuses = False


async def _keys_change(world: Bed) -> None:
    for name, (_, kind) in STORED.items():
        await world.command("accounts", "rotate-key", name, "--secret-file", "-",
                            given=json.dumps(world.files_of(name, kind)))  # fmt: skip
    for name, (_, kind) in DECLARED.items():
        world.secret(name, **world.files_of(name, kind))


async def _people_look(world: Bed) -> None:
    assert await world.command("accounts", "show", "binance-spot-0002")
    assert await world.command("query", "select 1")
    world.manifest.write_text(PIPELINE + TELLS.format(url=world.chat.url))
    asked = ("-c", str(world.manifest), "--secrets-dir", str(world.secrets))
    await world.told("notify", "test", *asked)
    world.overheard.echo = world.chat.refuses = True
    await world.told("notify", "test", *asked, code=1)
    await world.told("notify", "chats", *asked, code=1)
    world.overheard.echo = world.chat.refuses = False
    for words in (
        ("notify", "list"),
        ("accounts", "list"), ("accounts", "list", "-o", "json"), ("accounts", "show", "binance-spot-0001"),
        ("accounts", "show", "deribit-derivatives-0001", "-o", "json"), ("accounts", "rewrap"),
        ("orders", "--account", "binance-spot-0001"), ("fills", "--account", "binance-spot-0002"), ("balances",),
        ("query", "select * from credentials"), ("query", "select * from audit_log"), ("dlq", "list"),
        ("accounts", "disable", "binance-spot-0001"), ("accounts", "enable", "binance-spot-0001"),
    ):  # fmt: skip
        assert await world.told(*words)


async def _people_err(world: Bed) -> None:
    """Whatever is wrong with a secret, the message does not show it."""
    wrong = "Mistyped+Secret/of-a-user==7"
    world.plant("mistyped secret", wrong)
    options = ("accounts", "add", "wrong", "--exchange", "binance", "--market", "Spot", "--secret-file")
    for text in (
        f"apiKey={wrong} with more\napiSecret={wrong}", f"{wrong}\n", f'{{"apiKey": "{wrong}"', f"apiKey={wrong}",
        f'{{"{wrong}": "x", "apiKey": "{wrong}", "apiSecret": "{wrong}"}}', f"apiKey={wrong}\napiKey={wrong}",
        f"apiKey=k\nprivateKey=-----BEGIN PRIVATE KEY-----\\n{wrong}\\n-----END PRIVATE KEY-----",
    ):  # fmt: skip
        await world.told(*options, "-", given=text, code=2)
    kek = world.folder / "wrong-kek"
    for text in (f"one {wrong}", wrong, f"one two {wrong}"):
        kek.write_text(text)
        await world.told("accounts", "rewrap", "--kek-file", str(kek), code=2)
    for url in (f"postgresql://u:{wrong}@h:x/d", f"postgres+x://u:{wrong}@h/d", f"http://u:{wrong}@h/d",
                f"postgresql://u:a/{wrong}@h/d", f"postgresql://u:{wrong}@127.0.0.1:1/d"):  # fmt: skip
        for words in (("accounts", "list"), ("migrate",)):
            await world.told(*words, code=None, environ={"DATABASE_URL": url, "DATABASE_URL_FILE": ""})
    for url in (f"redis://:{wrong}@h:x/0", f"http://:{wrong}@h/0", f"redis://:a/{wrong}@h/0"):
        world.manifest.write_text(PIPELINE + FEED.format(stream="ws://127.0.0.1:1", rest="http://127.0.0.1:1"))
        await world.told("run", "receiver", "-c", str(world.manifest), "--feed", "default/feed", "--shard", "0",
                         code=2, environ={"REDIS_URL": url})  # fmt: skip
    key = {"account": "wrong", "exchange": "binance", "market": "Spot", "key": f"{wrong} x", "secret": [wrong]}
    file = world.folder / "wrong.pkl"
    for content in ([key], [key | {"secret": None}], [key | {"exchange": wrong}]):
        file.write_bytes(pickle.dumps({"api_keys": content}))
        await world.told("import", "pickle", str(file), code=2)


async def _move_in(world: Bed) -> None:
    moved = "Imported-Secret-of-a-bot-8"
    world.plant("imported secret", moved)
    key = {"account": "moved", "exchange": "binance", "market": "Spot", "key": f"{moved}k", "secret": f"{moved}s"}
    fill = {"id": 1, "order_id": 2, "symbol": "BTC-USDT", "side": "buy", "price": 1.5, "amount": 2, "ts": 1.7e12}
    file = world.folder / "bot.pkl"
    file.write_bytes(pickle.dumps({"api_keys": [key], "fills": [fill | {"account": "moved"}]}))
    for more in (("--dry-run",), (), ()):
        await world.command("import", "pickle", str(file), "--exchange", "binance", "--market", "Spot", *more)
    await world.command("accounts", "remove", "moved", "--yes")


async def _back_up(world: Bed) -> None:
    """The database with all its rows, those of sealed secrets too, goes to a folder that is looked at."""
    key = base64.b64encode(os.urandom(32)).decode()
    world.plant("backup key", key)
    world.secret("backup-key", key=f"b1 {key}\n")
    world.manifest.write_text(PIPELINE + BACKUP.format(folder=world.work / "backups"))
    options = ("-c", str(world.manifest), "--secrets-dir", str(world.secrets))
    await world.command("backup", "run", *options, "--status-file", str(world.work / "backup.json"))
    await world.command("backup", "verify", *options)
    for words in (("list",), ("list", "-o", "json")):
        assert "logical" in await world.told("backup", *words, *options)
    for wrong in (f"b1 {key}x", f"{key} b1", f"b1 {key} {key}", key):
        world.secret("backup-key", key=wrong)
        await world.told("backup", "list", *options, code=2)
