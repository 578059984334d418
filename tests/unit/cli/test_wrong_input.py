"""Wrong files and settings through the real program: exit code 2 and the remedy, nothing connected or written."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedmill.cli.main import app

SOURCES = Path(__file__).parents[3] / "services" / "src"
GOOD = """apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT]}
  channels: [{name: Trades}]
"""
OWN_SERVERS = """---
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {urlSecretRef: {name: redis, key: url}}
  postgres: {urlSecretRef: {name: postgres, key: url}}
"""
PASSWORD = "hunter2222"
HOST = "127.77.0.1"
"""Of no other server: who asks 127.0.0.1 in vain for one that has ended does not come here by its port."""


class Listener:
    """Stands where Redis and PostgreSQL would, and knows whether anybody came."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def visited(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def _environment(listener: Listener, changes: dict[str, str]) -> dict[str, str | None]:
    """Servers that only the listener stands for; "" in ``changes`` takes one away."""
    servers = {
        "REDIS_URL": f"redis://:{PASSWORD}@{HOST}:{listener.port}/0",
        "DATABASE_URL": f"postgresql://me:{PASSWORD}@{HOST}:{listener.port}/feeds",
    }
    unset = {name: None for name in os.environ if name.startswith(("REDIS_", "DATABASE_"))}
    given = {"COLUMNS": "200", **servers, **changes}
    return unset | {name: value or None for name, value in given.items()}


def program(cwd: Path, listener: Listener, *arguments: str) -> Done:
    """Run the program in a process of its own."""
    changes = _environment(listener, {"PYTHONPATH": str(SOURCES)})
    environment = {name: value for name, value in (os.environ | changes).items() if value is not None}
    command = [sys.executable, "-m", "feedmill.cli.main", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def feedmill(cwd: Path, listener: Listener, *arguments: str, **environ: str) -> Done:
    """The same in this process, which is much quicker."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, arguments, env=_environment(listener, environ), prog_name="feedmill")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def refused(done: Done, listener: Listener, folder: Path, files: set[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr
    assert not listener.visited()
    assert {path.name for path in folder.iterdir()} == files, "something was written"
    return done.stderr


RECEIVER = ("run", "receiver", "--feed", "default/spot", "--shard", "0", "--config")
PROCESSOR = ("run", "processor", "--pipeline", "default/main", "--config")
MAINTENANCE = ("run", "maintenance", "--pipeline", "default/main", "--config")
DISTRIBUTOR = ("run", "distributor", "--feed", "default/spot", "--shard", "0", "--config")


@pytest.mark.parametrize(
    "command", [("up", "-f"), RECEIVER, PROCESSOR, MAINTENANCE, DISTRIBUTOR], ids=lambda c: " ".join(c[:2])
)
def test_all_that_is_wrong_with_the_files_before_anything_connects(
    command: tuple[str, ...], tmp_path: Path, listener: Listener
) -> None:
    wrong = GOOD.replace("BTC-USDT", "btc/usdt").replace("{name: Trades}", "{name: Trade}") + "  colour: red\n"
    (tmp_path / "feed.yaml").write_text(wrong)
    said = refused(program(tmp_path, listener, *command, "feed.yaml"), listener, tmp_path, {"feed.yaml"})
    assert said == (
        "3 problems in the resources:\n"
        '  feed.yaml:7: spec.instruments.symbols[0]: "btc/usdt" is not a symbol: write BTC-USDT\n'
        '  feed.yaml:8: spec.channels[0].name: "Trade" is not known: did you mean Trades? '
        "(Trades, Book, Ticker, Candles)\n"
        '  feed.yaml:9: spec.colour: unknown key "colour": remove it (known here: pipelineRef, exchange, instruments, '
        "channels, receiver, distributor, logLevel, suspend)\n"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "a:\n\tb: 1\n",
            "feed.yaml:2: not valid YAML: found character that cannot start any token: indent with spaces",
        ),
        (
            GOOD + "  suspend: yes please\n",
            '9: spec.suspend: "yes please" is not of the right form or type: write true',
        ),
        (
            GOOD + "  receiver: {memory: 64MB}\n",
            '9: spec.receiver.memory: "64MB" is not a number of bytes: write a number',
        ),
        (GOOD + "  receiver: {shards: 0}\n", "9: spec.receiver.shards: 0 is out of range: write 1 to 64"),
        (GOOD.replace("Spot", "Futures"), '"Futures" is not a market of binance: write one of Spot, UsdM'),
        (GOOD.replace("v1alpha1", "v2"), 'apiVersion: "feedmill.dev/v2" is not known: write feedmill.dev/v1alpha1'),
        (GOOD.replace("ExchangeFeed", "ExchangeFed"), "did you mean ExchangeFeed?"),
        (GOOD.replace("Trades", "Candles"), "the channel Candles needs an interval: add interval: 1m"),
        (GOOD.replace("[BTC-USDT]", "[BTC-USDT, BTC-USDT]"), "is listed twice (first as symbols[0]): remove one"),
        (GOOD.replace("symbols: [BTC-USDT]", ""), "give exactly one of symbols and select"),
        (GOOD.replace("spot", "Spot_1"), '"Spot_1": the name must be 1 to 40 lower-case letters, digits'),
        (GOOD + "---\n" + GOOD, "another ExchangeFeed of that name is in feed.yaml:3: rename or remove one"),
        (GOOD + OWN_SERVERS.replace("name: main", "name: mian"), "no FeedPipeline of that name in namespace default"),
        ("\n", "holds no ExchangeFeed, ExchangeAccount or FeedPipeline: add one (see examples/)"),
        (
            GOOD + "  suspend: true\n",
            "the manifest holds no feed or account to run: add an ExchangeFeed or ExchangeAccount (see examples/), or "
            "end its suspend",
        ),
    ],
)
def test_up_refuses(content: str, said: str, tmp_path: Path, listener: Listener) -> None:
    (tmp_path / "feed.yaml").write_text(content)
    done = feedmill(tmp_path, listener, "up", "-f", "feed.yaml", "--plain")
    assert said in refused(done, listener, tmp_path, {"feed.yaml"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--feed", "default/spto", "--shard", "0"),
            "--feed 'default/spto': the files hold none of that name: did you mean default/spot?",
        ),
        (("--feed", "a/b/c", "--shard", "0"), "--feed 'a/b/c': write NAMESPACE/NAME, such as default/btc"),
        (("--feed", "default/spot", "--shard", "1"), "--shard 1: feed default/spot has no shard 1: there is only 0"),
        (
            ("--feed", "default/spot", "--shard", "0", "--replica", "R 0"),
            "--replica 'R 0': write lower-case letters, digits and '-', such as r0",
        ),
        (
            ("--feed", "default/spot", "--shard", "0", "--secrets-dir", "nowhere"),
            "--secrets-dir nowhere: there is no such folder: check the path",
        ),
        (("--feed", "default/spot", "--shard", "x"), "--shard"),
        (("--feed", "default/spot"), "--shard"),
    ],
)
def test_run_refuses_what_the_files_do_not_hold(
    arguments: tuple[str, ...], said: str, tmp_path: Path, listener: Listener
) -> None:
    (tmp_path / "feed.yaml").write_text(GOOD)
    done = feedmill(tmp_path, listener, "run", "receiver", "-c", "feed.yaml", *arguments)
    assert said in refused(done, listener, tmp_path, {"feed.yaml"})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"REDIS_URL": ""},
            "FeedPipeline default/main: spec.redis is managed and REDIS_URL is not set: start it with feedmill up",
        ),
        ({"DATABASE_URL": ""}, "spec.postgres is managed and DATABASE_URL is not set"),
        (
            {"REDIS_URL": f"http://:{PASSWORD}@h"},
            "REDIS_URL: the Redis URL does not begin with redis://, rediss:// or unix://: write one of them",
        ),
        ({"REDIS_URL_FILE": "url"}, "REDIS_URL and REDIS_URL_FILE are both set: keep one"),
        ({"REDIS_URL": "", "REDIS_URL_FILE": "missing"}, "REDIS_URL_FILE: there is no file"),
        (
            {"DATABASE_URL": f"mysql://me:{PASSWORD}@h/d"},
            "DATABASE_URL: the database URL does not begin with postgresql://",
        ),
        (
            {"DATABASE_URL": f"postgresql://me:{PASSWORD}/x@h/d"},
            "DATABASE_URL: the database URL's host and port cannot be read",
        ),
        ({"DATABASE_URL": f"postgresql://me:{PASSWORD}@h"}, "DATABASE_URL: the database URL names no database"),
    ],
)
def test_run_refuses_wrong_settings(environ: dict[str, str], said: str, tmp_path: Path, listener: Listener) -> None:
    (tmp_path / "feed.yaml").write_text(GOOD)
    command = ("run", "processor", "--pipeline", "default/main", "-c")
    done = feedmill(tmp_path, listener, *command, "feed.yaml", **environ)
    assert said in refused(done, listener, tmp_path, {"feed.yaml"})


@pytest.mark.parametrize("command", [("up", "-f"), RECEIVER, PROCESSOR, DISTRIBUTOR], ids=lambda c: " ".join(c[:2]))
def test_traces_need_what_sends_them(
    command: tuple[str, ...], tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "feedmill.shared.otlp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    traced = OWN_SERVERS + '  monitoring: {tracing: {otlpEndpoint: "http://otel:4318"}}\n'
    (tmp_path / "feed.yaml").write_text(
        GOOD + traced.replace("{urlSecretRef: {name: redis, key: url}}", "{managed: {}}")
    )
    said = refused(feedmill(tmp_path, listener, *command, "feed.yaml"), listener, tmp_path, {"feed.yaml"})
    assert "spec.monitoring.tracing: opentelemetry" in said
    assert "pip install 'feedmill[tracing]'), or leave tracing out" in said


def test_run_reads_the_secrets_the_pipeline_names(tmp_path: Path, listener: Listener) -> None:
    (tmp_path / "feed.yaml").write_text(GOOD + OWN_SERVERS)
    (tmp_path / "secrets" / "redis").mkdir(parents=True)
    none = {"REDIS_URL": "", "DATABASE_URL": ""}
    files = {"feed.yaml", "secrets"}
    said = refused(feedmill(tmp_path, listener, *RECEIVER, "feed.yaml", **none), listener, tmp_path, files)
    assert "spec.redis.urlSecretRef names Secret 'redis': give --secrets-dir with a file redis/url in it" in said
    command = (*RECEIVER, "feed.yaml", "--secrets-dir", "secrets")
    said = refused(feedmill(tmp_path, listener, *command, **none), listener, tmp_path, files)
    assert "Secret 'redis', key 'url':" in said
    assert "holds no file url: add it, or check the reference's key" in said
    (tmp_path / "secrets" / "redis" / "url").write_text(f"redis://:{PASSWORD}@{HOST}:{listener.port}/x")
    said = refused(feedmill(tmp_path, listener, *command, **none), listener, tmp_path, files)
    assert "spec.redis.urlSecretRef: the Redis URL's database is not a number: write redis://:password@host" in said


def test_up_refuses_an_unreadable_folder_and_an_unknown_option(tmp_path: Path, listener: Listener) -> None:
    done = feedmill(tmp_path, listener, "up", "-f", "feeds")
    assert "feeds: there is no such file or folder" in refused(done, listener, tmp_path, set())
    done = feedmill(tmp_path, listener, "up", "--colour")
    assert "No such option: --colour" in refused(done, listener, tmp_path, set())
