"""What is wrong, since when, and what of it was told: looks go in, what is to be told comes out. Pure.

A state is told when it has lasted for its kind's ``hold``, once more each day it goes on, and when it is over. Over
means that looks have not found it for a while: the longer, the more often it came back, so that what comes and goes
all the time is not told all the time. What a look is blind for stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from feedmill.general.notify.kinds import KINDS
from feedmill.general.notify.notices import Finding, Look, Notice
from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND

CLEAR = 30 * SECOND
"""A state not found for so long is over; twice as long each time it comes back within ``MEMORY``."""
LONGEST_CLEAR = 1800 * SECOND
MEMORY = 3600 * SECOND
"""What is over is remembered for so long."""
AGAIN = 86_400 * SECOND
MOST = 1000
"""States at once; further ones wait until some are over. As many again of what is Critical: where a server is away a
thousand shards may tell of it before the server itself is come to."""


class State(msgspec.Struct, omit_defaults=True):
    """One, kept under its key in ``notify_state``. Times are ns; 0 = not."""

    kind: str
    subject: str
    since: int
    seen: int
    """When a look found it last."""
    told: int = 0
    """When it was last told."""
    over: int = 0
    """When it was told that it is over."""
    times: int = 1
    """How often it came lately."""
    body: dict[str, Any] = {}


States = dict[str, State]


def step(states: Mapping[str, State], look: Look, now: int) -> tuple[States, list[Notice]]:
    """The states after a look at ``now``, and what is to be told, in order."""
    after: States = {key: msgspec.structs.replace(state) for key, state in states.items()}
    found = {finding.key: finding for finding in look.findings}
    _make_room(after, found)
    judged = [key for key in after if key not in found and not key.startswith(look.blind)]
    told = [_found(after, finding, now) for finding in found.values()]
    told += [_missed(after, key, now) for key in judged]
    return after, [notice for notice in told if notice is not None]


def _make_room(after: States, found: Mapping[str, Finding]) -> None:
    """What is over, and only remembered, gives way to what is new."""
    excess = len(after) + sum(key not in after for key in found) - MOST
    if excess > 0:
        over = sorted((state.over, key) for key, state in after.items() if state.over and key not in found)
        for _, key in over[:excess]:
            del after[key]


def _found(after: States, finding: Finding, now: int) -> Notice | None:
    state = after.get(finding.key)
    since = min(now, finding.since_ns or now)
    if state is None:
        if len(after) >= (2 * MOST if KINDS[finding.kind].severity is Severity.CRITICAL else MOST):
            return None
        state = after[finding.key] = State(finding.kind, finding.subject, since, now)
    elif state.over:
        after[finding.key] = state = State(finding.kind, finding.subject, since, now, times=state.times + 1)
    state.seen, state.subject, state.body = now, finding.subject, dict(finding.body)
    if finding.since_ns is not None and not state.told:
        state.since = since
    hold = int((KINDS[finding.kind].hold or 0.0) * SECOND)
    if state.told:
        if now - state.told < AGAIN:
            return None
        state.told = now
        return _notice(finding.key, state, now, again=True)
    if now - state.since < hold:
        return None
    state.told = now
    return _notice(finding.key, state, now)


def _missed(after: States, key: str, now: int) -> Notice | None:
    state = after[key]
    if state.over:
        if now - state.over >= MEMORY:
            del after[key]
        return None
    if not state.told:
        del after[key]
        return None
    if now - state.seen < min(CLEAR << min(state.times - 1, 20), LONGEST_CLEAR):
        return None
    state.over = now
    return _notice(key, state, now, over=True, lasted_ns=max(0, state.seen - state.since))


def _notice(key: str, state: State, now: int, **more: Any) -> Notice:
    severity = KINDS[state.kind].severity if state.kind in KINDS else Severity.WARNING
    return Notice(state.kind, severity, state.subject, key, {**state.body, "since_ns": state.since, **more}, now)
