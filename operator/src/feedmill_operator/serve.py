"""The operator's life: standby, leadership, an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import uvloop

from feedmill import __version__
from feedmill.shared import log, metrics
from feedmill.shared.health import Health
from feedmill_operator import metrics as operator_metrics
from feedmill_operator import tracing
from feedmill_operator.config import BadOption, Options
from feedmill_operator.health import Hearing, OperatorHealth
from feedmill_operator.kube.api import Kind, KubeApi
from feedmill_operator.kube.client import BadKubeconfig, KubeClient, credentials, load_configuration
from feedmill_operator.kube.events import Events
from feedmill_operator.kube.lease import Elector, LeaseLost
from feedmill_operator.kube.probe import Probe
from feedmill_operator.reconcile.controller import Controller, selector
from feedmill_operator.reconcile.pods import pod_facts
from feedmill_operator.reconcile.ports import Wiring
from feedmill_operator.watching import KopfLog, Watching

STOPPED, FAILED, BAD_CONFIG = 0, 1, 2
"""Exit codes."""

Wire = Callable[[Controller, KubeApi, Events, Options], Wiring]


def _collect_seldom() -> None:
    """Events and requests make garbage by the hundred thousand, hardly any of it in cycles: to look for those as
    often as Python does by itself (700, 10, 10) costs CPU for nothing."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def run(options: Options, wire: Wire) -> int:
    """The process's exit code: 0 = stopped in order, 1 = leadership lost or failed, 2 = it cannot start so."""
    finish_log = log.configure("feedmill-operator", level=options.log_level)
    for handler in logging.getLogger().handlers:
        handler.addFilter(KopfLog())
    for chatty in ("kopf", "urllib3", "kubernetes", "client"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    operator = _Operator(options, wire)
    _collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(operator.run())
    if not operator.ended(2.0):
        # The interpreter would wait for the threads of requests that nobody answers; who follows us does not.
        finish_log()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Operator:
    def __init__(self, options: Options, wire: Wire) -> None:
        self._options = options
        self._wire = wire
        self._clients: list[KubeClient] = []
        self._stop = asyncio.Event()
        self._hearing = Hearing(options.deaf_after)
        self._controller: Controller | None = None
        self._elector: Elector | None = None
        self._log = log.get_logger()

    def ended(self, within: float) -> bool:
        """Whether no request is under way any more. Blocks so long, seconds."""
        deadline = time.monotonic() + within
        while any(client.busy for client in self._clients) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not any(client.busy for client in self._clients)

    async def run(self) -> int:
        options = self._options
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        health = Health("feedmill-operator")
        health.condition("role", self._ready)
        health.detail("process", lambda: {"pid": os.getpid(), "version": __version__})
        health.detail("operator", self._detail)
        server = OperatorHealth(health, self._hearing, options.health_host, options.health_port)
        lag = asyncio.create_task(metrics.watch_loop_lag(), name="loop-lag")
        try:
            await server.start()
            api = self._client(max(16, 2 * options.workers))
            span, finish_spans = tracing.spans(options.otlp_endpoint, options.identity)
        except (BadKubeconfig, BadOption) as error:
            self._log.error("config.wrong", error=str(error))
            return BAD_CONFIG
        except OSError as error:
            where = f"{options.health_host}:{options.health_port}"
            remedy = "choose another --health-host or --health-port"
            self._log.error("health.failed", listen=where, reason=str(error), remedy=remedy)
            return BAD_CONFIG
        else:
            self._log.info(
                "started",
                version=__version__,
                identity=options.identity,
                namespaces=list(options.namespaces) or "all",
                health_port=server.port,
            )
            try:
                code = await self._lead(api, span)
            finally:
                finish_spans()
            self._log.info("stopped", exit_code=code)
            return code
        finally:
            lag.cancel()
            await server.stop()
            for client in self._clients:
                client.close()

    def _client(self, concurrency: int) -> KubeClient:
        client = KubeClient(load_configuration(self._options.kubeconfig), concurrency=concurrency)
        self._clients.append(client)
        return client

    async def _lead(self, api: KubeClient, span: tracing.Span) -> int:
        options = self._options
        if not options.lease.enabled:
            operator_metrics.leader.set(1)
            return await self._work(api, span, None)
        # Connections of its own: a renewal never waits behind the work.
        elector = self._elector = Elector(self._client(2), options.operator_namespace, options.lease, options.identity)
        if not await self._until(elector.acquire()):
            return STOPPED
        try:
            return await self._work(api, span, elector)
        except LeaseLost as error:
            self._log.warning("lease.lost", reason=str(error), action="exit")
            return FAILED
        finally:
            await elector.release()  # Does nothing where it is another's.

    async def _until(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether ``work`` ended before the stop."""
        task = asyncio.create_task(work, name="until")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            for one in (task, stopping):
                one.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await one

    async def _work(self, api: KubeClient, span: tracing.Span, elector: Elector | None) -> int:
        options = self._options
        place = self._probed()
        controller = self._controller = Controller(
            api, options, pod_facts, span=span, probe=lambda *where: self._hearing.probe() if where == place else None
        )
        events = Events(api, options.identity)
        wiring = self._wire(controller, api, events, options)
        controller.reconcilers = wiring.reconcilers

        def tell(kind: Kind, change: str | None, obj: Mapping[str, Any]) -> None:
            self._hearing.event()
            controller.intake.take(kind, change, obj)

        configuration = load_configuration(options.kubeconfig)
        controller.watcher = Watching(
            tell,
            lambda: credentials(configuration),
            self._hearing,
            namespaces=options.namespaces,
            selectors=selector,
            lease=options.lease.name,
        )
        working = asyncio.create_task(controller.run(self._stop), name="controller")
        beside = [asyncio.create_task(events.run(), name="events")]
        beside += [asyncio.create_task(self._background(run), name="background") for run in wiring.background]
        if elector is not None:
            beside.append(asyncio.create_task(elector.hold(), name="lease"))
        if elector is None or place[0] != options.operator_namespace:
            probe = Probe(api, *place, interval=max(1.0, options.deaf_after / 10))
            beside.append(asyncio.create_task(probe.run(), name="probe"))
        try:
            await asyncio.wait([working, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in (working, *beside):
                if task.done():
                    task.result()
            return STOPPED
        except LeaseLost:
            raise
        except Exception as error:
            self._log.error("operator.failed", exc_info=error)
            return FAILED
        finally:
            for task in (working, *beside):
                task.cancel()
            await asyncio.gather(working, *beside, return_exceptions=True)

    async def _background(self, run: Callable[[], Any]) -> None:
        await run()
        raise RuntimeError("a background task ended of itself")

    def _probed(self) -> tuple[str, str]:
        """Namespace and name of the Lease whose changes prove that the watch hears."""
        options = self._options
        watched = not options.namespaces or options.operator_namespace in options.namespaces
        return (options.operator_namespace if watched else options.namespaces[0]), options.lease.name

    def _ready(self) -> tuple[bool, str]:
        if self._controller is not None:
            return self._controller.synced, "the first full sync is under way"
        if self._elector is not None and self._elector.holder:
            return True, ""
        return False, "the Lease was not read yet"

    def _detail(self) -> Mapping[str, Any]:
        controller, elector = self._controller, self._elector
        alive, why = self._hearing.alive()
        return {
            "identity": self._options.identity,
            "leading": controller is not None,
            "holder": elector.holder if elector is not None else None,
            "hearing": {"alive": alive, "problem": why},
            "queue": {
                "waiting": len(controller.queue) if controller else 0,
                "running": len(controller.queue.running) if controller else 0,
            },
        }
