"""What changed of sessions, topics without an event and requests by REST, as fields of the checkpoint."""

from __future__ import annotations

from feedmill.distributor import checkpoint
from feedmill.distributor.backfill import Backfill
from feedmill.distributor.sources import Sources
from feedmill.distributor.unseen import Unseen


def sessions(sources: Sources, fields: dict[str, bytes]) -> list[str]:
    """Add what changed of the sessions; answers the fields to delete."""
    for name in sources.counted:
        fields["n:" + name] = str(sources.batches[name]).encode()
    for name in sources.touched:
        if name in sources.sessions:
            fields["s:" + name] = checkpoint.encode(sources.sessions[name])
    deleted = ["s:" + name for name in sources.gone if name not in sources.sessions]
    deleted += ["n:" + name for name in sources.forgotten]
    for changed in (sources.counted, sources.touched, sources.gone, sources.forgotten):
        changed.clear()
    return deleted


def fillings(backfill: Backfill, fields: dict[str, bytes]) -> list[str]:
    """The same of what is asked for by REST."""
    for symbol in backfill.touched:
        fields["f:" + symbol] = checkpoint.encode(backfill.fillings[symbol])
    deleted = ["f:" + symbol for symbol in backfill.gone]
    backfill.touched.clear()
    backfill.gone.clear()
    return deleted


def topics(unseen: Unseen, fields: dict[str, bytes]) -> list[str]:
    """The same of topics without an event."""
    for name in unseen.touched:
        fields["u:" + name] = checkpoint.encode(unseen.awaited[name])
    deleted = ["u:" + name for name in unseen.gone]
    unseen.touched.clear()
    unseen.gone.clear()
    return deleted
