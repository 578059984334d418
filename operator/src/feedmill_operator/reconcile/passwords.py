"""Passwords of managed servers: made once, then the Secret is the truth; who edits it rotates the password."""

from __future__ import annotations

import secrets

from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.log import register_secret
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import KubeApi
from feedmill_operator.reconcile.observe import Pods
from feedmill_operator.reconcile.references import decode

KEY = "password"
_BYTES = 24


async def password(api: KubeApi, store: Pods, pipeline: FeedPipeline, server: str) -> str:
    """Of a managed server (names.REDIS, names.POSTGRES): the one in its Secret, else a new one.

    Raises ApiError.
    """
    namespace, name = pipeline.metadata.namespace, names.managed(pipeline.metadata.name, server)
    live = store.get(kinds.SECRET, namespace, name)
    found = live.manifest if live is not None else await api.get(kinds.SECRET, namespace, name)
    if live is None and found is not None:
        # Nobody has told of it (its label was taken away): a write must not take it for missing.
        store.update(kinds.SECRET, found)
    kept = decode((found.get("data") or {}).get(KEY, "")) if found is not None else None
    if not kept:
        kept = secrets.token_urlsafe(_BYTES)
    register_secret(kept)
    return kept
