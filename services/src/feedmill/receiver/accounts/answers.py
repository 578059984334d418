"""Requests of the accounts' distributor: carried out by the desk, answered into the account's raw stream.

So an answer stands behind all that was received before it, and whoever reads the stream needs no second clock.
"""

from __future__ import annotations

from collections.abc import Callable

from feedmill.exchanges.account_base import AccountRequest, Credentials, Mend
from feedmill.receiver.accounts.desk import AccountDesk
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared import control
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import account_ref
from feedmill.shared.tracing import TRACES, Span


class AccountAnswers:
    """Callable as ``distributor.accounts.service.Ask``. ``credentials`` raises KeyError for an account that is gone."""

    def __init__(self, desk: AccountDesk, streams: AccountStreams, credentials: Callable[[str], Credentials]) -> None:
        self._desk = desk
        self._streams = streams
        self._credentials = credentials

    async def __call__(self, account: str, command: str, request: AccountRequest) -> None:
        span = _span(account, command, request) if TRACES.sampled() else None
        try:
            answer = await self._desk.ask(self._credentials(account), request)
        except BaseException as error:
            if span is not None:
                span.end(now_ns(), type(error).__name__)
            raise
        why = answer.refused
        trace = ""
        if span is not None:
            trace = span.traceparent
            span.set({"http.response.status_code": answer.status})
            span.end(now_ns(), "" if why is None else why.mend.name)
        if why is None:
            found = control.RestAnswer(
                command, request.kind, request.symbol, request.native, answer.status, answer.sent_ns, answer.body, trace
            )
            self._streams.answer(account, found, answer.at_ns)
            return
        # A status says that there is no answer to this; without one it may be asked again.
        status = (answer.status or 400) if why.mend in (Mend.REFUSED, Mend.DONE) else 0
        self._streams.refused(account, control.RestFailed(command, request.symbol, str(why)[:200], status))


def _span(account: str, command: str, request: AccountRequest) -> Span:
    """Begins a trace: of what a reconciliation asks for, waiting for the venue's budget included."""
    attributes = {
        "feedmill.shard": str(account_ref(account)),
        "feedmill.command": command,
        "feedmill.kind": request.kind,
        "feedmill.symbol": request.symbol,
    }
    return TRACES.begin("ask venue", now_ns(), "client", attributes)
