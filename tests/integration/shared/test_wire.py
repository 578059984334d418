"""The bare Redis connection against a real server: order, errors, ends, flow control."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from feedmill.local.embedded import EmbeddedRedis
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Script, Wire, WireClosed, WireError, connect


@pytest.fixture
async def wire(redis_server: EmbeddedRedis) -> AsyncIterator[Wire]:
    made = await connect(RedisUrl.parse(redis_server.url), name="test")
    yield made
    made.abort()


async def pid_of(wire: Wire) -> int:
    """The server's own word: what was started may be a launcher."""
    info = await wire.call("INFO", "server")
    [line] = [line for line in info.splitlines() if line.startswith(b"process_id:")]
    return int(line[11:])


async def test_commands_are_pipelined_and_answered_in_order(wire: Wire) -> None:
    sent = [wire.send("ECHO", str(number)) for number in range(5000)]
    assert await asyncio.gather(*sent) == [str(number).encode() for number in range(5000)]


async def test_every_form_of_answer(wire: Wire) -> None:
    assert await wire.call("SET", "a", b"\x00\xff\r\n") == b"OK"
    assert await wire.call("GET", "a") == b"\x00\xff\r\n"
    assert await wire.call("GET", "none") is None
    assert await wire.call("INCRBY", "n", 2**62) == 2**62
    assert await wire.call("INCRBYFLOAT", "f", 1.5) == b"1.5"
    assert await wire.call("RPUSH", "l", "x", "y") == 2
    assert await wire.call("LRANGE", "l", 0, -1) == [b"x", b"y"]
    assert await wire.call("EVAL", "return {1, {2, 'three'}, false}", 0) == [1, [2, b"three"], None]


async def test_an_error_is_of_its_command_alone(wire: Wire) -> None:
    await wire.call("SET", "text", "x")
    before, wrong, after = wire.send("ECHO", "1"), wire.send("LPUSH", "text", "y"), wire.send("ECHO", "2")
    assert await before == b"1"
    with pytest.raises(WireError) as caught:
        await wrong
    assert caught.value.code == "WRONGTYPE"
    assert await after == b"2"
    with pytest.raises(WireError, match="unknown command"):
        await wire.call("NOSUCH")
    assert wire.is_open
    # An error inside of an array (EXEC) is a value there: the array is the answer.
    await wire.call("MULTI")
    await wire.call("LPUSH", "text", "y")
    [inner] = await wire.call("EXEC")
    assert isinstance(inner, WireError)


async def test_a_script_is_sent_once_and_again_after_the_server_forgot_it(wire: Wire) -> None:
    script = Script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
    assert await wire.call("SCRIPT", "EXISTS", script.digest) == [0]
    assert await wire.run(script, ["n"], "a") == [b"n", b"a", 1], "NOSCRIPT falls back to the source"
    assert await wire.call("SCRIPT", "EXISTS", script.digest) == [1]
    assert await wire.run(script, ["n"], "b") == [b"n", b"b", 2]
    await wire.call("SCRIPT", "FLUSH")
    assert await wire.run(script, ["n"], b"\xff") == [b"n", b"\xff", 3], "carried out once, not twice"
    with pytest.raises(WireError, match="ERR"):
        await wire.run(Script("return redis.call('NOSUCH')"), [])


async def test_an_answer_that_goes_to_an_object_comes_before_later_ones(wire: Wire) -> None:
    seen: list[Any] = []

    class Note:
        def done(self) -> bool:
            return False

        def set_result(self, result: Any, /) -> None:
            seen.append(result)

        def set_exception(self, exception: Any, /) -> None:
            seen.append(type(exception))

    wire.post(Note(), "ECHO", "1")
    wire.post(Note(), "NOSUCH")
    assert await wire.call("ECHO", "2") == b"2"
    assert seen == [b"1", WireError]
    waiting = Note()
    wire.post(waiting, "BLPOP", "empty", 0)
    wire.abort()
    assert seen[2:] == [WireClosed]
    with pytest.raises(WireClosed):
        wire.post(Note(), "ECHO", "3")


async def test_a_call_that_was_cancelled_leaves_the_order_as_it_was(wire: Wire) -> None:
    first = wire.send("ECHO", "1")
    first.cancel()
    assert await wire.call("ECHO", "2") == b"2"


async def test_big_values(wire: Wire) -> None:
    value = os.urandom(20 << 20)
    await wire.call("SET", "big", value)
    assert await wire.call("GET", "big") == value
    assert await wire.call("GETRANGE", "big", 0, 9) == value[:10]


async def test_writing_is_paused_while_the_server_takes_nothing(wire: Wire) -> None:
    pid = await pid_of(wire)
    os.kill(pid, signal.SIGSTOP)
    try:
        # More than any socket buffer holds.
        calls = [wire.send("SET", f"k{number}", b"x" * (8 << 20)) for number in range(3)]
        drained = asyncio.ensure_future(wire.drained())
        await asyncio.sleep(0)
        assert not drained.done(), "the transport has asked to pause"
    finally:
        os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(30):
        await drained
        assert await asyncio.gather(*calls) == [b"OK"] * 3
    await wire.drained()


async def test_a_server_that_goes_in_the_middle_of_calls(wire: Wire, redis_server: EmbeddedRedis) -> None:
    waiting = [wire.send("BLPOP", "empty", 0), wire.send("ECHO", "never")]
    redis_server.kill()
    async with asyncio.timeout(30):
        for call in waiting:
            with pytest.raises(WireClosed):
                await call
        await wire.closed
    assert not wire.is_open
    with pytest.raises(WireClosed):
        await wire.call("PING")
    await wire.drained()  # nobody waits for a socket that is gone


async def test_a_waiter_for_the_socket_is_released_when_the_server_goes(
    wire: Wire, redis_server: EmbeddedRedis
) -> None:
    os.kill(await pid_of(wire), signal.SIGSTOP)
    call = wire.send("SET", "k", b"x" * (32 << 20))
    drained = asyncio.ensure_future(wire.drained())
    await asyncio.sleep(0)
    assert not drained.done()
    redis_server.kill()
    async with asyncio.timeout(30):
        await drained
        with pytest.raises(WireClosed):
            await call


async def test_a_connection_cut_by_the_server_alone(wire: Wire, redis_server: EmbeddedRedis) -> None:
    other = await connect(RedisUrl.parse(redis_server.url), name="other")
    try:
        assert b"name=test" in await other.call("CLIENT", "LIST")
        mine = await wire.call("CLIENT", "ID")
        waiting = wire.send("BLPOP", "empty", 0)
        assert await other.call("CLIENT", "KILL", "ID", mine) == 1
        async with asyncio.timeout(30):
            with pytest.raises(WireClosed):
                await waiting
            await wire.closed
        assert await other.call("PING") == b"PONG"
    finally:
        other.abort()


async def test_the_run_id_tells_one_life_of_the_server_from_the_next(wire: Wire, redis_server: EmbeddedRedis) -> None:
    url = RedisUrl.parse(redis_server.url)
    again = await connect(url, name="again")
    assert len(wire.run_id) == 40
    assert again.run_id == wire.run_id
    again.abort()
    redis_server.stop()
    redis_server.start()
    later = await connect(RedisUrl.parse(redis_server.url), name="later")
    assert later.run_id != wire.run_id
    later.abort()


async def test_authentication(redis_server: EmbeddedRedis) -> None:
    url = RedisUrl.parse(redis_server.url)
    with pytest.raises(WireError) as caught:
        await connect(replace(url, password="wrong"), name="test")
    assert caught.value.code == "WRONGPASS"
    with pytest.raises(WireError) as caught:
        await connect(replace(url, password=None), name="test")
    assert caught.value.code == "NOAUTH"
    wire = await connect(replace(url, username="default"), name="test")
    await wire.call("ACL", "SETUSER", "reader", "on", ">p@ss/word", "~*", "+@all")
    wire.abort()
    reader = await connect(replace(url, username="reader", password="p@ss/word", db=3), name="reader")
    assert await reader.call("ACL", "WHOAMI") == b"reader"
    assert b"db=3" in await reader.call("CLIENT", "INFO")
    reader.abort()
    with pytest.raises(WireError, match="DB index is out of range"):
        await connect(replace(url, db=99), name="test")


async def test_a_unix_socket(redis_server: EmbeddedRedis) -> None:
    url = RedisUrl.parse(redis_server.url)
    path = redis_server.socket_path
    if path is None:
        pytest.skip("the folder's path is too long for a socket")
    wire = await connect(RedisUrl("", 0, password=url.password, path=str(path)), name="test")
    assert await wire.call("PING") == b"PONG"
    wire.abort()


async def test_nobody_there(redis_server: EmbeddedRedis) -> None:
    url = RedisUrl.parse(redis_server.url)
    redis_server.stop()
    with pytest.raises(ConnectionRefusedError):
        await connect(url, name="test")


async def test_a_server_that_accepts_and_never_answers() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            await connect(RedisUrl("127.0.0.1", port), name="test", timeout=0.2)


@pytest.mark.parametrize("answer", [b"?nonsense\r\n", b"+OK\r\n+OK\r\n+more than asked\r\n"])
async def test_what_no_redis_says_ends_the_connection(answer: bytes) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(strange, "127.0.0.1", 0)
    async with server:
        _, wire = await asyncio.get_running_loop().create_connection(Wire, *server.sockets[0].getsockname())
        calls = [wire.send("A"), wire.send("B")]
        async with asyncio.timeout(30):
            await wire.closed
        assert not wire.is_open
        assert all(call.done() for call in calls)
        for call in calls:
            call.exception()
