"""Leader election by a Lease: of several replicas one works.

Every write is checked by resourceVersion, so two processes never both believe they wrote. Another's Lease is judged by
the time since *this* process saw it change, never by its clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime

from feedmill.shared import log
from feedmill_operator import metrics
from feedmill_operator.config import LeaseOptions
from feedmill_operator.kube.api import ApiError, KubeApi, Manifest
from feedmill_operator.kube.kinds import LEASE

_TRY = 5.0
"""Seconds one request may take before the next try."""


class LeaseLost(Exception):
    """This process no longer leads and must end: another may have begun."""


class Elector:
    """``await acquire()``; then ``await hold()`` while working; ``await release()`` at the end.

    ``identity``: of this process, different from every other's.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        options: LeaseOptions,
        identity: str,
        *,
        random_source: random.Random | None = None,
        renewed: Callable[[], None] | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._options = options
        self._identity = identity
        self._random = random_source or random.Random()
        self._renewed = renewed or (lambda: None)
        self._lease: Manifest | None = None
        """As last read or written."""
        self._seen = ("", "")
        self._seen_at = 0.0
        """When what it says last changed (loop time)."""
        self._held_at = 0.0
        """When the last successful write of ours was begun."""
        self._log = log.get_logger()
        self.leading = False

    @property
    def holder(self) -> str:
        """Who has it, as far as known; empty = nobody."""
        return str(_spec(self._lease).get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Wait until the Lease is ours. Only ends so, or cancelled."""
        told = None
        while not await self._try():
            if self.holder != told:
                told = self.holder
                self._log.info("lease.standby", lease=self._options.name, holder=told or None)
            await asyncio.sleep(self._pause())
        self.leading = True
        metrics.leader.set(1)
        metrics.lease_transitions.labels("won").inc()
        self._log.info("lease.won", lease=self._options.name, identity=self._identity)

    async def hold(self) -> None:
        """Renew until cancelled. Raises LeaseLost."""
        try:
            while True:
                await asyncio.sleep(self._pause())
                left = self._held_at + self._options.renew_deadline - _now()
                if left > 0 and await self._try(left):
                    continue
                if self.holder not in ("", self._identity):
                    raise LeaseLost(f"the Lease {self._options.name} is now held by {self.holder}")
                if _now() - self._held_at >= self._options.renew_deadline:
                    raise LeaseLost(
                        f"the Lease {self._options.name} could not be renewed for {self._options.renew_deadline:g} s"
                    )
        finally:
            self.leading = False
            metrics.leader.set(0)
            metrics.lease_transitions.labels("lost").inc()

    async def release(self) -> None:
        """Give it back, so that another need not wait for it to run out. Best effort."""
        if self._lease is None or self.holder != self._identity:
            return
        spec = {**_spec(self._lease), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
        try:
            async with asyncio.timeout(_TRY):
                self._lease = await self._api.replace(LEASE, {**self._lease, "spec": spec})
            self._log.info("lease.released", lease=self._options.name)
        except (ApiError, TimeoutError) as error:
            self._log.warning("lease.release_failed", lease=self._options.name, error=str(error))

    # One try.

    async def _try(self, within: float = _TRY) -> bool:
        """Take or renew; whether it is ours now."""
        begun = _now()
        try:
            async with asyncio.timeout(min(_TRY, within)):
                held = await self._write()
        except (ApiError, TimeoutError) as error:
            # 409: another was quicker, or our own earlier write arrived after all; what is there now is read next time.
            if not (isinstance(error, ApiError) and error.status == 409):
                self._log.warning("lease.unreachable", lease=self._options.name, error=str(error) or "timeout")
            self._lease = None if self.holder == self._identity else self._lease
            return False
        if held:
            self._held_at = begun
            self._renewed()
        return held

    async def _write(self) -> bool:
        lease = self._lease
        if lease is None or self.holder != self._identity:
            lease = self._lease = await self._api.get(LEASE, self._namespace, self._options.name)
            self._note()
        if lease is None:
            self._lease = await self._api.create(LEASE, self._fresh())
            return True
        spec = _spec(lease)
        holder = str(spec.get("holderIdentity") or "")
        if holder not in ("", self._identity) and _now() < self._free_at():
            return False
        ours = holder == self._identity
        now = _micro_time()
        spec = {
            **spec,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._options.duration)),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime") or now if ours else now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not ours),
        }
        self._lease = await self._api.replace(LEASE, {**lease, "spec": spec})
        return True

    def _note(self) -> None:
        """Remember when the Lease was last seen to change."""
        version = str(((self._lease or {}).get("metadata") or {}).get("resourceVersion", ""))
        seen = (self.holder, version)
        if seen != self._seen:
            self._seen, self._seen_at = seen, _now()

    def _free_at(self) -> float:
        duration = _spec(self._lease).get("leaseDurationSeconds")
        return self._seen_at + (float(duration) if duration else self._options.duration)

    def _pause(self) -> float:
        """Until the next try: with jitter, and not past the moment at which another's Lease runs out."""
        pause = self._options.retry * self._random.uniform(0.8, 1.2)
        if self._lease is not None and self.holder not in ("", self._identity):
            pause = min(pause, max(0.05, self._free_at() - _now()))
        return pause

    def _fresh(self) -> Manifest:
        now = _micro_time()
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._options.name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._options.duration)),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }


def _spec(lease: Manifest | None) -> Manifest:
    return dict((lease or {}).get("spec") or {})


def _now() -> float:
    return asyncio.get_running_loop().time()


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
