"""The smaller form of ``make bench-accounts``, and a venue that counts the connections of an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench.accounts.report import markdown, rows, table
from bench.accounts.run import START, VENUE, WEIGHT, Load, Run
from bench.accounts.stage import Stage, until

from feedmill.exchanges.deribit.account import PLACES
from feedmill.local.embedded import EmbeddedRedis

PACED = 240.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def test_the_accounts_of_a_killed_member_go_on_with_the_other_one(
    tmp_path: Path, redis_server: EmbeddedRedis, database_url: str
) -> None:
    stage = Stage(tmp_path, database_url)
    load = Load(accounts=60, rate=2.0, fills=60)
    await stage.begin(VENUE, load.accounts, load.rate, redis_server.url, database_url, "--account-assets", START)
    try:
        said: list[str] = []
        found = await Run(stage, load, said.append).go()
        context = ("\n".join(said), stage.trouble())
        assert found.accounts.ok, context
        assert found.accounts.known == load.accounts
        assert found.accounts.flows["fills"].emitted == found.accounts.flows["fills"].stored > 50, context
        assert found.accounts.gaps_open == 0, context
        assert found.refused == 0, context
        assert 0 < found.kill.peak <= WEIGHT
        assert 0 < found.kill.accounts < load.accounts, "each member had its part"
        assert found.kill.listened <= found.kill.all
        assert found.restart.accounts == load.accounts
        shown = [row.value for row in rows(found)]
        assert f"{found.kill.listened:.1f} s" in shown
        assert table(found).row_count == len(shown)
        assert markdown(found, {"CPU": "some"}).count("\n|") == len(shown) + 2
    finally:
        await stage.end()


async def test_deribit_is_held_to_its_connections_and_who_has_none_is_told_why(start_pool: Any) -> None:
    # Half of the connects that the exchange allows in a minute are ours.
    bed = await start_pool("deribit/Derivatives", PLACES + 2, listening=PLACES, wait=PACED)
    await bed.member("pool-1")
    names = sorted(bed.keys())
    *_, last, beyond = names

    async def problems() -> dict[str, str]:
        """Account -> why it is not listened to; of one that goes from member to member there may be nothing now."""
        found = [(await bed.health(member)).get("accounts", {}) for member in bed.members.values()]
        return {name: each["why"] for part in found for name, each in part.get("problems", {}).items()}

    async def spread() -> bool:
        found = [(await bed.health(member)).get("accounts", {}) for member in bed.members.values()]
        held = [each.get("held", 0) for each in found]
        why = await problems()
        told = set(why) == {f"default/{last}", f"default/{beyond}"}
        told = told and all(f"{PLACES} are for accounts" in each for each in why.values())
        return min(held) > 4 and told and await bed.states("listening") == PLACES == await bed.listened()

    try:
        await until(spread, PACED, "both members listen, and tell of who has no place")
    except TimeoutError:
        pytest.fail(f"{await problems()}, {await bed.listened()} listened to\n{bed.trouble()}")
    stats = await bed.stats()
    assert stats["connects"].get("refused", 0) == 0, "the exchange never had to refuse a connection"
    assert "no place" in await bed.run("list")
    assert "spec.egress" in await bed.run("show", beyond)
    # Who leaves gives the place to the next.
    await bed.run("disable", names[0])

    async def moved() -> bool:
        return set(await problems()) == {f"default/{beyond}"} and await bed.states("listening") == PLACES

    await until(moved, 90.0, "the next account has the place")
    assert (await bed.stats())["connects"].get("refused", 0) == 0
