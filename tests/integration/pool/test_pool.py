"""One member: accounts of three markets from socket to database, coming, going, switched off and on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from pool_stage import DERIBIT, SPOT, USDM, VENUES, WHO, Bed, until
from pydantic import SecretStr

from feedmill.accounts import store
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.store import Name

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


async def test_accounts_of_all_markets_are_stored_as_the_exchange_has_them(start_bed: Start) -> None:
    bed = await start_bed(*VENUES, limited=True)
    names = [name for venue in VENUES for name in bed.names(venue)]
    for venue in VENUES:
        await bed.add(venue, *bed.names(venue))
    await bed.step(60)  # Before anybody listened.
    member = bed.member()
    await bed.listened(*names)
    await bed.step(60)

    def timed() -> bool:
        latency = member.health.document()["latency"]
        return all(latency.get(venue, {}).get("receiveToCommit", {}).get("count", 0) for venue in VENUES)

    await until(timed)  # Of the last minute or two only: the comparison may take longer.
    await bed.equal()
    await bed.listened(*names)
    found = member.accounts
    assert (found["known"], found["held"], found["listening"], found["problems"]) == (6, 6, 6, {})
    assert member.health.ready() == (True, {})
    await bed.stop()
    assert await bed.rows("SELECT 1 FROM fills LIMIT 1")


async def test_accounts_come_and_go_while_it_runs(start_bed: Start) -> None:
    bed = await start_bed(USDM, DERIBIT)
    one, other = bed.names(USDM)
    option, _ = bed.names(DERIBIT)
    member = bed.member()
    await until(lambda: member.health.ready()[0])
    assert (member.accounts["held"], member.pool.holdings.markets) == (0, {})

    await bed.add(USDM, one)
    await bed.listened(one)
    await bed.add(USDM, other, enabled=False)
    await bed.add(DERIBIT, option)
    await bed.listened(one, option)
    assert len(member.pool.holdings.markets) == 2
    await bed.step(60)
    await until(lambda: member.dry(other))  # The lease of its slot may come later than those of the others.

    await bed.enable(other, True)
    await bed.listened(one, other, option)
    await bed.step(30)
    await bed.equal()

    await bed.step(20)
    await bed.enable(one, False)
    await until(lambda: member.accounts["disabled"] == 1)
    await bed.step(20)  # Unheard.
    await bed.enable(one, True)
    await bed.listened(one, other, option)
    await bed.equal()

    await bed.query(lambda to: store.remove(to, Name.parse(option), WHO))
    await until(lambda: option not in member.pool.mounts.declared and len(member.pool.holdings.markets) == 1)
    assert member.accounts["known"] == 2


async def test_what_was_heard_before_an_account_was_disabled_is_stored(start_bed: Start) -> None:
    bed = await start_bed(SPOT, accounts=1)
    [name] = bed.names(SPOT)
    await bed.add(SPOT, name)
    member = bed.member()
    await bed.listened(name)
    await bed.step(100)
    await bed.enable(name, False)
    # The market goes a moment after the account is dry: when the accounts are sorted anew.
    await until(lambda: member.dry(name) and member.pool.holdings.markets == {})
    report = await bed.report()
    accounts = report.venues[0].accounts
    assert accounts.flows["fills"].lost == 0, accounts
    assert accounts.flows["fills"].stored > 10


async def test_other_secrets_are_taken_up_and_wrong_ones_told(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    one, other = bed.names(SPOT)
    await bed.add(SPOT, one, other)
    member = bed.member()
    await bed.listened(one, other)
    ring = KeyFile(bed.kek).ring()
    wrong = {"apiKey": SecretStr("NobodyKnowsThisKey" * 3), "apiSecret": SecretStr("WrongSecret" * 5)}
    row = await bed.row(one)
    await bed.query(lambda to: store.put(to, ring, row, wrong, WHO, "rotate-key"))
    await until(lambda: member.problem(one).get("state") == "refused")
    assert "rotate-key" in member.problem(one)["why"]
    assert "WrongSecret" not in repr(member.health.document())
    await bed.step(60)
    await bed.query(lambda to: store.put(to, ring, row, bed.secrets(SPOT, one), WHO, "rotate-key"))
    await bed.listened(one, other)
    await bed.equal()


async def test_without_a_key_file_accounts_of_the_store_are_told_and_others_not_held_up(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    one, other = bed.names(SPOT)
    await bed.add(SPOT, one)
    bed.write_secret(SPOT, other)
    member = bed.member(key_file=None, declared=(bed.declared(SPOT, other),))
    await bed.listened(other)
    await until(lambda: one in member.accounts["problems"])
    assert "no key-encryption key" in member.accounts["problems"][one]["why"]
    assert member.health.ready()[0]


async def test_another_account_of_a_freed_name_begins_with_nothing_of_the_former_one(start_bed: Start) -> None:
    bed = await start_bed(USDM, accounts=1)
    [name] = bed.names(USDM)
    await bed.add(USDM, name)
    member = bed.member()
    await bed.listened(name)
    await bed.step(80)
    await bed.equal()
    before = (await bed.row(name)).id
    await bed.query(lambda to: store.remove(to, Name.parse(name), WHO))
    await until(lambda: member.dry(name))
    # The exchange has one account of that name only: what is stored of it again is the new row's.
    await bed.add(USDM, name)
    await bed.listened(name)
    await bed.equal()
    after = (await bed.row(name)).id
    counts = {row[0]: row[1] for row in await bed.rows("SELECT account_id, count(*) FROM fills GROUP BY 1")}
    assert after != before
    assert counts[after] == counts[before] > 10


async def test_an_account_that_cannot_be_set_up_is_told_and_the_others_are_listened_to(start_bed: Start) -> None:
    bed = await start_bed(USDM)
    one, other = bed.names(USDM)
    await bed.add(USDM, one)
    await bed.rows(
        "INSERT INTO accounts (namespace, name, exchange, market, environment, origin, endpoints) VALUES "
        "('default', 'nowhere', 'nobody', 'Spot', 'Production', 'store', '{}'), "
        "('default', 'odd', 'binance', 'UsdM', 'Production', 'store', '{\"stream\": \"odd\", \"rest\": \"odd\"}'), "
        "('default', 'stage', 'binance', 'UsdM', 'Staging', 'store', '{}')"
    )
    await bed.add(USDM, other)
    await bed.rows('UPDATE accounts SET endpoints = \'{"stream": "x", "rest": "x"}\' WHERE name = $1', other[8:])
    member = bed.member()
    await bed.listened(one)
    wanted = {"default/nowhere", "default/odd", "default/stage", other}
    await until(lambda: member.accounts["problems"].keys() == wanted)
    whys = {name: problem["why"] for name, problem in member.accounts["problems"].items()}
    assert "nobody" in whys["default/nowhere"]
    assert "Staging" in whys["default/stage"]
    assert "has no secrets" in whys["default/odd"]
    await bed.step(30)
    await bed.listened(one)
    assert member.health.ready()[0]
