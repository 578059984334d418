"""``feedmill simulate`` as its own process: endpoints, manifest, TLS, orderly end; and what it refuses."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import websockets
import yaml
from typer.testing import CliRunner

from feedmill.cli.simulate import clock_base, simulate
from feedmill.resources.load import load_files
from feedmill.simulator.config import VENUES, parse_accounts

RUN = "import typer; from feedmill.cli.simulate import simulate; typer.run(simulate)"


async def run(tmp_path: Path, *args: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    port_file = tmp_path / "ports.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, *args, "--port-file", str(port_file), "--stats-every", "0.2",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        while not port_file.is_file():
            assert process.returncode is None, (await process.stderr.read()).decode()
            await asyncio.sleep(0.05)
    return process, json.loads(port_file.read_text())


async def test_three_exchanges_in_a_process(tmp_path: Path) -> None:
    process, ports = await run(tmp_path, "-e", "all", "--rate", "500", "--ledger", str(tmp_path / "ledger"))
    try:
        assert set(ports) == {"binance/Spot", "binance/UsdM", "deribit/Derivatives"}
        async with websockets.connect(ports["binance/Spot"]["stream"] + "/ws/btcusdt@trade") as socket:
            first = json.loads(await socket.recv())
            for _ in range(50):
                last = json.loads(await socket.recv())
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    rows = (tmp_path / "ledger" / "binance-Spot.trades.tsv").read_text().splitlines()
    ids = [int(row.split("\t")[1]) for row in rows]
    assert ids == list(range(first["t"], first["t"] + len(ids)))
    assert last["t"] in ids
    assert clock_base() > ids[0] > clock_base() - 10_000 * 120, "ids follow the clock unless told"
    text = out.decode()
    stats = json.loads(text.splitlines()[-1].removeprefix("# ended: "))
    assert stats["binance/Spot"]["channels"]["Trades"]["emitted"] == len(ids)
    snippet = tmp_path / "feeds.yaml"
    pipeline = {"apiVersion": "feedmill.dev/v1alpha1", "kind": "FeedPipeline", "metadata": {"name": "main"}}
    pipeline["spec"] = {"redis": {"managed": {}}, "postgres": {"managed": {}}}
    snippet.write_text(yaml.safe_dump(pipeline) + text)
    loaded = load_files([snippet])
    assert len(loaded.feeds) == 3, "the printed feeds can be used as they are"


async def test_tls_with_a_certificate_made_now(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    process, ports = await run(tmp_path, "-e", "deribit/Derivatives", "--tls")
    try:
        trust = ssl.create_default_context(cafile=ports["tls"]["ca"])
        assert ports["deribit/Derivatives"]["stream"].startswith("wss://127.0.0.1:")
        async with websockets.connect(ports["deribit/Derivatives"]["stream"] + "/ws/api/v2", ssl=trust) as socket:
            await socket.send('{"jsonrpc":"2.0","id":1,"method":"public/test","params":{}}')
            assert json.loads(await socket.recv())["result"]["version"]
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 60)
        assert process.returncode == 0
        assert not Path(ports["tls"]["ca"]).exists(), "the certificate goes with the process"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_abort_is_a_reset_on_the_loop_of_the_command(tmp_path: Path) -> None:
    import aiohttp

    process, ports = await run(tmp_path, "-e", "binance/Spot")
    try:
        port = ports["binance/Spot"]["port"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(10)
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/_sim/fault"
            async with session.post(url, json={"kind": "abort"}) as answer:
                assert (await answer.json())["hit"] == 1

        async def to_the_end() -> None:
            while await reader.read(65536):
                pass

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(to_the_end(), 30)
        writer.close()
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-e", "kraken/Spot"], "kraken/Spot"),
        (["-e", "binance/Spot", "--mix", "trades=x"], "trades=x"),
        (["-e", "binance/Spot", "--limit", "speed=1"], "names no limit"),
        (["-e", "binance/Spot", "--limit", "weight=many"], "is not a number"),
        (["-e", "all", "--symbols", "A-B"], "belongs to one exchange"),
        (["-e", "binance/Spot", "--symbols", "AB"], "'AB' is not a Spot pair"),
        (["-e", "binance/Spot", "--recordings", "/nonexistent"], "holds no binance.jsonl.gz"),
        (["-e", "binance/Spot", "--rate", "-1"], "rate -1.0 is negative"),
    ],
)
def test_it_refuses_with_the_remedy(args: list[str], words: str) -> None:
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert words in result.output


def test_accounts_of_all_or_of_some() -> None:
    assert parse_accounts("2", VENUES) == {"binance/Spot": 2, "binance/UsdM": 2, "deribit/Derivatives": 2}
    found = parse_accounts("binance/Spot=1, deribit/Derivatives=3", VENUES)
    assert found == {"binance/Spot": 1, "binance/UsdM": 0, "deribit/Derivatives": 3}


async def test_keys_go_to_their_file_and_nowhere_else(tmp_path: Path) -> None:
    keys, ledger = tmp_path / "keys.json", tmp_path / "ledger"
    args = ("-e", "all", "--accounts", "3", "--account-rate", "200", "--keys", str(keys), "--ledger", str(ledger))
    process, _ = await run(tmp_path, *args)
    try:
        async with asyncio.timeout(60):
            while not all(_filled(ledger, venue) for venue in ("binance-Spot", "binance-UsdM", "deribit-Derivatives")):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    assert keys.stat().st_mode & 0o777 == 0o600
    written = json.loads(keys.read_text())
    assert [len(written[venue]["accounts"]) for venue in written] == [6, 6, 3]
    told = out + err + b"".join(path.read_bytes() for path in ledger.iterdir())
    for row in (row for venue in written.values() for row in venue["accounts"]):
        assert row["apiKey"].encode() not in told
        secret = row.get("apiSecret") or row["privateKey"].splitlines()[1]
        assert secret.encode() not in told
    assert f"3 accounts; their keys: {keys}".encode() in out


def _filled(ledger: Path, venue: str) -> bool:
    path = ledger / f"{venue}.fills.tsv"
    return path.is_file() and path.stat().st_size > 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--accounts", "-1"], "accounts -1 is out of range"),
        (["--accounts", "many"], "--accounts 'many' is not understood"),
        (["--accounts", "binance/Spot=1,kraken/Spot=1"], "--accounts 'kraken/Spot=1' is not understood"),
        (["--account-rate", "-1"], "account rate -1.0 is negative"),
    ],
)
def test_wrong_numbers_of_accounts_are_refused(args: list[str], words: str) -> None:
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, ["-e", "all", *args])
    assert result.exit_code == 2
    assert words in result.output
