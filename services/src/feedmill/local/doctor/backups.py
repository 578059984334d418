"""Would a manifest's backups come about? The destination is asked, with the credentials that its Secret holds, and the
file of keys is read. Nothing is left there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.stores.base import StoreAway, StoreError
from feedmill.general.backup.target import Target, open_target
from feedmill.local.doctor.check import Check, bad, ok, warn
from feedmill.plan import show_key
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError

PATIENCE = 5.0
"""Seconds for which a destination that is away is asked again."""
TIMEOUT = 30.0
"""Seconds for all of its answers."""
_AWAY = "check the way to it; a backup would fail until then"


async def checks(resources: Resources, secrets_dir: Path | None) -> list[Check]:
    """One line a pipeline that is backed up."""
    backed_up = [item for _, item in sorted(resources.pipelines.items()) if item.spec.backup is not None]
    return [await _one(pipeline, secrets_dir) for pipeline in backed_up]


async def _one(pipeline: FeedPipeline, secrets_dir: Path | None) -> Check:
    what = f"backups of {show_key(pipeline.key)}"
    assert pipeline.spec.backup is not None
    if secrets_dir is None:
        key = pipeline.spec.backup.encryption.key_secret_ref
        return warn(what, "were not looked at", f"give --secrets-dir with {key.name}/{key.key}")
    try:
        target = await asyncio.to_thread(open_target, pipeline, secrets_dir, patience=PATIENCE)
    except ConfigError as error:
        return bad(what, "none would be made", str(error))
    try:
        return await _asked(what, target)
    finally:
        await target.store.close()


async def _asked(what: str, target: Target) -> Check:
    try:
        ring = await target.ring()
        async with asyncio.timeout(TIMEOUT):
            await target.store.check()
    except StoreAway as error:
        return warn(what, str(error), _AWAY)
    except TimeoutError:
        return warn(what, f"{target.store.where}: no answer within {TIMEOUT:g} s", _AWAY)
    except (ConfigError, StoreError) as error:
        return bad(what, "none would be made", str(error))
    return ok(what, f"{target.store.where} takes them, {_sealing(ring)}")


def _sealing(ring: Keyring) -> str:
    others = len(ring.ids) - 1
    return f"key {ring.current} seals" + (f", {others} more open{'' if others > 1 else 's'}" if others else "")
