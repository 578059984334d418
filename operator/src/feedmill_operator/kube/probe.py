"""Changes a Lease from time to time, so that a watch that hears anything must hear that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from feedmill.shared import log
from feedmill_operator.kube.api import ApiError, KubeApi
from feedmill_operator.kube.kinds import LEASE


class Probe:
    """For an operator whose leader election does not do it: without election, or where its Lease is not watched.

    ``interval``: seconds, several times within the time after which the watch is called deaf.
    """

    def __init__(self, api: KubeApi, namespace: str, name: str, interval: float) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._interval = interval
        self._log = log.get_logger()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._api.apply(LEASE, self._lease())
            except ApiError as error:
                self._log.warning("probe.failed", lease=f"{self._namespace}/{self._name}", error=str(error))
            await asyncio.sleep(self._interval)

    def _lease(self) -> dict[str, object]:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {"renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
        }
