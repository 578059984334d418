"""Writes ``status``: at once when something happened, later when only numbers moved, never when nothing did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from feedmill.shared.clock import monotonic
from feedmill_operator.kube.api import ApiError, Kind, KubeApi
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.status import Change, change, patch

LIVE, MINOR = 30.0, 5.0
"""Seconds since the last write before numbers, or steps on the way, are written."""


class StatusWriter:
    """One for all kinds."""

    def __init__(self, api: KubeApi, clock: Callable[[], float] = monotonic) -> None:
        self._api = api
        self._clock = clock
        self._last: dict[Key, float] = {}
        """When the status was last written by this process."""

    async def write(self, key: Key, kind: Kind, body: Mapping[str, Any], status: Mapping[str, Any]) -> float | None:
        """Gives in how many seconds a difference that waits is due. Raises ApiError, not when the object is gone."""
        before = body.get("status") or {}
        differs = change(before, status)
        if differs is Change.NONE:
            return None
        wait = self._wait(key, differs)
        if wait > 0:
            return wait
        try:
            await self._api.patch_status(kind, key.namespace, key.name, patch(before, status))
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        self._last[key] = self._clock()
        return None

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._last.pop(key, None)

    def _wait(self, key: Key, differs: Change) -> float:
        least = {Change.LIVE: LIVE, Change.MINOR: MINOR}.get(differs, 0.0)
        last = self._last.get(key)
        return 0.0 if last is None else last + least - self._clock()
