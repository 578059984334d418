"""What a reconciliation asks for is followed: the question's span, and the answer that carries it on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from feedmill.exchanges.account_base import NOBODY, AccountRequest, Mend, Rejection
from feedmill.receiver.accounts.answers import AccountAnswers
from feedmill.receiver.accounts.desk import Answered
from feedmill.shared.control import RestAnswer, RestFailed

REQUEST = AccountRequest("fills", "/x", {}, 5, symbol="BTC-USDT", native="BTCUSDT")


@dataclass
class Desk:
    found: Answered | Exception

    async def ask(self, *_: Any) -> Answered:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@dataclass
class Streams:
    answers: list[RestAnswer] = field(default_factory=list)
    failed: list[RestFailed] = field(default_factory=list)

    def answer(self, account: str, answer: RestAnswer, at_ns: int) -> None:
        self.answers.append(answer)

    def refused(self, account: str, record: RestFailed) -> None:
        self.failed.append(record)


def answers(found: Answered | Exception) -> tuple[AccountAnswers, Streams]:
    streams = Streams()
    return AccountAnswers(Desk(found), streams, lambda _: NOBODY), streams  # type: ignore[arg-type]


async def test_the_answer_carries_the_questions_trace(traced: Any) -> None:
    ask, streams = answers(Answered(200, b"[]", 5, 6))
    await ask("ns/mine", "c1", REQUEST)
    (span,) = traced.spans()
    (answer,) = streams.answers
    assert answer.trace == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    assert dict(span.attributes) == {
        "feedmill.shard": "ns.@mine.0",
        "feedmill.command": "c1",
        "feedmill.kind": "fills",
        "feedmill.symbol": "BTC-USDT",
        "http.response.status_code": 200,
    }
    assert span.status.status_code is StatusCode.UNSET


async def test_a_refusal_is_told_without_the_venues_words(traced: Any) -> None:
    ask, streams = answers(Answered(401, b"", 5, 6, Rejection(Mend.REFUSED, 7, "key geheim is wrong")))
    await ask("ns/mine", "c1", REQUEST)
    assert len(streams.failed) == 1
    (span,) = traced.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "REFUSED")


async def test_a_question_that_cannot_be_asked_ends_its_span(traced: Any) -> None:
    ask, _ = answers(ValueError("no such thing"))
    with pytest.raises(ValueError, match="no such thing"):
        await ask("ns/mine", "c1", REQUEST)
    (span,) = traced.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")


async def test_nothing_is_traced_while_it_is_off() -> None:
    ask, streams = answers(Answered(200, b"[]", 5, 6))
    await ask("ns/mine", "c1", REQUEST)
    assert streams.answers[0].trace == ""
