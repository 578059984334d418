"""What account receivers say, read: coarse, comparable, unknown where it says nothing, and no secret in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from status_facts import HASH, fresh_pod, good, role, rollout

from feedmill.resources.status import AccountStatus
from feedmill.shared.log import register_secret
from feedmill_operator.reconcile import pool
from feedmill_operator.reconcile.account_said import AccountSaid, Counts, best, read_accounts, read_counts
from feedmill_operator.reconcile.account_status import account_status
from feedmill_operator.reconcile.answer import read_answer
from feedmill_operator.reconcile.conditions import yes
from feedmill_operator.reconcile.facts import AccountFacts
from feedmill_operator.reconcile.reasons import Reason

COUNTS = {
    "known": 9, "held": 9, "listening": 4, "reconciling": 1, "connecting": 1, "waiting": 1, "refused": 1, "disabled": 1
}  # fmt: skip
NOW = "2026-11-26T00:00:00Z"


@pytest.mark.parametrize(
    ("section", "found"),
    [
        (COUNTS, Counts(8, 5, 1)),
        ({"listening": 0}, Counts()),
        ({}, None),
        (None, None),
        ({"listening": "many"}, None),
        ([1], None),
    ],
)
def test_counts(section: Any, found: Counts | None) -> None:
    assert read_counts(section) == found


@pytest.mark.parametrize(
    ("said", "minute"),
    [
        ("2026-11-26T10:15:42Z", "2026-11-26T10:15:00Z"),
        ("2026-11-26T10:15:42.123456+00:00", "2026-11-26T10:15:00Z"),
        ("2026-11-26T10:15:42+02:00", ""),
        ("yesterday", ""),
        (1732615842, ""),
        (None, ""),
    ],
)
def test_the_time_of_a_fill_is_told_by_the_minute(said: Any, minute: str) -> None:
    (found,) = read_accounts({"ns/fund": {"state": "listening", "lastFill": said}}).values()
    assert found.last_fill == minute


def test_what_has_another_form_is_unknown() -> None:
    assert read_accounts(["x"]) == {}
    assert read_accounts({"ns/a": "listening", "ns/b": {"state": ["x"], "key": "golden", "message": 3}}) == {
        "ns/b": AccountSaid()
    }
    assert read_answer({"service": "processor", "ready": True}).accounts is None


def test_no_secret_and_no_endless_text_comes_through() -> None:
    register_secret("planted-api-secret")
    said = {"state": "refused", "message": "the key planted-api-secret is wrong\n" + "x" * 5000}
    (found,) = read_accounts({"ns/fund": said}).values()
    assert "planted-api-secret" not in found.message
    assert len(found.message) <= 600
    assert "\n" not in found.message


def test_the_better_and_the_newer_word_counts() -> None:
    listening, refused = AccountSaid("Listening"), AccountSaid("Refused", message="no", current=True)
    assert best([]) is None
    assert best([AccountSaid()]) is None
    assert best([listening, AccountSaid("Connecting")]) == listening
    assert best([listening, refused]) == refused
    assert best([replace(listening, current=True), refused]) == replace(listening, current=True)


def test_a_view_is_of_all_members() -> None:
    done = rollout("main-accounts", None, wanted=2)
    pods = (fresh_pod("a", None), fresh_pod("b", None))
    told = {"ns/one": AccountSaid("Listening")}, {"ns/two": AccountSaid("Refused")}
    answers = {"a": good(manifests=told[0], accounts=Counts(3, 2, 1)), "b": good(manifests=told[1], config_hash="old")}
    made = replace(role(done, pods=pods, answers=answers), config_hash=HASH)
    view = pool.view(made, yes(Reason.AVAILABLE), "main")
    assert view.trouble is None
    assert view.said == {"ns/one": AccountSaid("Listening", current=True), "ns/two": AccountSaid("Refused")}
    # One has not said how many it has: the sum is not known.
    assert pool.counts(made) is None
    answers["b"] = good(accounts=Counts(1, 1, 0))
    assert pool.counts(replace(made, answers=answers)) == Counts(4, 3, 1)


def test_the_status_fits_the_schema() -> None:
    long = AccountSaid(
        "Refused", "RefusedByVenue", "y" * 600, "2026-11-26T10:15:00Z", "warning", "z" * 600, current=True
    )
    for said in (None, long, AccountSaid("Listening", key="ok")):
        AccountStatus.model_validate(account_status(AccountFacts(3, {}, said=said), NOW))


def test_times_of_transitions_are_kept() -> None:
    first = account_status(AccountFacts(1, {}, said=AccountSaid("Listening", current=True)), NOW)
    later = account_status(AccountFacts(1, first, said=AccountSaid("Reconciling")), "2026-11-26T01:00:00Z")
    assert {each["lastTransitionTime"] for each in later["conditions"]} == {NOW}
    assert {each["type"]: each["reason"] for each in later["conditions"]}["Ready"] == "Reconciling"
