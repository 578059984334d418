"""Tells a shard's distributor of frames that were driven again, so that it counts their trades as missing no longer.

They go into the raw stream as a session of their own that ends with its last batch: the distributor fills its holes,
revises its gap rows and emits the trades (late) for those who read the events stream. The processor meets their rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from feedmill.shared import control
from feedmill.shared.clock import MS
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, encode_batch
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.wire import Wire

REPLICA = "redrive"
"""Of the sessions that this writes."""
BATCH_FRAMES, BATCH_BYTES = 256, 256 * 1024


def batches(frames: Sequence[tuple[int, bytes]], session: str, now_ns: int) -> list[RawBatch]:
    """Pure: the frames in the order of their receive times, then the session's end."""
    made: list[RawBatch] = []
    times: list[int] = []
    payloads: list[bytes] = []
    size = 0

    def close(*more: Run) -> None:
        nonlocal times, payloads, size
        runs = [Run(int(RunKind.FRAMES), 0, times, payloads), *more]
        made.append(RawBatch(VERSION, session, len(made) + 1, runs))
        times, payloads, size = [], [], 0

    for at_ns, payload in sorted(frames):
        if len(times) == BATCH_FRAMES or (times and size + len(payload) > BATCH_BYTES):
            close()
        times.append(at_ns)
        payloads.append(payload)
        size += len(payload)
    close(Run(int(RunKind.CONTROL), 0, [now_ns], [control.encode(control.SessionEnd())]))
    return made


async def tell(wire: Wire, shard: ShardRef, frames: Sequence[tuple[int, bytes]], now_ns: int) -> int:
    """Append them; answers how many batches. Raises OSError, TimeoutError, WireError."""
    session = f"{REPLICA}-{now_ns // MS:012x}{secrets.token_hex(3)}"
    made = batches(frames, session, now_ns)
    for batch in made:
        await wire.call("XADD", shard.raw, "*", "b", encode_batch(batch))
    return len(made)
