"""Logs: what is secret never gets out, whoever logs it and however it is wrapped."""

from __future__ import annotations

import io
import json
import logging
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from feedmill.shared import log, log_repeats
from feedmill.shared.log import REDACTED, redact, register_secret

SOURCES = Path(__file__).parents[3] / "services" / "src"
SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def only_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_secrets", [])


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """Logging set up as in a service, into memory; call it once, for what was written."""
    out = io.StringIO()
    finish = log.configure("test", level="info", stream=out)

    def written() -> list[dict[str, Any]]:
        finish()
        return [json.loads(line) for line in out.getvalue().splitlines()]

    return written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:pw@h:1/0", f"redis://:{REDACTED}@h:1/0"),
        ("postgresql://me:p@ss@h/db down", f"postgresql://me:{REDACTED}@h/db down"),
        ("a redis://u:one@h and redis://u:two@g", f"a redis://u:{REDACTED}@h and redis://u:{REDACTED}@g"),
        ("wss://stream.binance.com:9443/ws/btcusdt@trade", "wss://stream.binance.com:9443/ws/btcusdt@trade"),
        ("GET /order?symbol=X&signature=abc123&x=1", f"GET /order?symbol=X&signature={REDACTED}&x=1"),
        ("/ws?listenKey=abc", f"/ws?listenKey={REDACTED}"),
        ('{"client_secret": "a b\'c", "x": 1}', f'{{"client_secret": "{REDACTED}", "x": 1}}'),
        ("{'password': 'abc', 'user': 'me'}", f"{{'password': '{REDACTED}', 'user': 'me'}}"),
        ("write redis://:password@host", "write redis://:password@host"),
        ("nothing to hide", "nothing to hide"),
        (f"wss://h/private/ws/{'pqia91ma19' * 6} gone", f"wss://h/private/ws/{REDACTED} gone"),
        ("wss://h/ws/btcusdt@trade", "wss://h/ws/btcusdt@trade"),
        ("?listenKey=k1&events=A&listenKey=k2", f"?listenKey={REDACTED}&events=A&listenKey={REDACTED}"),
        ("next=%2Forder%3Fsignature%3Dabc&a=1", f"next=%2Forder%3Fsignature%3D{REDACTED}&a=1"),
        ("access_token=1582.1MbQ-J_4.CBP refresh_token=x", f"access_token={REDACTED} refresh_token={REDACTED}"),
        ('{"params":{"signature":"yN1v==","data":""}}', f'{{"params":{{"signature":"{REDACTED}","data":""}}}}'),
        ('"{\\"access_token\\": \\"a.b\\"}"', f'"{{\\"access_token\\": \\"{REDACTED}\\"}}"'),
        ('{"grant_type":"client_signature","client_id":"x"}', '{"grant_type":"client_signature","client_id":"x"}'),
        ("X-MBX-APIKEY: vmPUZE6m\r\nHost: h", f"X-MBX-APIKEY: {REDACTED}\r\nHost: h"),
        ("authorization: Bearer a.b-c", f"authorization: Bearer {REDACTED}"),
        ("Authorization: Basic YTpi", f"Authorization: Basic {REDACTED}"),
        ("<CIMultiDict('X-MBX-APIKEY': 'vm', 'A': 'b')>", f"<CIMultiDict('X-MBX-APIKEY': '{REDACTED}', 'A': 'b')>"),
        ("[(b'Authorization', b'Bearer x'), (b'a', b'b')]", f"[(b'Authorization', b'{REDACTED}'), (b'a', b'b')]"),
        ("Login(api_key='vm', signature='ab c')", f"Login(api_key='{REDACTED}', signature='{REDACTED} c')"),
        ("-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\nafter", f"{REDACTED}\nafter"),
        ("a torn -----BEGIN RSA PRIVATE KEY-----\nMC4C", f"a torn {REDACTED}"),
    ],
)
def test_credentials_by_their_form(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40))
def test_a_registered_secret_in_the_forms_it_takes(secret: str) -> None:
    assume(len(secret.strip()) >= 6 and secret not in REDACTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_secrets", [])
        register_secret(secret)
        for shown in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3]):
            text = redact(f"<{shown}>")
            assert shown not in text
            assert REDACTED in text


def test_a_long_run_of_backslashes_is_no_work() -> None:
    text = "key" + "\\" * 200_000 + '"'  # Hours, were each of them tried as the begin of a name.
    assert redact(text) == text


def test_the_lines_of_a_key_file_that_was_torn() -> None:
    register_secret("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n")
    assert redact("bad line MC4CAQAwBQYDK2Vw") == f"bad line {REDACTED}"


def test_what_stands_under_the_name_of_a_secret(lines: Callable[[], list[dict[str, Any]]]) -> None:
    headers = {"X-MBX-APIKEY": "vm", b"authorization": "Bearer x", "Host": "h"}
    log.get_logger().info("asked", headers=headers, signature="abc", token=5, tokens=7)
    [line] = lines()
    assert (line["signature"], line["token"], line["tokens"]) == (REDACTED, REDACTED, 7)
    assert line["headers"]["X-MBX-APIKEY"] == REDACTED
    assert line["headers"]["Host"] == "h"
    assert "Bearer" not in json.dumps(line)


def test_registered_secrets_wherever_they_stand() -> None:
    register_secret(SECRET)
    assert redact(f"a{SECRET}b{SECRET}") == f"a{REDACTED}b{REDACTED}"


def test_a_secret_that_contains_another_is_not_left_half_shown() -> None:
    register_secret("abcdef")
    register_secret("abcdef-and-more")
    assert redact("x abcdef-and-more abcdef y") == f"x {REDACTED} {REDACTED} y"


def test_short_values_are_not_registered() -> None:
    """Or a password like "1" would black out every number."""
    register_secret("12345")
    register_secret("")
    assert redact("12345 and more") == "12345 and more"


@given(st.text(max_size=30), st.text(max_size=30), st.text(min_size=6, max_size=40))
def test_no_registered_secret_survives(before: str, after: str, secret: str) -> None:
    log._secrets.clear()
    register_secret(secret)
    # Only where the rest spells parts of it again does a trace of it stay; REDACTED itself may be the "secret".
    if secret not in before + after and secret not in REDACTED and not set(secret) <= set(REDACTED):
        assert secret not in redact(before + secret + after).replace(REDACTED, "\0")


class _Opaque:
    def __repr__(self) -> str:
        return f"<token {SECRET}>"


class _Row(msgspec.Struct):
    url: str


NESTED: list[Any] = [
    SECRET,
    f"prefix {SECRET} suffix",
    SECRET.encode(),
    b"\xff" + SECRET.encode() + b"\x00",
    {"deep": [{"deeper": (1, SECRET)}]},
    {SECRET: "as a key"},
    {("a", 1): SECRET},
    ValueError(SECRET),
    _Opaque(),
    _Row(f"redis://:{SECRET}@h"),
    {SECRET},
    Path("/x") / SECRET,
    SecretStr(SECRET),
]


@pytest.mark.parametrize("value", NESTED, ids=lambda value: type(value).__name__)
def test_values_of_any_form(value: Any, lines: Callable[[], list[dict[str, Any]]]) -> None:
    register_secret(SECRET)
    log.get_logger(bound=value).info("event", value=value, number=3, nothing=None, flag=True)
    [line] = lines()
    assert SECRET not in json.dumps(line)
    assert (line["event"], line["service"], line["level"]) == ("event", "test", "info")
    assert (line["number"], line["nothing"], line["flag"]) == (3, None, True)
    assert line["timestamp"].endswith("Z")


def test_the_event_itself_and_exceptions(lines: Callable[[], list[dict[str, Any]]]) -> None:
    register_secret(SECRET)
    try:
        try:
            raise ConnectionError(f"cannot reach redis://:{SECRET}@h")
        except ConnectionError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        log.get_logger().error(f"failed with {SECRET}", exc_info=error)
        log.get_logger().exception("again")
    first, second = lines()
    for line in (first, second):
        assert SECRET not in json.dumps(line)
        assert "cannot reach redis://:[redacted]@h" in line["exception"]
        assert "RuntimeError: outer" in line["exception"]
    assert first["event"] == f"failed with {REDACTED}"


def test_lines_of_libraries_have_the_same_form_and_are_redacted(lines: Callable[[], list[dict[str, Any]]]) -> None:
    register_secret(SECRET)
    logger = logging.getLogger("some.library")
    logger.warning("connecting to %s", f"redis://:{SECRET}@h")
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("100 %% broken: %r", {"key": SECRET})
    logger.debug("not wanted at this level")
    warning, failure = lines()
    assert warning["event"] == f"connecting to redis://:{REDACTED}@h"
    assert (warning["logger"], warning["level"], warning["service"]) == ("some.library", "warning", "test")
    assert failure["event"] == f"100 % broken: {{'key': '{REDACTED}'}}"
    assert f"ValueError: {REDACTED}" in failure["exception"]
    assert SECRET not in json.dumps([warning, failure])


def test_levels(lines: Callable[[], list[dict[str, Any]]]) -> None:
    log.get_logger().debug("quiet")
    log.get_logger().warning("loud", percent="100 %s")
    assert [(line["event"], line["percent"]) for line in lines()] == [("loud", "100 %s")]


def test_lines_are_written_before_the_process_ends() -> None:
    script = """
        import asyncio, logging
        from feedmill.shared import log, log_repeats
        log.configure("test", json=True, level="debug")
        log.register_secret("s3cr3t-value")
        for number in range(500):
            log.get_logger().debug("line", number=number)
        async def lost():
            raise RuntimeError("s3cr3t-value")
        async def main():
            task = asyncio.create_task(lost())
            await asyncio.wait({task})
        asyncio.run(main())
        import gc; gc.collect()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True, check=True, timeout=200
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["number"] for line in found if line["event"] == "line"] == list(range(500))
    [told] = [line for line in found if line.get("logger") == "asyncio"]
    assert told["event"].startswith("Task exception was never retrieved")
    assert SECRET not in done.stderr


def test_a_reader_that_stops_holds_neither_the_loop_nor_the_end() -> None:
    """A service whose lines nobody reads: it works on, counts what it drops, and stops in order."""
    script = """
        import asyncio
        from prometheus_client import generate_latest
        from feedmill.shared import log, log_repeats
        from feedmill.shared.redis.url import RedisUrl
        from feedmill.shared.service import run_service
        async def main(context):
            for number in range(3 * log.QUEUE):
                context.log.debug("line", number=number, pad="x" * 200)
                if number % 1000 == 0:
                    await asyncio.sleep(0)
            (told,) = [line for line in generate_latest().splitlines()
                       if line.startswith(b"feedmill_process_dropped_log_lines_total ")]
            print(told.decode(), flush=True)
            await context.stop.wait()
        raise SystemExit(run_service("test", main, redis_url=RedisUrl.parse("redis://127.0.0.1"), database_url="",
                                     log_level="debug"))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(
        command, env={"PYTHONPATH": str(SOURCES)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            told = process.stdout.readline().split()
            assert told[0] == b"feedmill_process_dropped_log_lines_total"
            # The pipe, the queue and the line being written hold the others.
            assert log.QUEUE < float(told[1]) < 2 * log.QUEUE
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            written = process.stderr.read().splitlines()
        finally:
            process.kill()
    assert [json.loads(line)["number"] for line in written[:10]] == list(range(10))


def test_what_repeats_is_written_a_few_times_and_then_with_how_often_it_was(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    logger = log.get_logger()
    before = log.repeated_lines
    for number in range(100):
        try:
            raise ConnectionError(f"no {number} {SECRET}")
        except ConnectionError:
            logger.exception("down", server="redis", number=number)
        logger.warning("down", server="postgres", number=number)
        logging.getLogger("some.library").warning("attempt %d failed", number)
    logger.info("else")
    register_secret(SECRET)
    assert log.repeated_lines - before == 3 * 95
    found = lines()
    for of in ({"server": "redis"}, {"server": "postgres"}, {"logger": "some.library"}):
        alike = [line for line in found if of.items() <= line.items()]
        assert [line.get("number", line["event"]) for line in alike[:5]] == (
            [f"attempt {n} failed" for n in range(5)] if "logger" in of else list(range(5))
        )
        # The end tells of those that were left out, by the last of them.
        assert [line.get("repeated") for line in alike] == [None] * 5 + [94]
        assert alike[-1].get("number", 99) == 99
    [last] = [line for line in found if line.get("server") == "redis" and "repeated" in line]
    assert last["exception"] == f"ConnectionError: no 99 {REDACTED}"
    assert [line["event"] for line in found].count("else") == 1


def test_lines_that_were_left_out_have_their_turn_without_anything_else_being_written(
    lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_repeats, "ALIKE_EVERY", 0.05)
    monkeypatch.setattr(log, "LOOK_AFTER", 0.01)
    told = threading.Event()
    enqueue = log._enqueue

    def seen(queue: Any, record: logging.LogRecord) -> None:
        enqueue(queue, record)
        if "repeated" in str(record.msg):
            told.set()

    monkeypatch.setattr(log, "_enqueue", seen)
    for number in range(20):
        log.get_logger().info("again", number=number)
    assert told.wait(60)
    found = lines()
    assert sum(1 + line.get("repeated", 0) for line in found) == 20
    assert found[-1]["number"] == 19


def test_debug_lines_are_all_written(lines: Callable[[], list[dict[str, Any]]]) -> None:
    log.set_level("debug")
    for number in range(50):
        log.get_logger().debug("step", number=number)
    assert len(lines()) == 50


def test_a_stream_that_was_closed_is_told_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    """What a command's log still had to say must not stand among what another one writes on standard error."""
    out = io.StringIO()
    finish = log.configure("test", stream=out)
    for number in range(log_repeats.ALIKE + 3):
        log.get_logger().warning("again", number=number)
    out.close()
    finish()
    assert capsys.readouterr().err == ""
