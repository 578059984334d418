"""``feedmill run notify`` as a process against a Telegram over HTTP: every message, in order, within the limits."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from feedmill.general.notify.compose import BLOCKS
from feedmill.local.embedded import EmbeddedPostgres

pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.

WAITING = "SELECT count(*) FROM notifications WHERE outcome = 'waiting'"
REGISTERED = "SELECT count(*) FROM notify_state WHERE name = 'default/main'"


def reasons(telegram: Any) -> list[int]:
    """Numbers of the letters that were told, in the order of the chat."""
    found = []
    for message in telegram.messages:
        found += [int(line.split("reason_")[1]) for line in message.text.splitlines() if "reason_" in line]
    return found


async def test_what_happens_is_told_in_order_and_marked(desk: Any, telegram: Any, notifier: Any) -> None:
    await notifier.start()
    await desk.until(REGISTERED, 1)
    await desk.letters(30)
    await telegram.until(lambda _: len(reasons(telegram)) == 30)
    await desk.until(WAITING, 0)
    assert reasons(telegram) == list(range(30))
    assert len(telegram.messages) < 10
    assert "what_came *was* [odd]" in telegram.messages[0].text
    assert telegram.broken == []
    rows = await desk.rows()
    assert {row["outcome"] for row in rows} == {"sent"}
    assert all(row["sent_ns"] > row["at_ns"] for row in rows)
    assert await notifier.end() == 0
    assert telegram.token.encode() not in notifier.log
    assert telegram.token.split(":")[1].encode() not in notifier.log


async def test_a_server_that_is_down_costs_nothing_but_time(desk: Any, telegram: Any, notifier: Any) -> None:
    await notifier.start()
    await desk.until(REGISTERED, 1)
    await desk.letters(3)
    await telegram.until(lambda _: len(reasons(telegram)) == 3)
    await telegram.stop()
    await desk.letters(200, first=3)
    await notifier.until_state("away")
    telegram.fails = ["error", "limit:2", "html", "error"]
    await telegram.start()
    await telegram.until(lambda _: len(reasons(telegram)) >= 203)
    await desk.until(WAITING, 0)
    assert reasons(telegram) == list(range(203))
    assert telegram.broken == []
    tried = {row["attempts"] for row in await desk.rows()}
    assert max(tried) > 1
    assert await notifier.end() == 0


async def test_kills_and_lost_answers_double_and_lose_nothing(desk: Any, telegram: Any, notifier: Any) -> None:
    """A double is what was sent and not marked: no more than one message for each kill or lost answer."""
    faults = 0
    await notifier.start()
    await desk.until(REGISTERED, 1)
    for round_ in range(4):
        seen = len(telegram.messages)
        await desk.letters(10, first=10 * round_)
        if round_ == 1:
            telegram.fails.append("lose")
            faults += 1
        await telegram.until(lambda messages, seen=seen: len(messages) > seen)
        await notifier.end(signal.SIGKILL)
        faults += 1
        await notifier.start()
    await telegram.until(lambda _: set(reasons(telegram)) == set(range(40)))
    await desk.until(WAITING, 0)
    told = reasons(telegram)
    first_times = list(dict.fromkeys(told))
    assert first_times == list(range(40))
    assert len(told) - len(first_times) <= BLOCKS * faults
    assert telegram.broken == []


async def test_a_stop_in_the_middle_of_sending_is_in_order(desk: Any, telegram: Any, notifier: Any) -> None:
    await desk.register("DeadLetters")
    await desk.letters(400)
    await notifier.start()
    await telegram.until(lambda messages: len(messages) >= 2)
    assert await notifier.end() == 0
    told = reasons(telegram)
    left = await desk.rows()
    assert len(told) < 400
    assert told == list(range(len(told)))
    assert [row["outcome"] for row in left] == ["sent"] * len(told) + ["waiting"] * (400 - len(told))
    await notifier.start()
    await telegram.until(lambda _: len(reasons(telegram)) >= 400)
    assert reasons(telegram) == list(range(400))
    assert telegram.broken == []


async def test_a_refused_token_keeps_everything_until_the_secret_is_mended(
    desk: Any, telegram: Any, notifier: Any
) -> None:
    token = telegram.token
    telegram.token = "7312345678:AAH-another"
    await notifier.start()
    await desk.until(REGISTERED, 1)
    await desk.letters(2)
    section = await notifier.until_state("blocked")
    assert "BotFather" in section["lastError"]
    asked = len(telegram.requests)
    (desk.secrets / "telegram" / "token").write_text("7312345678:AAH-another\n")
    await telegram.until(lambda _: len(reasons(telegram)) == 2)
    assert len(telegram.requests) <= asked + 3
    await notifier.end()
    for secret in (token, telegram.token):
        assert secret.encode() not in notifier.log


async def test_what_is_refused_for_ever_holds_up_nothing(desk: Any, telegram: Any, notifier: Any) -> None:
    """A supergroup's new id is taken; a text that Telegram does not take is set aside."""
    telegram.fails = ["moved:-100999"]
    await notifier.start()
    await desk.until(REGISTERED, 1)
    await desk.letters(1)
    await telegram.until(lambda _: len(reasons(telegram)) == 1)
    assert telegram.messages[0].chat == -100999
    await notifier.end()
    assert b"notify.chat_moved" in notifier.log


async def test_two_notifiers_send_once(desk: Any, telegram: Any, notifier: Any) -> None:
    await notifier.start()
    await desk.until(REGISTERED, 1)
    other = type(desk)(desk.database_url, desk.folder / "second")
    other.folder.mkdir()
    other.write(telegram)
    second = type(notifier)(other)
    await second.start()
    try:
        async with asyncio.timeout(240.0):
            while not Path(other.folder / "notify.port").exists() or not (await second.health())["notify"]["standby"]:
                await asyncio.sleep(0.05)
        await desk.letters(5)
        await telegram.until(lambda _: len(reasons(telegram)) == 5)
        await desk.until(WAITING, 0)
        await notifier.end(signal.SIGKILL)
        await desk.letters(5, first=5)
        await telegram.until(lambda _: len(reasons(telegram)) == 10)
        assert reasons(telegram) == list(range(10))
    finally:
        await second.end(signal.SIGKILL)


async def test_postgres_away_is_told_past_the_outbox_and_recorded(
    postgres_server: EmbeddedPostgres, desk: Any, telegram: Any, notifier: Any
) -> None:
    await notifier.start()
    await desk.until(REGISTERED, 1)
    postgres_server.stop()
    try:
        await telegram.until(lambda messages: any("PostgreSQL" in each.text for each in messages), timeout=240.0)
        assert "cannot be reached" in telegram.messages[0].text
    finally:
        postgres_server.start()
    recorded = "SELECT count(*) FROM notifications WHERE kind = 'ServerAway' AND outcome = 'sent'"
    await desk.until(recorded, 1)
    await telegram.until(lambda messages: any(": over" in each.text for each in messages), timeout=240.0)
    told = [row["outcome"] for row in await desk.rows() if row["kind"] == "ServerAway"]
    assert len(told) == 2
    assert telegram.broken == []


async def test_a_wrong_configuration_is_told_with_its_remedy(desk: Any, telegram: Any, notifier: Any) -> None:
    (desk.secrets / "telegram" / "token").unlink()
    await notifier.start()
    assert notifier.process is not None
    assert await asyncio.wait_for(notifier.process.wait(), 120) == 2
    assert notifier.reader is not None
    await notifier.reader
    assert b"botTokenSecretRef" in notifier.log
    assert b"add it, or check the reference's key" in notifier.log


async def test_the_token_gets_nowhere(desk: Any, telegram: Any, notifier: Any) -> None:
    """Also where what is between repeats the address in its errors: log, health, metrics, tables, arguments."""
    # Refused until that was seen: on a machine that stands still the rest is over before somebody looks.
    telegram.fails = ["echo:502", *["echo:403"] * 50]
    await notifier.start()
    await desk.until(REGISTERED, 1)
    await desk.letters(1)
    section = await notifier.until_state("blocked")
    assert "[redacted]" in section["lastError"]
    seen = [json.dumps(await notifier.health()), await notifier.page("metrics")]
    telegram.fails = ["echo:400"]
    (desk.secrets / "telegram" / "token").write_text(f" {telegram.token}\n")
    await desk.until("SELECT count(*) FROM notifications WHERE outcome LIKE 'refused%[redacted]%'", 1)
    seen += [str(row) for row in await desk.rows()]
    assert notifier.process is not None
    seen.append(Path(f"/proc/{notifier.process.pid}/cmdline").read_text())
    await notifier.end()
    seen.append(notifier.log.decode())
    secret = telegram.token.partition(":")[2]
    assert all(secret not in text for text in seen)
    assert secret in (desk.secrets / "telegram" / "token").read_text()
