"""Whether a custom resource can be carried out at all, as far as it can be told from itself. Pure.

The API server has checked it already, by the schema of the version that is installed there; this is the same check by
the models of this version, and what no schema can know: whether the venue has such symbols and channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.checks import Venues, check_all
from feedmill.resources.document import Document
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import installed_venues
from feedmill.resources.parse import Resource, parse_document
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.problems import Problem
from feedmill_operator.reconcile.reasons import Reason

_KEPT = ("name", "namespace", "labels", "annotations", "uid", "generation")
_MOST = 8
"""Problems told in one message."""
_BY_PATH = (
    ("spec.instruments", Reason.INSTRUMENT_INVALID),
    ("spec.channels", Reason.CHANNEL_UNSUPPORTED),
    ("spec.exchange", Reason.EXCHANGE_UNKNOWN),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object is not accepted. Somebody has to change something; trying again does not help."""

    reason: Reason
    message: str


def read_pipeline(body: Mapping[str, Any]) -> FeedPipeline | Refusal:
    """A FeedPipeline as the API server gives it."""
    found = _read(body, None)
    return found if isinstance(found, (FeedPipeline, Refusal)) else _foreign(body)


def read_feed(body: Mapping[str, Any], venues: Venues | None = None) -> ExchangeFeed | Refusal:
    """An ExchangeFeed as the API server gives it, checked against its venue."""
    found = _read(body, venues or installed_venues())
    return found if isinstance(found, (ExchangeFeed, Refusal)) else _foreign(body)


def read_account(body: Mapping[str, Any], venues: Venues | None = None) -> ExchangeAccount | Refusal:
    """An ExchangeAccount as the API server gives it, checked against its venue."""
    found = _read(body, venues or installed_venues())
    return found if isinstance(found, (ExchangeAccount, Refusal)) else _foreign(body)


def _foreign(body: Mapping[str, Any]) -> Refusal:
    return Refusal(Reason.SPEC_INVALID, f"{body.get('apiVersion')} {body.get('kind')} is not known to this version")


def _read(body: Mapping[str, Any], venues: Venues | None) -> Resource | Refusal:
    metadata = body.get("metadata") or {}
    data = {
        "apiVersion": body.get("apiVersion"),
        "kind": body.get("kind"),
        "metadata": {name: metadata[name] for name in _KEPT if metadata.get(name)},
        "spec": body.get("spec") or {},
    }
    loaded, problems = parse_document(Document("", data))
    if problems:
        return Refusal(Reason.SPEC_INVALID, _sentence(problems))
    if loaded is None:
        return _foreign(body)
    if venues is not None:
        problems = check_all([loaded], venues, local=True)
        if problems:
            return Refusal(_reason(problems), _sentence(problems))
    return loaded.resource


def _reason(problems: Sequence[Problem]) -> Reason:
    """Of the problem that explains the others: without a venue no symbol can be right."""
    kinds = [next((reason for start, reason in _BY_PATH if each.path.startswith(start)), None) for each in problems]
    for wanted in (Reason.EXCHANGE_UNKNOWN, Reason.INSTRUMENT_INVALID, Reason.CHANNEL_UNSUPPORTED):
        if wanted in kinds:
            return wanted
    return Reason.SPEC_INVALID


def _sentence(problems: Sequence[Problem]) -> str:
    told = [f"{each.path}: {each.message}" if each.path else each.message for each in problems[:_MOST]]
    if len(problems) > _MOST:
        told.append(f"and {len(problems) - _MOST} more")
    return "; ".join(told)
