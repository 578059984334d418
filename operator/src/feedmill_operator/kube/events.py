"""Kubernetes Events about the custom resources: what ``kubectl describe`` shows at the end.

Once per object, generation and reason, by its name across restarts too: conditions tell the state, Events that
it came to it. An Event that cannot be written is dropped; nothing waits for one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from feedmill.shared import log
from feedmill_operator.kube.api import ApiError, KubeApi, Manifest
from feedmill_operator.kube.kinds import EVENT
from feedmill_operator.names import FIELD_MANAGER, short_hash

_REMEMBERED = 20_000
_WAITING = 1_000
_LONGEST = 1024
"""Characters of a message: the API server refuses more."""


class Events:
    """Publishes from a queue of its own while ``run`` runs. ``instance``: which replica reports."""

    def __init__(self, api: KubeApi, instance: str) -> None:
        self._api = api
        self._instance = instance
        self._told: OrderedDict[tuple[str, int, str], None] = OrderedDict()
        self._waiting: asyncio.Queue[Manifest] = asyncio.Queue(_WAITING)
        self._log = log.get_logger()

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        """Something went as it should. ``about``: the custom resource as the API server gives it."""
        self._publish(about, reason, message, "Normal")

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        """Something that a person should look at."""
        self._publish(about, reason, message, "Warning")

    async def run(self) -> None:
        """Write what is published until cancelled."""
        while True:
            event = await self._waiting.get()
            try:
                await self._api.create(EVENT, event)
            except ApiError as error:
                # A namespace that is being deleted takes no Events, and what the operator told before its restart is
                # there: no news.
                if error.status not in (403, 404, 409):
                    self._log.warning("event.dropped", reason=event["reason"], error=str(error))
            finally:
                self._waiting.task_done()

    async def flushed(self) -> None:
        """Until all that was published so far is written or dropped (``run`` must be running)."""
        await self._waiting.join()

    def _publish(self, about: Mapping[str, Any], reason: str, message: str, kind: str) -> None:
        metadata = about["metadata"]
        once = (str(metadata.get("uid", "")), int(metadata.get("generation") or 0), reason)
        if once in self._told:
            self._told.move_to_end(once)
            return
        try:
            self._waiting.put_nowait(self._event(about, reason, message, kind))
        except asyncio.QueueFull:
            return  # Told at the next reconcile that still finds it so.
        self._told[once] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _event(self, about: Mapping[str, Any], reason: str, message: str, kind: str) -> Manifest:
        metadata = about["metadata"]
        told = f"{metadata.get('uid', '')} {metadata.get('generation', 0)} {reason}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = log.redact(message)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:220].rstrip('-.')}.{short_hash(told, 16)}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "source": {"component": FIELD_MANAGER},
        }
