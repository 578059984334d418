"""Kinds that are known and not carried out: they say so and what to do instead, and nothing is made."""

from __future__ import annotations

import pytest
from flow_world import World

TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: {kind}
metadata: {{name: one, namespace: ns}}
spec: {{}}
"""


@pytest.mark.parametrize(
    ("kind", "instead"),
    [("FeedBackup", "pg_dump"), ("FeedRestore", "pg_restore")],
)
async def test_it_says_what_to_do_instead(world: World, kind: str, instead: str) -> None:
    await world.make(TEXT.format(kind=kind))
    await world.settle()
    what = (kind, "one")
    assert world.conditions(what) == {"Accepted": "False/NotYetSupported"}
    message = world.message(what, "Accepted")
    assert kind in message
    assert instead in message
    assert world.told.of("NotYetSupported") == [message]
    assert world.status(what)["observedGeneration"] == 1
    assert world.writes() == [f"create {kind} one", f"status {kind} one"]
    await world.stop()
    await world.start()
    await world.settle()
    assert world.writes() == []
