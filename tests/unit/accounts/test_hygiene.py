"""What is said of a key by what it may do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.accounts.hygiene import EXPIRES_SOON_NS, Level, Permissions, deribit_scope, judge

NOW = 1_769_860_800 * 10**9
GOOD = Permissions(read=True, trade=False, withdraw=False, transfer=False, ip_bound=True)
maybe = st.none() | st.booleans()
permissions = st.builds(Permissions, maybe, maybe, maybe, maybe, maybe, st.none() | st.integers(0, 2 * NOW))


@pytest.mark.parametrize(("found", "level", "words"), [
    (GOOD, Level.OK, ""),
    (replace(GOOD, expires_ns=NOW + EXPIRES_SOON_NS + 1), Level.OK, ""),
    (replace(GOOD, withdraw=True), Level.REFUSED, "may withdraw"),
    (replace(GOOD, read=False), Level.REFUSED, "may not read"),
    (replace(GOOD, expires_ns=NOW), Level.REFUSED, "has expired"),
    (replace(GOOD, expires_ns=NOW + 3 * 86_400 * 10**9), Level.WARNING, "expires in 3 days"),
    (replace(GOOD, expires_ns=NOW + 5 * 3600 * 10**9), Level.WARNING, "expires in 5 hours"),
    (replace(GOOD, ip_bound=False), Level.WARNING, "from any address"),
    (replace(GOOD, trade=True), Level.WARNING, "may trade"),
    (replace(GOOD, transfer=True), Level.WARNING, "may transfer"),
    (Permissions(), Level.UNKNOWN, "does not say"),
])  # fmt: skip
def test_verdicts(found: Permissions, level: Level, words: str) -> None:
    verdict = judge(found, allow_withdraw=False, now_ns=NOW)
    assert verdict.level is level
    assert words in str(verdict)
    assert bool(verdict.findings) is (level is not Level.OK)


def test_policy_flags_what_it_allows() -> None:
    verdict = judge(replace(GOOD, withdraw=True), allow_withdraw=True, now_ns=NOW)
    assert verdict.level is Level.WARNING
    assert "allowed by your policy" in str(verdict)


@given(permissions, st.booleans())
def test_a_key_that_may_withdraw_is_never_silently_used(found: Permissions, allowed: bool) -> None:
    verdict = judge(found, allow_withdraw=allowed, now_ns=NOW)
    if found.withdraw:
        assert "may withdraw" in str(verdict)
        assert allowed or verdict.level is Level.REFUSED
    elif found.withdraw is None:
        assert verdict.level is not Level.OK


@given(permissions)
def test_policy_never_makes_it_worse(found: Permissions) -> None:
    order = [Level.OK, Level.UNKNOWN, Level.WARNING, Level.REFUSED]
    strict, lax = (judge(found, allow_withdraw=allow, now_ns=NOW).level for allow in (False, True))
    assert order.index(lax) <= order.index(strict)


@pytest.mark.parametrize(("scope", "found"), [
    ("connection mainaccount", Permissions()),
    ("session:x trade:read account:read wallet:read", Permissions(read=True, trade=False, withdraw=False)),
    ("trade:read_write account:read_write wallet:read_write", Permissions(read=True, trade=True, withdraw=True)),
    ("account:read", Permissions(read=True, trade=False, withdraw=False)),
    ("wallet:none account:none ip:1.2.3.4", Permissions(read=False, trade=False, withdraw=False, ip_bound=True)),
])  # fmt: skip
def test_deribits_scope(scope: str, found: Permissions) -> None:
    assert deribit_scope(scope) == found
