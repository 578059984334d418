"""Accounts in the live view, in the plain lines and in what is told: from health and from the database."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from feedmill.local.account_figures import MANY, SHOWN, PoolFigures, of
from feedmill.local.account_view import ago, lines, many, panel, states_table, summary
from feedmill.local.notices import Notices
from feedmill.local.status import ManagerStatus, ServerStatus, ServiceStatus, total
from feedmill.local.view import PlainDisplay, render

SECOND = 1_000_000_000


def member(states: dict[str, str], **why: str) -> dict[str, Any]:
    """What an account receiver says of the accounts it has; ``why``: of those with a problem."""
    counts = {state: list(states.values()).count(state) for state in states.values()}
    problems = {name: {"state": states[name], "why": text} for name, text in why.items()}
    return {"ready": True, "accounts": {"held": len(states), **counts, "states": states, "problems": problems}}


def row(name: str, *, enabled: bool = True, key: str = "ok", **more: Any) -> dict[str, Any]:
    found = {"account": name, "venue": "binance/Spot", "enabled": enabled, "verdict": key, "orders_open": 0}
    return found | {"fills": 0, "last_fill_ns": None, "accounts": 1, "all_enabled": 1} | more


def rows(*found: dict[str, Any]) -> list[dict[str, Any]]:
    counts = {"accounts": len(found), "all_enabled": sum(item["enabled"] for item in found)}
    return [item | counts for item in found]


def text_of(found: PoolFigures, width: int = 100) -> str:
    stream = io.StringIO()
    shown = panel(found)
    if shown is not None:
        Console(file=stream, width=width, force_terminal=False).print(shown)
    return stream.getvalue()


def status(*members: dict[str, Any] | None) -> ManagerStatus:
    services = [
        ServiceStatus(f"main-accounts-{number}", "accounts", "", None, f"r{number}", "running", health=health)
        for number, health in enumerate(members)
    ]
    servers = [ServerStatus("redis", "embedded", "redis://127.0.0.1:1/0", "running", 1, 8 << 20)]
    return ManagerStatus("running", "", True, 65.0, "data", services, servers, total(services, servers))


def test_each_account_with_its_state() -> None:
    members = [
        member({"default/a": "listening", "team/d": "disabled"}),
        member({"default/b": "refused", "default/c": "reconciling"}, **{"default/b": "the key may withdraw"}),
    ]
    found = of(
        members,
        rows(
            row("default/a", orders_open=3, fills=12_345, last_fill_ns=5 * SECOND),
            row("default/b", key="refused"),
            row("default/c", fills=7),
            row("team/d", enabled=False),
        ),
    )
    assert [(item.account, item.state) for item in found.shown] == [
        ("default/a", "listening"),
        ("default/b", "refused"),
        ("default/c", "reconciling"),
        ("team/d", "disabled"),
    ]
    assert (found.accounts, found.enabled, found.listening, found.reconciling, found.refused) == (4, 3, 1, 1, 1)
    text = text_of(found)
    (line,) = [line for line in text.splitlines() if line.startswith("a ")]
    assert line.split() == ["a", "binance/Spot", "listening", "3", f"{MANY:,}+", *ago(5 * SECOND).split(), "ok"]
    assert "b: the key may withdraw" in text
    assert lines(found) == [
        "1 of 3 accounts listened to, 1 reconciling, 1 refused; b: the key may withdraw",
    ]


def test_status_names_those_with_a_problem_first() -> None:
    states = {f"default/a{number:02}": "listening" for number in range(20)} | {"team/z": "refused"}
    found = of([member(states, **{"team/z": "no"})], None)
    table = states_table(found)
    assert table is not None
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=False).print(table)
    rows_of_it = [line.split() for line in stream.getvalue().splitlines()[2:]]
    assert rows_of_it[:2] == [["team/z", "refused"], ["a00", "listening"]]
    assert len(rows_of_it) == SHOWN
    assert states_table(of([None], None)) is None


def test_of_many_accounts_those_that_are_well_are_not_named() -> None:
    """Beyond fifty a member names only those with a problem."""
    document = member({})
    document["accounts"] |= {"held": 1000, "listening": 999, "refused": 1}
    document["accounts"]["problems"] = {"default/b": {"state": "refused", "why": "no"}}
    known = [item | {"accounts": 1000, "all_enabled": 1000} for item in (row("default/a"), row("default/b"))]
    found = of([document], known)
    assert [item.state for item in found.shown] == ["listening", "refused"]
    assert "999 of 1,000 accounts listened to, 1 refused" in text_of(found)
    # One is not listened to and not named: nobody knows which.
    document["accounts"]["listening"] = 998
    assert [item.state for item in of([document], known).shown] == ["?", "refused"]


@pytest.mark.parametrize("members", [[None], [member({"default/a": "listening"}), None]])
def test_what_a_member_does_not_say_is_not_known(members: list[Any]) -> None:
    found = of(members, rows(row("default/b")))
    assert (found.listening, found.refused) == (None, None)
    assert found.shown[0].state == "?"
    assert summary(found) == "? of 1 accounts listened to"


def test_without_the_database_the_counts_are_still_shown() -> None:
    found = of([member({"default/a": "listening", "default/b": "disabled"})], None)
    assert summary(found) == "1 of 1 accounts listened to"
    assert "1 of 1 accounts listened to" in text_of(found)


def test_accounts_that_nobody_listens_to_are_told() -> None:
    found = of([], rows(row("default/a"), row("default/b", enabled=False)))
    assert [item.state for item in found.shown] == ["not run", "disabled"]
    said = "1 accounts in the database are not listened to: give the FeedPipeline spec.accounts"
    assert lines(found) == [said]
    assert said in text_of(found)


@pytest.mark.parametrize("known", [None, [], rows(row("default/a", enabled=False))])
def test_where_there_are_no_accounts_nothing_is_shown(known: Any) -> None:
    found = of([], known)
    assert lines(found) == []
    assert panel(found) is None


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_of_accounts_alone_fits_a_terminal(width: int) -> None:
    found = of(
        [member({"default/binance-main": "listening"})],
        rows(row("default/binance-main", orders_open=12, fills=1234, last_fill_ns=SECOND)),
    )
    stream = io.StringIO()
    shown = render("up", "Ctrl-C", status(member({})), [], width, more=panel(found))
    Console(file=stream, width=width, force_terminal=False).print(shown)
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "binance-main" in text
    assert "main-accounts-0" in text
    assert "feed " not in text


def test_the_plain_line_of_accounts_alone_speaks_of_no_feeds() -> None:
    stream = io.StringIO()
    found = of([member({"default/a": "listening"})], rows(row("default/a")))
    display = PlainDisplay(stream, every=0.0, more=lambda: lines(found))
    display.show(status(member({})), [])
    first, second = stream.getvalue().splitlines()
    assert first.endswith(" services 0/1 ready, 8 MiB")
    assert "feed" not in first
    assert second.endswith(" 1 of 1 accounts listened to")


@pytest.mark.parametrize(
    ("age", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 m"), (7199, "119 m"), (7200, "2 h"), (172_800, "2 d")]
)
def test_ages(age: int, text: str) -> None:
    assert ago(1000 * SECOND, (1000 + age) * SECOND) == text


def test_ages_of_what_never_was_and_of_a_venue_that_is_ahead() -> None:
    assert (ago(None), ago(9 * SECOND, SECOND)) == ("-", "0 s")
    assert (many(None), many(MANY), many(MANY + 1)) == ("?", "10,000", "10,000+")


def test_an_account_with_a_problem_is_told_once_and_when_it_is_well() -> None:
    notices = Notices()
    bad = member({"default/a": "refused"}, **{"default/a": "the exchange refuses the key"})
    assert notices.look(status(bad)) == ["account default/a: the exchange refuses the key"]
    assert notices.look(status(bad)) == []
    other = member({"default/a": "connecting"}, **{"default/a": "no answer"})
    assert notices.look(status(other)) == ["account default/a: no answer"]
    assert notices.look(status(None)) == []
    assert notices.look(status(member({"default/a": "listening"}))) == ["account default/a: listened to"]
    # Off, or of another member: it is not said to be well.
    assert notices.look(status(bad)) == ["account default/a: the exchange refuses the key"]
    assert notices.look(status(member({"default/a": "disabled"}))) == []


def test_many_accounts_with_a_problem_are_not_told_one_by_one() -> None:
    states = {f"default/a{number}": "connecting" for number in range(10)}
    told = Notices().look(status(member(states, **dict.fromkeys(states, "no answer"))))
    assert told == [f"account default/a{number}: no answer" for number in range(4)] + [
        "and 6 more accounts: feedmill status names them"
    ]
