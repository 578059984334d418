"""Keeps one server running in the foreground: follows its password, passes on the stop, ends when it ends."""

from __future__ import annotations

import signal
import threading
from typing import ClassVar, Protocol

from feedmill.local.embedded import EmbeddedError
from feedmill.local.managed.errors import ManagedError
from feedmill.local.managed.passwords import Passwords
from feedmill.shared import log

STOPPED, FAILED, IMPOSSIBLE = 0, 1, 2
"""Exit codes: stopped in order; ended or could not start (try again); will never start so."""
_POLL = 0.5
"""Seconds between two looks at the password's file."""


class Server(Protocol):
    """What is supervised: an embedded server that can change its password."""

    what: ClassVar[str]
    port: int

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def use(self, passwords: Passwords) -> None: ...


def supervise(server: Server, passwords: Passwords, stop: threading.Event) -> int:
    """Run until ``stop`` is set or the server ends; the exit code."""
    logger = log.get_logger()
    try:
        passwords.load()
        server.start()
    except ManagedError as error:
        logger.error("managed.impossible", server=server.what, error=str(error))
        return IMPOSSIBLE
    except (EmbeddedError, OSError) as error:
        logger.error("managed.failed", server=server.what, error=str(error))
        return FAILED
    logger.info("managed.started", server=server.what, port=server.port)
    told = ""
    pending = True
    while not stop.is_set():
        try:
            pending = passwords.poll() or passwords.expire() or pending
            if pending:
                server.use(passwords)
                pending = False
                overlap = passwords.previous is not None
                logger.info("managed.password", server=server.what, previous_still_good=overlap)
            told = ""
        except (ManagedError, OSError) as error:
            # The password stays as it was; what is wrong is told once.
            if str(error) != told:
                told = str(error)
                logger.warning("managed.password_unusable", server=server.what, error=told, action="keep the last")
        if not server.running:
            logger.error("managed.ended", server=server.what, action="exit, to be started again")
            return FAILED
        stop.wait(_POLL)
    logger.info("managed.stopping", server=server.what)
    server.stop()
    return STOPPED


def stop_on_signals() -> threading.Event:
    """Set by SIGTERM and SIGINT."""
    event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.set())
    return event
