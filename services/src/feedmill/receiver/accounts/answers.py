"""Requests of the accounts' distributor: carried out by the desk, answered into the account's raw stream.

So an answer stands behind all that was received before it, and whoever reads the stream needs no second clock.
"""

from __future__ import annotations

from collections.abc import Callable

from feedmill.exchanges.account_base import AccountRequest, Credentials, Mend
from feedmill.receiver.accounts.desk import AccountDesk
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared import control


class AccountAnswers:
    """Callable as ``distributor.accounts.service.Ask``. ``credentials`` raises KeyError for an account that is gone."""

    def __init__(self, desk: AccountDesk, streams: AccountStreams, credentials: Callable[[str], Credentials]) -> None:
        self._desk = desk
        self._streams = streams
        self._credentials = credentials

    async def __call__(self, account: str, command: str, request: AccountRequest) -> None:
        answer = await self._desk.ask(self._credentials(account), request)
        why = answer.refused
        if why is None:
            found = control.RestAnswer(
                command, request.kind, request.symbol, request.native, answer.status, answer.sent_ns, answer.body
            )
            self._streams.answer(account, found, answer.at_ns)
            return
        # A status says that there is no answer to this; without one it may be asked again.
        status = (answer.status or 400) if why.mend in (Mend.REFUSED, Mend.DONE) else 0
        self._streams.refused(account, control.RestFailed(command, request.symbol, str(why)[:200], status))
