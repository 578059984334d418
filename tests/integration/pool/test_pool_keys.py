"""What keys may do is read before their first use and from time to time; a key that may withdraw is not used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pool_stage import DERIBIT, SPOT, USDM, Bed, until

from feedmill.pool import giving

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


def may_withdraw(bed: Bed, venue: str, account: str, may: bool) -> None:
    bed.side(venue).change_key(account.rpartition("/")[2], {"withdraw": may})


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
async def test_a_key_that_may_withdraw_is_refused_until_it_may_not(
    start_bed: Start, venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "MAX_RETRY", 0.5)
    bed = await start_bed(venue)
    good, bad = bed.names(venue)
    await bed.add(venue, good, bad)
    may_withdraw(bed, venue, bad, True)
    member = bed.member()
    await bed.listened(good)
    await until(lambda: member.problem(bad).get("state") == "refused")
    assert "may withdraw" in member.problem(bad)["why"]
    row = await bed.row(bad)
    assert (row.verdict, row.enabled) == ("refused", True)
    assert row.checked_at is not None
    assert not member.listening(bad)

    may_withdraw(bed, venue, bad, False)
    await bed.listened(good, bad)
    assert (await bed.row(bad)).verdict != "refused"


async def test_by_policy_it_is_flagged_and_used(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    one, other = bed.names(SPOT)
    await bed.add(SPOT, one, other)
    may_withdraw(bed, SPOT, one, True)
    bed.member(allow_withdraw=True)
    await bed.listened(one, other)
    row = await bed.row(one)
    assert row.verdict == "warning"
    assert "may withdraw" in row.verdict_detail


async def test_a_right_that_is_given_later_is_noticed(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    one, other = bed.names(SPOT)
    await bed.add(SPOT, one, other)
    member = bed.member(check_every=0.5)
    await bed.listened(one, other)
    may_withdraw(bed, SPOT, one, True)
    await until(lambda: "may withdraw" in member.problem(one).get("why", ""))
    await bed.listened(other)


async def test_keys_that_are_known_are_not_asked_for_again_when_they_move(start_bed: Start) -> None:
    bed = await start_bed(SPOT)
    await bed.add(SPOT, *bed.names(SPOT))
    bed.member()
    await bed.listened(*bed.names(SPOT))
    checked = await _checks(bed)
    assert checked == 2
    await bed.stop()
    bed.member("r1")
    await bed.listened(*bed.names(SPOT))
    assert await _checks(bed) == checked


async def test_a_venue_that_does_not_answer_is_no_reason_not_to_listen(
    start_bed: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr("feedmill.accounts.asking.RightsReader.__call__", silent)
    bed = await start_bed(SPOT)
    await bed.add(SPOT, *bed.names(SPOT))
    bed.member()
    await bed.listened(*bed.names(SPOT))
    assert {(await bed.row(name)).verdict for name in bed.names(SPOT)} == {"unknown"}


async def _checks(bed: Bed) -> int:
    [row] = await bed.rows("SELECT count(*) FROM audit_log WHERE action = 'check-key'")
    return int(row[0])
