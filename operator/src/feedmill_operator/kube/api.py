"""The few things the operator asks of the API server: the seam between it and the client library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object and where the API server serves it."""

    api_version: str
    """``v1``, ``apps/v1``, ``feedmill.dev/v1alpha1``."""
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """URL path of a collection, an object or a subresource."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        parts = [root, *(("namespaces", namespace) if namespace else ()), self.plural]
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


class ApiError(Exception):
    """The API server refused or could not be asked. ``status``: HTTP status, 0 = no answer."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"no answer: {message}")
        self.status = status
        self.reason = reason
        """``NotFound``, ``Conflict``, ``Forbidden``, ``Invalid``, ``TooManyRequests``, ... empty when not given."""
        self.message = message
        self.retry_after = retry_after
        """Seconds, where the server said so."""


class Version(msgspec.Struct, frozen=True, gc=False):
    """Which version of an object the API server has."""

    name: str
    uid: str
    resource_version: str = msgspec.field(name="resourceVersion")
    namespace: str = ""


class KubeApi(Protocol):
    """All methods are coroutines that never block the loop, and raise ApiError (404 of ``get`` and ``delete``: see
    there)."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """None when there is none."""

    async def list(self, kind: Kind, namespace: str | None, *, labels: str = "") -> list[Manifest]:
        """All namespaces when ``namespace`` is None; ``labels``: a selector. Pages through long lists."""

    async def versions(self, kind: Kind, namespace: str | None, *, labels: str = "") -> Sequence[Version]:
        """As ``list``, of each object only which version it is."""

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind (by discovery: everybody may ask)."""

    async def apply(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Server-side apply, forced, as our field manager; gives the object as stored."""

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """PUT: what the manifest does not name is gone. It must carry the resourceVersion it is based on."""

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest: ...

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Manifest:
        """A merge patch."""

    async def patch_status(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> Manifest:
        """A merge patch of ``/status``."""

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None, propagation: str = "Background"
    ) -> bool:
        """False when there was none; ``uid``: only that one."""
