"""Reconciles one FeedPipeline: managed servers, the migration, processors, account receivers, maintenance, backups,
notifications; and rouses its feeds, accounts and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from feedmill.plan import has_account_pool
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build.config import ConfigTooLarge
from feedmill_operator.build.inputs import Owner, PipelineInputs
from feedmill_operator.build.migration import migration_key
from feedmill_operator.build.pipeline import build_pipeline
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.reconcile import base, observe, passwords, pool, references, status
from feedmill_operator.reconcile.backup_facts import backup_facts
from feedmill_operator.reconcile.base import Tools, Work
from feedmill_operator.reconcile.catalog import PipelineView
from feedmill_operator.reconcile.facts import Migration, PipelineFacts, PoolView, Role
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.reasons import Reason, Type
from feedmill_operator.reconcile.store import Live, Ref
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal, read_pipeline

_WRITE = (names.PROCESSOR, names.ACCOUNTS, names.NOTIFY, names.BACKUP)
"""Components that use PostgreSQL all the time, and say how they are."""
_SCHEDULED = (names.BACKUP_RUN, names.MAINTENANCE)
"""Those that use it now and then."""
_GO_ON = {kind.kind: kind for kind in (kinds.DEPLOYMENT, kinds.CRON_JOB)}


class PipelineReconciler:
    """See :class:`feedmill_operator.reconcile.ports.Reconciler`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._built: dict[Key, tuple[object, list[Manifest]]] = {}
        """What was last built, and of what."""
        self._generations: dict[Key, dict[str, int]] = {}
        """Of the accounts it was built of."""

    async def reconcile(self, key: Key) -> float | None:
        tools = self._tools
        body = await tools.api.get(kinds.PIPELINE, key.namespace, key.name)
        if body is None or base.going(body):
            base.forget(tools, key)
            self._built.pop(key, None)
            self._generations.pop(key, None)
            self._show(key, None)
            self._tell(key, None)
            return None
        before = body.get("status") or {}
        pipeline, refusal, error = await self._accept(key, body)
        image = (pipeline.spec.image if pipeline is not None else None) or str(before.get("image") or "")
        image = image or tools.options.operand_image
        view = PipelineView(str(body["metadata"]["uid"]), int(body["metadata"]["generation"]), image, pipeline, refusal)
        if error is not None:
            # Its feeds go by the last view, if there is one.
            return await self._observe(key, body, pipeline, None, image, [], Work(error=error), Migration(), feeds=None)
        if pipeline is None or refusal is not None:
            self._show(key, view)
            return await self._observe(key, body, pipeline, refusal, image, [], Work(), Migration(), feeds=None)
        feeds = tools.catalog.feeds.all(key.namespace, key.name)
        paused = base.paused(body)
        try:
            inputs = await self._inputs(body, pipeline, image, feeds, make_passwords=not paused)
        except ApiError as failed:
            return await self._observe(
                key, body, pipeline, None, image, [], Work(error=failed), Migration(), feeds=None
            )
        job = "" if pipeline.spec.suspend else names.migration(key.name, migration_key(inputs))
        migration = observe.migration(tools.store, key.namespace, job, str(before.get("migration") or ""))
        try:
            servers = {} if migration.done else self._server_images(key)
            manifests = self._build(key, replace(inputs, migrated=migration.done, server_images=servers))
        except ConfigTooLarge as large:
            # What runs goes on with the feeds it knows.
            self._show(key, view)
            work = Work(troubles=[Trouble(Reason.OBJECT_REFUSED, str(large))])
            return await self._observe(key, body, pipeline, None, image, [], work, migration, feeds=len(feeds))
        work = Work()
        if not paused:
            keep = self._kept(key, body, manifests, migration)
            former = {(each["kind"], each["metadata"]["name"]): each for each in self._former(key, inputs, migration)}
            wanted = [each for each in manifests if (each["kind"], each["metadata"]["name"]) not in former]
            wanted += former.values()
            work = await base.carry_out(tools, wanted, str(body["metadata"]["uid"]), keep)
            # The Job may have been there all along, and only now be known to have succeeded.
            self._show(key, view)
        elif tools.catalog.view(key.namespace, key.name) is None:
            self._show(key, view)
        return await self._observe(key, body, pipeline, None, image, manifests, work, migration, feeds=len(feeds))

    async def _accept(
        self, key: Key, body: Mapping[str, Any]
    ) -> tuple[FeedPipeline | None, Refusal | None, ApiError | None]:
        """(what it says, why it cannot be carried out, why that cannot be told)."""
        pipeline = read_pipeline(body)
        if isinstance(pipeline, Refusal):
            return None, pipeline, None
        wanted = references.of_pipeline(pipeline)
        try:
            return pipeline, await references.check(self._tools.api, pipeline, wanted, key.namespace), None
        except ApiError as error:
            return pipeline, None, error

    def _build(self, key: Key, inputs: PipelineInputs) -> list[Manifest]:
        """Kept while what it is made of is the same: many feeds take a while, and most looks change nothing."""
        version = (
            inputs.owner, inputs.pipeline.metadata.generation, inputs.image, inputs.facts, inputs.migrated,
            inputs.redis_password, inputs.postgres_password, inputs.restart, tuple(inputs.server_images.items()),
            tuple((feed.metadata.uid, feed.metadata.generation) for feed in inputs.feeds),
            tuple((account.metadata.uid, account.metadata.generation) for account in inputs.accounts),
        )  # fmt: skip
        built = self._built.get(key)
        if built is None or built[0] != version:
            built = self._built[key] = (version, list(build_pipeline(inputs)))
            self._generations[key] = {"/".join(each.key): each.metadata.generation or 0 for each in inputs.accounts}
        return built[1]

    def _show(self, key: Key, view: PipelineView | None) -> None:
        """Let its feeds and accounts know how it stands, and look again where that is news."""
        tools = self._tools
        if tools.catalog.set_view(key.namespace, key.name, view):
            for each in tools.catalog.dependents(key.namespace, key.name):
                tools.queue.add(each)

    def _tell(self, key: Key, found: PoolView | None) -> None:
        """Let its accounts know what is said of them."""
        for account in self._tools.catalog.set_pool(key.namespace, key.name, found):
            self._tools.queue.add(account)

    async def _inputs(
        self,
        body: Mapping[str, Any],
        pipeline: FeedPipeline,
        image: str,
        feeds: Sequence[ExchangeFeed],
        *,
        make_passwords: bool,
    ) -> PipelineInputs:
        tools = self._tools
        metadata, spec = body["metadata"], pipeline.spec
        found = {names.REDIS: "", names.POSTGRES: ""}
        for server, managed in ((names.REDIS, spec.redis.managed), (names.POSTGRES, spec.postgres.managed)):
            if managed is not None and make_passwords:
                found[server] = await passwords.password(tools.api, tools.store, pipeline, server)
        return PipelineInputs(
            pipeline=pipeline,
            owner=Owner(kinds.PIPELINE.kind, str(metadata["name"]), str(metadata["uid"])),
            image=image,
            feeds=feeds,
            accounts=tools.catalog.accounts.all(pipeline.metadata.namespace, pipeline.metadata.name),
            facts=tools.facts.current,
            migrated=False,
            redis_password=found[names.REDIS],
            postgres_password=found[names.POSTGRES],
            restart=base.restart(body),
        )

    def _former(self, key: Key, inputs: PipelineInputs, migration: Migration) -> list[Manifest]:
        """What works with the database, of the former image, while the database is not migrated for the new one: it
        goes on, and takes every other change. A CronJob of the new image would fail: no backup would be made."""
        image = self._former_image(key)
        if migration.done or not image:
            return []
        former = build_pipeline(replace(inputs, image=image, migrated=True))
        return [
            each
            for each in former
            if (kind := _GO_ON.get(each["kind"])) is not None
            and _component(each) in (*_WRITE, *_SCHEDULED)
            and self._tools.store.get(kind, key.namespace, each["metadata"]["name"]) is not None
        ]

    def _former_image(self, key: Key) -> str:
        live = self._tools.store.get(kinds.DEPLOYMENT, key.namespace, names.processor(key.name))
        return _image_of(live, names.PROCESSOR) if live is not None else ""

    def _server_images(self, key: Key) -> dict[str, str]:
        """Managed servers that work keep their image until a Job of the new one has ended well: an image that cannot
        be pulled, or does not run, must not stop them. One that does not work has nothing to lose."""
        kept = {}
        for server in (names.REDIS, names.POSTGRES):
            live = self._tools.store.get(kinds.STATEFUL_SET, key.namespace, names.managed(key.name, server))
            if live is not None and not live.deleting and int(live.status.get("readyReplicas") or 0) > 0:
                kept[server] = _image_of(live, server)
        return kept

    def _kept(
        self, key: Key, body: Mapping[str, Any], manifests: Sequence[Manifest], migration: Migration
    ) -> list[Ref]:
        """What is not wanted and stays while the migration is not done: what writes, and Jobs of former migrations."""
        if migration.done:
            return []
        owned = self._tools.store.owned(str(body["metadata"]["uid"]))
        return [live.ref for live in owned if live.labels.get(names.COMPONENT) in _WRITE or live.kind == kinds.JOB]

    async def _observe(
        self,
        key: Key,
        body: Mapping[str, Any],
        pipeline: FeedPipeline | None,
        refusal: Refusal | None,
        image: str,
        manifests: Sequence[Manifest],
        work: Work,
        migration: Migration,
        *,
        feeds: int | None,
    ) -> float | None:
        tools = self._tools
        before = body.get("status") or {}
        paused = base.paused(body)
        suspended = pipeline is not None and pipeline.spec.suspend
        mine = tools.store.pods(key.namespace, **{names.PIPELINE: key.name})
        tools.answers.track(key, [pod for pod in mine if pod.component in _WRITE and not pod.feed])
        roles = {
            component: self._role(key, body, manifests, component, suspended=suspended)
            for component in (names.PROCESSOR, names.REDIS, names.POSTGRES)
        }
        processor = roles[names.PROCESSOR]
        if not processor.rollouts and pipeline is not None and not suspended:
            # Not made until the database is migrated; wanted all the same.
            wanted_replicas = pipeline.spec.processor.replicas
            live = tools.store.get(kinds.DEPLOYMENT, key.namespace, names.processor(key.name))
            rollout = observe.rollout(key.namespace, names.processor(key.name), {}, wanted_replicas, live)
            processor = Role((rollout,), processor.pods, processor.answers)
        applied = refusal is None and not paused and bool(manifests)
        config = self._config(key, manifests, names.pipeline_config(key.name), applied=applied)
        accounts = self._accounts(key, body, pipeline, manifests, applied=applied)
        spec = pipeline.spec if pipeline is not None else None
        notifier = log = None
        if pipeline is not None and pipeline.spec.notifications is not None:
            notifier = self._general(key, body, pipeline, manifests, names.NOTIFY, applied=applied)
        if pipeline is not None and pipeline.spec.backup is not None and pipeline.spec.backup.continuous.enabled:
            log = self._general(key, body, pipeline, manifests, names.BACKUP, applied=applied)
        backups = await backup_facts(tools, key, body, pipeline, log, work)
        facts = PipelineFacts(
            generation=int(body["metadata"]["generation"]),
            before=before,
            refusal=refusal,
            suspended=suspended,
            paused=paused,
            problems=work.troubles,
            failure=work.failure,
            # Pinned from the first look on, even while it is not accepted.
            image=str(before.get("image") or image) if paused else image,
            config_hash=config,
            processor=processor,
            accounts=accounts,
            selector=self._selector(key, manifests, before),
            redis=roles[names.REDIS] if spec is not None and spec.redis.managed is not None else None,
            postgres=roles[names.POSTGRES] if spec is not None and spec.postgres.managed is not None else None,
            migration=migration,
            migrated=migration.name if migration.done and migration.name else str(before.get("migration") or ""),
            feeds=feeds if feeds is not None else before.get("feeds"),
            notifier=notifier,
            backups=backups,
            unreadable=pipeline is None and bool((body.get("spec") or {}).get("backup")),
        )
        now = base.now()
        available = status.pipeline_findings(facts, now).get(Type.ACCOUNTS_AVAILABLE)
        generations = self._generations.get(key) if applied else None
        awaited = tools.answers.awaited(key) if accounts is not None else None
        self._tell(key, pool.view(accounts, available, key.name, generations, awaited=awaited is not None))
        if applied:
            await base.spread_config(tools, key, (processor,), config, changed=work.config_changed)
            for role in (accounts, notifier, log):
                if role is not None:
                    await base.spread_config(tools, key, (role,), role.config_hash, changed=work.config_changed)
        wait = await base.finish(tools, key, kinds.PIPELINE, body, status.pipeline_status(facts, now), work)
        no_backup = backups.refusal if backups is not None else None
        return base.soonest(wait, base.recheck(refusal), base.recheck(no_backup), awaited)

    def _general(
        self,
        key: Key,
        body: Mapping[str, Any],
        pipeline: FeedPipeline,
        manifests: Sequence[Manifest],
        component: str,
        *,
        applied: bool,
    ) -> Role:
        """The notifier, or what uploads the log."""
        suspended = pipeline.spec.suspend
        found = self._role(key, body, manifests, component, suspended=suspended)
        rollouts = found.rollouts
        if not rollouts and not suspended:
            # Not made until the database is migrated; wanted all the same.
            name = names.notify(key.name) if component == names.NOTIFY else names.backup_log(key.name)
            live = self._tools.store.get(kinds.DEPLOYMENT, key.namespace, name)
            rollouts = (observe.rollout(key.namespace, name, {}, 1, live),)
        config = self._config(key, manifests, names.general_config(key.name), applied=applied)
        return Role(rollouts, found.pods, found.answers, config)

    def _accounts(
        self,
        key: Key,
        body: Mapping[str, Any],
        pipeline: FeedPipeline | None,
        manifests: Sequence[Manifest],
        *,
        applied: bool,
    ) -> Role | None:
        """The account receivers; None where there are none, and none are wanted."""
        suspended = pipeline is not None and pipeline.spec.suspend
        found = self._role(key, body, manifests, names.ACCOUNTS, suspended=suspended)
        rollouts = found.rollouts
        if not rollouts:
            declared = self._tools.catalog.accounts.all(key.namespace, key.name)
            if pipeline is None or not has_account_pool(pipeline, declared):
                return None
            if not suspended:
                # Not made until the database is migrated; wanted all the same.
                name, wanted = names.accounts(key.name), pipeline.account_pool.replicas
                live = self._tools.store.get(kinds.DEPLOYMENT, key.namespace, name)
                rollouts = (observe.rollout(key.namespace, name, {}, wanted, live),)
        config = self._config(key, manifests, names.accounts_config(key.name), applied=applied)
        return Role(rollouts, found.pods, found.answers, config)

    def _config(self, key: Key, manifests: Sequence[Manifest], name: str, *, applied: bool) -> str:
        """Hash of the configuration that pods should work with."""
        return base.config_hash(manifests, name) if applied else base.live_config_hash(self._tools, key.namespace, name)

    def _role(
        self, key: Key, body: Mapping[str, Any], manifests: Sequence[Manifest], component: str, *, suspended: bool
    ) -> Role:
        store = self._tools.store
        rollouts = observe.rollouts(store, manifests, component)
        if not manifests and not suspended:
            rollouts = observe.present(store, str(body["metadata"]["uid"]), component)
        answers = self._tools.answers.of(key)
        return observe.role(store, key.namespace, component, rollouts, answers, **{names.PIPELINE: key.name})

    def _selector(self, key: Key, manifests: Sequence[Manifest], before: Mapping[str, Any]) -> str:
        """Kept while there is no Deployment to read it from: an autoscaler must not lose it."""
        live = self._tools.store.get(kinds.DEPLOYMENT, key.namespace, names.processor(key.name))
        known = [*manifests, *([live.manifest] if live is not None else [])]
        found = observe.selector(known, kinds.DEPLOYMENT, names.PROCESSOR)
        return found or str((before.get("processor") or {}).get("selector") or "")


def _image_of(live: Live, container: str) -> str:
    """Of a Deployment or StatefulSet."""
    containers = live.manifest["spec"]["template"]["spec"]["containers"]
    return str(next((each["image"] for each in containers if each["name"] == container), ""))


def _component(manifest: Manifest) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(names.COMPONENT, ""))
