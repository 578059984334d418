"""Circuit breaker for awaited calls: pybreaker is the state machine, the await stays outside of it.

Admission and outcome are two short synchronous steps (:meth:`Breaker.admit`, then one of the :class:`Ticket` methods),
because a call that is cancelled must count neither as a success nor as a failure, and because half-open must let
exactly one probe through however many callers wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from feedmill.shared.lean import import_without

if TYPE_CHECKING:
    import pybreaker
else:
    pybreaker = import_without("pybreaker", "redis", "tornado")

P = ParamSpec("P")
T = TypeVar("T")
State = Literal["closed", "open", "half-open"]
_STATES: dict[str, State] = {"closed": "closed", "open": "open", "half-open": "half-open"}


class BreakerOpen(ConnectionError):
    """Not tried: the breaker is open, or its one probe is already under way. ``retry_in`` is in seconds."""

    def __init__(self, name: str, why: str, retry_in: float) -> None:
        super().__init__(f"{name}: {why}")
        self.retry_in = retry_in


class Ticket:
    """Leave for one call. Of :meth:`success`, :meth:`failure` and :meth:`release` only the first counts."""

    __slots__ = ("_breaker", "_open", "probe")

    def __init__(self, breaker: Breaker, probe: bool) -> None:
        self._breaker = breaker
        self._open = True
        self.probe = probe

    def success(self) -> None:
        if self._close():
            self._breaker._succeeded(self.probe)

    def failure(self, error: BaseException) -> None:
        if self._close():
            self._breaker._failed(self.probe, error)

    def release(self) -> None:
        """Neither: the call was cancelled. A probe's place becomes free again."""
        self._close()

    def _close(self) -> bool:
        was, self._open = self._open, False
        if was and self.probe:
            self._breaker._probe_ended()
        return was


class Breaker(pybreaker.CircuitBreakerListener):
    """Opens after ``fail_max`` failures in a row; after a rest one probe decides.

    The rest is ``reset_timeout`` seconds. With ``first_reset`` given, the first rest is that long and each further
    one (a probe failed) twice the last, up to ``reset_timeout``; closing starts over.
    """

    def __init__(
        self,
        name: str,
        *,
        fail_max: int = 5,
        reset_timeout: float = 30.0,
        first_reset: float | None = None,
        on_change: Callable[[State], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._machine = pybreaker.CircuitBreaker(
            fail_max=fail_max, reset_timeout=reset_timeout, name=name, throw_new_error_on_trip=False, listeners=[self]
        )
        self._longest = reset_timeout
        self._first_reset = first_reset
        self._first = min(reset_timeout if first_reset is None else first_reset, reset_timeout)
        self._rest = self._first
        self._on_change = on_change
        self._clock = clock
        self._opened_at = 0.0
        self._probing = False
        self._changed = asyncio.Event()
        self.last_error = ""

    def limit(self, fail_max: int, reset_timeout: float) -> None:
        """Other thresholds from now on. A rest that runs ends as it was begun, unless it would be too long now."""
        self._machine.fail_max = fail_max
        self._machine.reset_timeout = reset_timeout
        self._longest = reset_timeout
        self._first = min(reset_timeout if self._first_reset is None else self._first_reset, reset_timeout)
        self._rest = min(self._rest, reset_timeout) if self.state == "open" else self._first

    @property
    def state(self) -> State:
        return _STATES[self._machine.current_state]

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return int(self._machine.fail_counter)

    @property
    def retry_in(self) -> float:
        """Seconds until a probe is let through; 0 when one may try now."""
        if self.state != "open":
            return 0.0
        return max(0.0, self._opened_at + self._rest - self._clock())

    def hasten(self) -> None:
        """Let the next probe through at once: something else shows that it may work again."""
        self._opened_at = min(self._opened_at, self._clock() - self._rest)

    def admit(self) -> Ticket:
        """Ask to make a call; raises BreakerOpen when it must not be made."""
        if self.state == "open":
            wait = self.retry_in
            if wait > 0:
                raise BreakerOpen(self.name, f"open after {self.failures} failures ({self.last_error})", wait)
            self._machine.half_open()
        if self.state == "half-open":
            if self._probing:
                raise BreakerOpen(self.name, "half-open, the probe is under way", 0.0)
            self._probing = True
            return Ticket(self, probe=True)
        return Ticket(self, probe=False)

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function`` if admitted. Its own error comes through unchanged; cancellation counts as neither."""
        ticket = self.admit()
        try:
            result = await function(*args, **kwargs)
        except Exception as error:
            ticket.failure(error)
            raise
        except BaseException:
            ticket.release()
            raise
        ticket.success()
        return result

    async def wait_closed(self) -> None:
        """Wait until the breaker is closed."""
        while self.state != "closed":
            self._changed.clear()
            await self._changed.wait()

    # outcomes, called by tickets
    def _succeeded(self, probe: bool) -> None:
        # A call admitted while closed may end after the breaker opened: its outcome no longer says anything.
        if (probe and self.state == "half-open") or (self.state == "closed" and self.failures):
            self._machine.call(_nothing)

    def _failed(self, probe: bool, error: BaseException) -> None:
        self.last_error = f"{type(error).__name__}: {error}"[:200]
        if (probe and self.state == "half-open") or (not probe and self.state == "closed"):

            def fail() -> None:
                raise error

            try:
                self._machine.call(fail)
            except BaseException as seen:
                if seen is not error:
                    raise

    def _probe_ended(self) -> None:
        self._probing = False

    # pybreaker.CircuitBreakerListener
    def state_change(self, cb: object, old: object, new: object) -> None:
        state = _STATES[str(getattr(new, "name", "closed"))]
        if state == "open":
            again = getattr(old, "name", "") == "half-open"
            self._rest = min(self._longest, self._rest * 2) if again else self._first
            self._opened_at = self._clock()
        elif state == "closed":
            self._rest = self._first
        self._changed.set()
        if self._on_change is not None:
            self._on_change(state)


def _nothing() -> None:
    return None


def tells(log: Any, server: str) -> Callable[[State], None]:
    """``on_change`` of a breaker that says so in the log."""

    def told(state: State) -> None:
        if state == "open":
            log.warning("breaker.open", server=server, effect="nothing asks it for a while, then one question does")
        elif state == "closed":
            log.info("breaker.closed", server=server)
        else:
            log.debug("breaker.half_open", server=server)

    return told
