"""Which reconciler works on which kind."""

from __future__ import annotations

from feedmill_operator.config import Options
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import KubeApi
from feedmill_operator.kube.events import Events
from feedmill_operator.reconcile.account import AccountReconciler
from feedmill_operator.reconcile.answers import Answers
from feedmill_operator.reconcile.apply import Applier
from feedmill_operator.reconcile.backup import RunReconciler
from feedmill_operator.reconcile.base import Tools
from feedmill_operator.reconcile.catalog import Catalog
from feedmill_operator.reconcile.controller import Controller
from feedmill_operator.reconcile.feed import FeedReconciler
from feedmill_operator.reconcile.pipeline import PipelineReconciler
from feedmill_operator.reconcile.ports import Reconciler, Wiring
from feedmill_operator.reconcile.writer import StatusWriter


def wire(controller: Controller, api: KubeApi, events: Events, options: Options) -> Wiring:
    """The reconcilers of a controller, and the reading of health that runs beside it."""
    answers = Answers(
        controller.queue, interval=options.operand_health_interval, timeout=options.operand_health_timeout
    )
    tools = Tools(
        api=api,
        store=controller.store,
        queue=controller.queue,
        facts=controller.facts,
        options=options,
        events=events,
        answers=answers,
        catalog=Catalog(controller.store),
        applier=Applier(api, controller.store),
        writer=StatusWriter(api),
    )
    runs = RunReconciler(tools)
    reconcilers: dict[str, Reconciler] = {
        kinds.FEED.kind: FeedReconciler(tools),
        kinds.PIPELINE.kind: PipelineReconciler(tools),
        kinds.ACCOUNT.kind: AccountReconciler(tools),
        **{kind.kind: runs for kind in kinds.RUNS},
    }
    return Wiring(reconcilers, (answers.run,))
