"""``feedmill notify``: the bot and the chat are tried, what was told is listed, what was refused is sent again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedmill.cli.main import app
from feedmill.local.doctor import notifications
from feedmill.local.doctor.check import Grade, ok
from feedmill.resources.load import load_files
from feedmill.shared.clock import now_ns


async def feedmill(*args: str) -> Result:
    """In a thread: the command has an event loop of its own, and the test's serves Telegram."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(args))


def bot(desk: Any, command: str) -> tuple[str, ...]:
    return ("notify", command, "-c", str(desk.manifest), "--secrets-dir", str(desk.secrets))


async def test_a_test_message(desk: Any, telegram: Any) -> None:
    desk.write(telegram)
    done = await feedmill(*bot(desk, "test"))
    assert done.exit_code == 0, done.output
    assert done.output == "sent by @feedmill_test_bot to supergroup Feeds *alerts*, message 1\n"
    [message] = telegram.messages
    assert "_ * [ ] ( ) ~ ` > # + - = | { } . ! \\" in message.text
    assert telegram.broken == []


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("token", 1, "make one with @BotFather"),
        ("chat", 1, "check chatId"),
        ("blocked", 1, "unblock it"),
        ("away", 1, "Telegram cannot be reached"),
        ("file", 2, "botTokenSecretRef"),
    ],
)
async def test_what_is_wrong_is_told_with_its_remedy(
    desk: Any, telegram: Any, fault: str, code: int, says: str
) -> None:
    desk.write(telegram)
    token = telegram.token
    match fault:
        case "token":
            telegram.token = "1:another"
        case "chat":
            telegram.chat = -5
        case "blocked":
            telegram.fails = ["blocked"]
        case "away":
            await telegram.stop()
        case "file":
            (desk.secrets / "telegram" / "token").write_text("no token")
    done = await feedmill(*bot(desk, "test"))
    assert done.exit_code == code
    assert says in done.output
    assert token not in done.output
    assert "Traceback" not in done.output


async def test_the_chats_that_wrote_to_the_bot(desk: Any, telegram: Any) -> None:
    desk.write(telegram)
    assert "no chat wrote" in (await feedmill(*bot(desk, "chats"))).output
    ann = {"id": 77, "type": "private", "first_name": "Ann\x1b[31m", "username": "ann"}
    telegram.updates = [
        {"update_id": 1, "message": {"message_id": 1, "chat": ann}},
        {"update_id": 2, "my_chat_member": {"chat": {"id": -100, "type": "supergroup", "title": "Feeds"}}},
        {"update_id": 3, "message": {"message_id": 2, "chat": ann}},
    ]
    done = await feedmill(*bot(desk, "chats"))
    assert done.output == 'chatId: "77"    private  Ann [31m @ann\nchatId: "-100"    supergroup  Feeds\n'
    listed = json.loads((await feedmill(*bot(desk, "chats"), "-o", "json")).output)
    assert [each["chatId"] for each in listed] == ["77", "-100"]


async def test_what_was_refused_is_listed_and_sent_again(
    desk: Any, telegram: Any, notifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", desk.database_url)
    assert "nothing was told" in (await feedmill("notify", "list")).output
    telegram.fails = ["bad"]
    await notifier.start()
    await desk.until("SELECT count(*) FROM notify_state WHERE name = 'default/main'", 1)
    await desk.letters(1)
    await desk.until("SELECT count(*) FROM notifications WHERE outcome LIKE 'refused%'", 1)
    await desk.letters(1, first=1)
    await telegram.until(lambda messages: len(messages) == 1)
    assert "reason_0001" in telegram.messages[0].text
    await desk.until("SELECT count(*) FROM notifications WHERE outcome = 'sent'", 1)
    listed = (await feedmill("notify", "list")).output
    assert "refused: Bad Request: message text is empty" in listed
    assert "shard default.spot.0, reason reason_0001" in listed
    [refused] = json.loads((await feedmill("notify", "list", "--refused", "-o", "json")).output)
    assert (refused["kind"], refused["body"]["reason"]) == ("DeadLetters", "reason_0000")
    assert json.loads((await feedmill("notify", "list", "--waiting", "-o", "json")).output) == []
    assert (await feedmill("notify", "retry", str(refused["id"]))).output == "1 to be sent again\n"
    await telegram.until(lambda messages: len(messages) == 2)
    assert "reason_0000" in telegram.messages[1].text


async def test_what_waits_is_dropped(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", desk.database_url)
    await desk.register("DeadLetters")
    await desk.letters(3)
    both = await feedmill("notify", "drop", "1", "--all")
    neither = await feedmill("notify", "drop")
    assert (both.exit_code, neither.exit_code) == (2, 2)
    missing = await feedmill("notify", "drop", "1", "99")
    assert missing.exit_code == 1
    assert "99" in missing.output
    assert (await feedmill("notify", "drop", "--all")).output == "2 dropped\n"
    assert {row["outcome"] for row in await desk.rows()} == {"dropped"}
    assert (await feedmill("notify", "retry", "--all")).output == "3 to be sent again\n"


async def test_a_wait_for_the_end_of_quiet_hours_is_shown(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", desk.database_url)
    await desk.register("DeadLetters")
    await desk.letters(1)
    async with desk.session() as connection:
        await connection.execute("UPDATE notifications SET not_before_ns = $1", now_ns() + 3600 * 10**9)
    assert "waits until" in (await feedmill("notify", "list")).output


async def test_doctor_asks_for_bot_and_chat(desk: Any, telegram: Any) -> None:
    desk.write(telegram)
    resources = load_files([desk.manifest], local=True)
    [found] = await notifications.checks(resources, desk.secrets)
    assert found == ok("notifications of default/main", "@feedmill_test_bot writes to supergroup Feeds *alerts*")
    telegram.fails = ["blocked"]
    [found] = await notifications.checks(resources, desk.secrets)
    assert (found.grade, "unblock it" in found.remedy) == (Grade.FAIL, True)
    [found] = await notifications.checks(resources, None)
    assert (found.grade, found.remedy) == (Grade.WARN, "give --secrets-dir with telegram/token")
    await telegram.stop()
    [found] = await notifications.checks(resources, desk.secrets)
    assert found.grade is Grade.WARN
    assert telegram.messages == []
