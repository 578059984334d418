"""ExchangeAccounts: their rows, their mounted secrets, what becomes of them when manifests change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from pool_stage import SPOT, USDM, WHO, Bed, until

from feedmill.accounts import store
from feedmill.accounts.store import Name

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


async def test_accounts_of_manifests_are_listened_to_with_mounted_secrets(start_bed: Start) -> None:
    bed = await start_bed(USDM)
    one, other = bed.names(USDM)
    bed.write_secret(USDM, one)
    both = (bed.declared(USDM, one), bed.declared(USDM, other))
    member = bed.member(declared=both)
    await bed.listened(one)
    await until(lambda: other in member.accounts["problems"])
    assert f"Secret {other.rpartition('/')[2]!r}" in member.accounts["problems"][other]["why"]
    assert await bed.rows("SELECT 1 FROM credentials") == []
    assert (await bed.row(one)).origin == "manifest"

    bed.write_secret(USDM, other)
    await bed.listened(one, other)
    await bed.step(60)
    await bed.equal()

    # A new key at the exchange, in the Secret: taken up without a restart.
    assert bed.side(USDM).rotate(one.rpartition("/")[2], 0.0)
    bed.write_secret(USDM, one)
    # Its files change one after the other: who reads in between has seen two changes.
    await until(lambda: member.pool.holdings.held[one].version >= 2)
    await bed.listened(one, other)
    await bed.step(40)
    await bed.equal()

    # Suspended, then gone: disabled, and what is stored stays.
    member.pool.reconfigure(replace(member.pool.settings, declared=(bed.declared(USDM, one, enabled=False), both[1])))
    await until(lambda: member.accounts["disabled"] == 1)
    await bed.listened(other)
    member.pool.reconfigure(replace(member.pool.settings, declared=()))
    await until(lambda: member.accounts["disabled"] == 2)
    assert not (await bed.row(other)).enabled
    member.pool.reconfigure(replace(member.pool.settings, declared=both))
    await bed.listened(one, other)
    await bed.equal()


async def test_a_name_that_the_store_has_is_refused(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    one, other = bed.names(SPOT)
    await bed.add(SPOT, one)
    bed.write_secret(SPOT, one)
    bed.write_secret(SPOT, other)
    member = bed.member(declared=(bed.declared(SPOT, one), bed.declared(SPOT, other)))
    await bed.listened(one, other)
    await until(lambda: member.problem(one))
    problem = member.problem(one)
    assert problem["state"] == "refused"
    assert f"feedmill accounts remove {one}" in problem["why"]
    assert (await bed.row(one)).origin == "store"
    shown = member.pool.health.document()["manifests"]
    assert (shown[one]["state"], shown[one]["reason"]) == ("refused", "NameTaken")
    assert (shown[other]["state"], shown[other]["reason"]) == ("listening", "")

    # As the message advises: the manifest's account has the name from then on, and nothing else is touched.
    await bed.query(lambda to: store.remove(to, Name.parse(one), WHO))
    await until(lambda: one not in member.accounts["problems"])
    await bed.listened(one, other)
    assert (await bed.row(one)).origin == "manifest"


async def test_an_unreadable_change_of_a_secret_leaves_the_former_one_in_use(start_bed: Start) -> None:
    bed = await start_bed(SPOT, accounts=1)
    [name] = bed.names(SPOT)
    bed.write_secret(SPOT, name)
    member = bed.member(declared=(bed.declared(SPOT, name),))
    await bed.listened(name)
    assert bed.settings.secrets_dir is not None
    path = bed.settings.secrets_dir / name.rpartition("/")[2] / "apiSecret"
    path.write_text("two words")
    await until(lambda: member.pool.mounts.error_of(name))
    assert "two words" not in member.pool.mounts.error_of(name)
    assert member.listening(name)
    bed.write_secret(SPOT, name)
    await until(lambda: not member.pool.mounts.error_of(name))
    assert member.pool.holdings.held[name].version == 1
