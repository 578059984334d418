"""The demonstration's accounts: their keys come from the simulator, and a user's own command stores them."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feedmill.local.demo.simulation import Simulation, own_environment
from feedmill.local.embedded.files import write_private
from feedmill.local.errors import ManagerError
from feedmill.local.status import ManagerStatus

VENUES = ("binance/Spot", "deribit/Derivatives")
"""One account each."""
BEFORE = 25
"""Actions of each account before anybody listens; an action is one to five events."""
AT_ONCE, EVERY = 2, 0.25
"""Actions of each account, and the seconds between them, from then on."""
ADD_TIMEOUT = 60.0

Latencies = dict[str, tuple[float | None, float | None]]
"""Exchange market -> (p50, p99) in ms, of events of accounts from the socket to the commit."""


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """One account of a simulated exchange. Shows no secret."""

    name: str
    venue: str
    stream: str
    rest: str
    secrets: Mapping[str, str] = field(repr=False)
    """As ``--secret-file`` takes them."""

    @property
    def key(self) -> str:
        return f"default/{self.name}"


def take_keys(path: Path) -> list[DemoAccount]:
    """The accounts in the simulator's file of keys, which is removed: from here on only the store has them.

    Binance with its Ed25519 key, Deribit with its secret. Raises ManagerError.
    """
    try:
        written = json.loads(path.read_text("utf-8"))
        path.unlink()
    except (OSError, ValueError) as error:
        raise ManagerError(f"the simulator wrote no keys to {path} ({error}): see its log") from error
    found: dict[str, DemoAccount] = {}
    for venue, entry in written.items():
        for row in entry["accounts"]:
            fields = {name: row[name] for name in ("apiKey", "apiSecret", "privateKey") if name in row}
            if row["account"] not in found or "privateKey" in fields:
                found[row["account"]] = DemoAccount(row["account"], venue, entry["stream"], entry["rest"], fields)
    return list(found.values())


def make_kek(path: Path) -> None:
    """A key-encryption key of the demonstration's own, readable by its user alone."""
    write_private(path, f"demo {base64.b64encode(secrets.token_bytes(32)).decode()}\n")


def add_command(account: DemoAccount, kek: Path, data_dir: Path) -> list[str]:
    """What a user types; the secrets go to its standard input."""
    exchange, _, market = account.venue.partition("/")
    return [
        *("accounts", "add", account.name, "--exchange", exchange, "--market", market),
        *("--stream-endpoint", account.stream, "--rest-endpoint", account.rest),
        *("--kek-file", str(kek), "--secret-file", "-", "--data-dir", str(data_dir)),
    ]


async def add_all(accounts: Sequence[DemoAccount], kek: Path, data_dir: Path) -> None:
    """Put the accounts into the credential store. Raises ManagerError."""
    await asyncio.gather(*(_add(account, kek, data_dir) for account in accounts))


async def trade(simulation: Simulation, accounts: Sequence[DemoAccount]) -> None:
    """Let the accounts act until this is cancelled. Raises ManagerError."""
    while True:
        await asyncio.gather(*(simulation.act(account.venue, AT_ONCE) for account in accounts))
        await asyncio.sleep(EVERY)


async def _add(account: DemoAccount, kek: Path, data_dir: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "feedmill.cli.main", *add_command(account, kek, data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=own_environment(),
    )
    try:
        async with asyncio.timeout(ADD_TIMEOUT):
            output, _ = await process.communicate(json.dumps(dict(account.secrets)).encode())
    except TimeoutError:
        raise ManagerError(f"feedmill accounts add {account.name} did not end within {ADD_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = output.decode(errors="replace").strip()
        raise ManagerError(f"feedmill accounts add {account.name} failed: {said}")


def latencies(status: ManagerStatus) -> Latencies:
    """From what the account receivers say of themselves."""
    found: Latencies = {}
    for service in status.services:
        if service.role == "accounts":
            for venue, stretches in ((service.health or {}).get("latency") or {}).items():
                stretch = stretches.get("receiveToCommit") or {}
                found[venue] = stretch.get("p50Ms"), stretch.get("p99Ms")
    return found
