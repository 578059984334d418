"""Whether the operator lives: its pages, and whether its watches still hear anything."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from feedmill.shared.health import Health, HealthServer
from feedmill_operator import metrics


class Hearing:
    """When the watches last told something.

    The operator changes its own Lease all the time (renewals, else :class:`feedmill_operator.kube.probe.Probe`), so a
    watch that shows no change of it for ``deaf_after`` seconds hears nothing, whatever its connection says.
    """

    def __init__(self, deaf_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._deaf_after = deaf_after
        self._clock = clock
        self._event: float | None = None
        self._probe: float | None = None
        metrics.watch_age.set_function(lambda: self._age(self._event))
        metrics.probe_age.set_function(lambda: self._age(self._probe))

    def begin(self) -> None:
        """Watching begins: from now on silence counts."""
        self._event = self._probe = self._clock()

    def end(self) -> None:
        """Watching ended in order: silence is right."""
        self._event = self._probe = None

    def event(self) -> None:
        """A watch told something."""
        if self._event is not None:
            self._event = self._clock()

    def probe(self) -> None:
        """A watch told of the own Lease."""
        if self._probe is not None:
            self._probe = self._clock()

    def alive(self) -> tuple[bool, str]:
        """(lives, what is wrong)."""
        silent = self._age(self._probe)
        if silent < self._deaf_after:
            return True, ""
        return False, f"the watch is deaf: no renewal of the own Lease was seen for {silent:.0f} s"

    def _age(self, since: float | None) -> float:
        return 0.0 if since is None else self._clock() - since


class OperatorHealth(HealthServer):
    """As every service's, except that ``/healthz`` fails when the watch is deaf: a restart cures that."""

    def __init__(self, health: Health, hearing: Hearing, host: str, port: int) -> None:
        super().__init__(health, host, port)
        self._hearing = hearing

    async def _healthz(self, _: web.Request) -> web.Response:
        alive, why = self._hearing.alive()
        return web.Response(text="ok\n" if alive else f"{why}\n", status=200 if alive else 503)
