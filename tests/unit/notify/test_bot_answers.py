"""What an answer of the Bot API asks of us."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.general.notify import telegram
from feedmill.general.notify.processes import Place
from feedmill.general.notify.telegram import Answer, BadText, Moved, NotAllowed, Slower, TelegramAway
from feedmill.shared.config import ConfigError


@pytest.mark.parametrize(
    ("status", "description", "parameters", "kind"),
    [
        (401, "Unauthorized", None, NotAllowed),
        (404, "Not Found", None, NotAllowed),
        (403, "Forbidden: bot was blocked by the user", None, NotAllowed),
        (400, "Bad Request: chat not found", None, NotAllowed),
        (400, "Bad Request: not enough rights to send text messages to the chat", None, NotAllowed),
        (400, "Bad Request: PEER_ID_INVALID", None, NotAllowed),
        (400, "Bad Request: TOPIC_CLOSED", None, NotAllowed),
        (400, "Bad Request: message text is empty", None, BadText),
        (400, 'Bad Request: can\'t parse entities: unsupported start tag "user"', None, BadText),
        (408, "Request Timeout", None, TelegramAway),
        (409, "Conflict", None, TelegramAway),
        (413, "Request Entity Too Large", None, TelegramAway),
        (400, "Bad Request: can't parse entities: character '.' is reserved", None, BadText),
        (400, "Bad Request: group chat was upgraded", {"migrate_to_chat_id": -100200}, Moved),
        (429, "Too Many Requests", {"retry_after": 7}, Slower),
        (429, "Too Many Requests", None, Slower),
        (500, "Internal Server Error", None, TelegramAway),
        (502, "Bad Gateway", None, TelegramAway),
    ],
)
def test_answers(status: int, description: str, parameters: dict[str, Any] | None, kind: type[Exception]) -> None:
    with pytest.raises(kind) as failed:
        telegram.judge(Answer(status, False, description, parameters))
    if isinstance(failed.value, Slower):
        assert failed.value.seconds == (7.0 if parameters else 30.0)
    if isinstance(failed.value, Moved):
        assert failed.value.chat == "-100200"


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 407, 413, 503])
@pytest.mark.parametrize("body", [b"<html>Proxy</html>", b'{"message": "no"}', b'{"ok": true', b"", b"[]"])
def test_what_answers_in_its_place_says_nothing_of_a_text(status: int, body: bytes) -> None:
    with pytest.raises(TelegramAway, match=f"HTTP {status}"):
        telegram.judge(telegram._read(status, body))


def test_a_rest_is_taken_from_whoever_asks_for_it() -> None:
    with pytest.raises(Slower):
        telegram.judge(telegram._read(429, b"<html>Slow down</html>"))


def test_a_good_answer() -> None:
    telegram.judge(Answer(200, True, result={"message_id": 5}))


@pytest.mark.parametrize("rest", [0, -5, "7", True, None])
def test_an_odd_rest_is_not_believed(rest: Any) -> None:
    with pytest.raises(Slower) as failed:
        telegram.judge(Answer(429, False, "", {"retry_after": rest}))
    assert failed.value.seconds >= 1.0


def test_places() -> None:
    assert Place.parse("main-health.feeds.svc:8080") == Place(host="main-health.feeds.svc", port=8080)
    assert Place.parse("[::1]:80") == Place(host="::1", port=80)
    folder = Place.parse("data/run").folder
    assert folder is not None
    assert folder.is_absolute()
    with pytest.raises(ConfigError, match="1 to 65535"):
        Place.parse("host:0")
