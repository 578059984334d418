"""Keys of accounts at the exchange, and the key-encryption key, rotate while the pool runs.

Nobody is started again, no fill is lost, and the old secret is of no use afterwards.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from bench.accounts.stage import kek_line, replace_file, until

from feedmill.accounts.keyring import parse_keyring

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def as_file(secrets: dict[str, Any]) -> str:
    return "".join(f"{name}={value.get_secret_value()}\n" for name, value in secrets.items())


@pytest.mark.parametrize("venue", ["binance/Spot", "binance/UsdM", "deribit/Derivatives"])
async def test_a_new_key_of_the_exchange_is_taken_up_and_the_old_one_used_no_more(start_pool: Any, venue: str) -> None:
    bed = await start_pool(venue)
    account = next(iter(bed.keys()))
    old = bed.keys()[account]
    await bed.step(100)
    # The new key is there, both are valid; the user tells Feedmill.
    await bed.post("accounts/key", {"account": account, "rotate": True, "seconds": 3600})
    new = bed.keys()[account]
    assert new != old
    await bed.step(30)
    # Not asked by the command first: the new key's first use is then the pool's.
    await bed.run("rotate-key", account, "--no-check", "--secret-file", "-", given=as_file(new))

    async def hmac() -> list[dict[str, Any]]:
        return [each for each in await bed.uses(account) if each["type"] == "hmac"]

    async def taken_up() -> bool:
        return (await hmac())[1]["uses"] > 0

    await until(taken_up, 60.0, "the new key is used")
    await bed.at_rest()
    used = (await hmac())[0]["uses"]
    assert used > 0
    # Everything that asks for a key anew: a connection that is cut, orders to reconcile.
    await bed.step(30)
    since = time.time_ns()
    await bed.post("fault", {"kind": "abort", "channel": "Account"})

    async def missed() -> bool:
        return (await bed.gaps(since))[0] >= len(bed.keys())

    await until(missed, 60.0, "every account's cut is told")
    await bed.step(30)
    await bed.at_rest()
    before, after = await hmac()
    assert (before["uses"], before["refused"]) == (used, 0), "the old key is not used again"
    assert after["uses"] > 1
    # So it may end, and nobody notices.
    gaps = await bed.gaps()
    assert (await bed.post("accounts/key", {"account": account, "replaced": True, "seconds": 0}))["hit"] >= 1
    await bed.step(50)
    await bed.equal()
    before, after = await hmac()
    assert (before["uses"], before["refused"], before["ended"]) == (used, 0, True)
    assert after["refused"] == 0
    # A listen key that the old API key made ends with it: one gap, closed like any other.
    assert await bed.gaps() == (gaps[0] + (venue == "binance/UsdM"), 0)
    said = bed.said()
    assert not any(value.get_secret_value() in said for secrets in (old, new) for value in secrets.values())


async def test_a_key_that_was_ended_first_costs_a_gap_and_nothing_else(start_pool: Any) -> None:
    bed = await start_pool()
    account, *others = bed.keys()
    await bed.step(60)
    await bed.post("accounts/key", {"account": account, "rotate": True, "seconds": 0})

    async def heard() -> bool:
        return await bed.listened() == len(others)

    await until(heard, 60.0, "the account is not listened to")
    await bed.step(60)

    def told(found: dict[str, Any]) -> bool:
        why = found["accounts"]["problems"].get(f"default/{account}", {})
        return found["accounts"]["refused"] == 1 and why.get("state") == "refused" and "rotate-key" in why["why"]

    await bed.health_is(told, "the account is told as refused, and what to do")
    await bed.run("rotate-key", account, "--secret-file", "-", given=as_file(bed.keys()[account]))
    await bed.at_rest()
    refused = (await bed.uses(account))[0]["refused"]
    await bed.step(60)
    await bed.equal()
    assert (await bed.uses(account))[0]["refused"] == refused, "the old key is not tried again"


async def test_the_key_encryption_key_rotates(start_pool: Any) -> None:
    bed = await start_pool()
    account, other, *_ = bed.keys()
    old = bed.kek.read_text()
    await bed.step(60)
    # The new line first; what is stored now is wrapped by it, what was stored before still opens.
    replace_file(bed.kek, kek_line("second") + old)
    await bed.post("accounts/key", {"account": other, "rotate": True, "seconds": 3600})
    await bed.run("rotate-key", other, "--secret-file", "-", given=as_file(bed.keys()[other]))
    await bed.at_rest()
    wrapped = {row[0]: row[1] for row in await bed.rows("SELECT key_id, count(*) FROM credentials GROUP BY 1")}
    assert wrapped.keys() == {"first", "second"}
    await bed.step(30)
    said = await bed.run("rewrap")
    assert "wrapped by second now" in said
    assert [row[0] for row in await bed.rows("SELECT DISTINCT key_id FROM credentials")] == ["second"]
    # The old line away: from here on it opens nothing, and nothing needs it.
    new = "".join(line for line in bed.kek.read_text().splitlines(keepends=True) if line.startswith("second "))
    replace_file(bed.kek, new)
    await bed.step(30)
    uses = (await bed.uses(account))[0]["uses"]
    await bed.run("disable", account)

    async def left() -> bool:
        return await bed.listened() == len(bed.keys()) - 1

    await until(left, 60.0, "the account is off")
    await bed.step(60)
    await bed.run("enable", account)
    await bed.at_rest()
    assert (await bed.uses(account))[0]["uses"] > uses, "its secrets were opened by the new key alone"
    await bed.step(30)
    await bed.equal()
    [entry] = await bed.rows(
        "SELECT count(*) FROM audit_log WHERE action = 'use-failed'",
    )
    assert entry[0] == 0
    for text in (old, new):
        ring = parse_keyring(text, "the file")
        assert text.split()[1] not in bed.said()
        assert ring.current in ("first", "second")
    assert {member.process.returncode for member in bed.members.values()} == {None}


async def test_a_key_file_that_is_wrong_for_a_while_holds_nobody_up(start_pool: Any) -> None:
    bed = await start_pool()
    account = next(iter(bed.keys()))
    good = bed.kek.read_text()
    replace_file(bed.kek, "not a key\n")
    await bed.post("accounts/key", {"account": account, "rotate": True, "seconds": 3600})
    replace_file(bed.folder / "kek-of-the-user", good)
    await bed.run(
        "rotate-key", account, "--kek-file", str(bed.folder / "kek-of-the-user"), "--secret-file", "-",
        given=as_file(bed.keys()[account]),
    )  # fmt: skip
    await bed.at_rest()
    await bed.health_is(lambda found: "line 1" in found["keyFile"]["error"], "the file is told as wrong")
    assert "not a key" not in bed.said()
    replace_file(bed.kek, good)
    await bed.step(120)
    await bed.equal()
