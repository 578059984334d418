"""Everything kopf is told: which kinds to watch, and where what it hears goes. Nothing is decided here.

Only ``on.event``: such handlers need no finalizer, no annotation and no patch, and read nothing back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import kopf

from feedmill_operator.kube.api import Kind
from feedmill_operator.kube.client import Credentials

Tell = Callable[[Kind, str | None, Mapping[str, Any]], None]
"""(kind, ADDED | MODIFIED | DELETED | None = listed, object); called in kopf's thread."""


def registry(kinds: Collection[Kind], tell: Tell, connect: Callable[[], Credentials]) -> kopf.OperatorRegistry:
    """``connect``: how to reach the API server; asked again when it says 401."""
    found = kopf.OperatorRegistry()
    for kind in kinds:
        _watch(found, kind, tell)

    @kopf.on.login(registry=found)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(connect())

    return found


def _watch(registry: kopf.OperatorRegistry, kind: Kind, tell: Tell) -> None:
    group, _, version = kind.api_version.rpartition("/")

    @kopf.on.event(group, version, kind.plural, registry=registry, id=kind.plural)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        tell(kind, event["type"], event["object"])


def _connection(found: Credentials) -> kopf.ConnectionInfo:
    scheme, _, token = (found.authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=found.server,
        ca_path=found.ca_path,
        insecure=found.insecure,
        scheme=scheme or None,
        token=token or None,
        username=found.username,
        password=found.password,
        certificate_path=found.certificate_path,
        private_key_path=found.key_path,
    )
