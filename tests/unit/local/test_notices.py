"""What is told of the changes between two looks."""

from __future__ import annotations

from typing import Any

from feedmill.local.notices import Notices
from feedmill.local.status import ManagerStatus, ServerStatus, ServiceStatus, total


def service(**changes: Any) -> ServiceStatus:
    found = ServiceStatus("spot-receiver-0-0", "receiver", "default/spot", 0, "r0", "running")
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def status(
    *services: ServiceStatus, servers: list[ServerStatus] | None = None, phase: str = "running"
) -> ManagerStatus:
    found = list(services)
    return ManagerStatus(phase, "", True, 1.0, "data", found, servers or [], total(found, servers or []))


def connections(**section: Any) -> dict[str, Any]:
    return {"connections": {"stream-1": section}}


def test_an_exchange_out_of_reach_is_told_once_with_host_and_cause() -> None:
    notices = Notices()
    failure = {"host": "stream.example:9443", "cause": "dns", "detail": "no such name"}
    away = service(health=connections(state="backoff", failure=failure))
    assert notices.look(status(away)) == [
        "default/spot: cannot reach stream.example:9443: dns (no such name); trying again"
    ]
    assert notices.look(status(away)) == []
    refused = service(health=connections(state="backoff", failure={**failure, "cause": "refused", "detail": ""}))
    assert notices.look(status(refused)) == ["default/spot: cannot reach stream.example:9443: refused; trying again"]
    back = service(health=connections(state="open", active=4, failure=failure))
    assert notices.look(status(back)) == ["default/spot: connection stream-1 is back"]
    assert notices.look(status(back)) == []
    assert len(notices.look(status(away))) == 1


def test_one_cause_of_several_connections_is_told_once() -> None:
    notices = Notices()
    section = {"state": "backoff", "failure": {"host": "x:1", "cause": "dns", "detail": ""}}
    away = service(health={"connections": {"public": section, "market": dict(section)}})
    assert notices.look(status(away)) == ["default/spot: cannot reach x:1: dns; trying again"]
    assert notices.look(status(away)) == []


def test_a_connection_that_stands_from_the_start_is_not_news() -> None:
    assert Notices().look(status(service(health=connections(state="open", active=4)))) == []


def test_what_the_exchange_refuses_is_told_once_for_all_replicas() -> None:
    notices = Notices()
    one = service(health=connections(state="open", active=3, rejected=["a@trade"]))
    two = service(name="spot-receiver-0-1", health=connections(state="open", active=3, rejected=["a@trade"]))
    assert notices.look(status(one, two)) == [
        "default/spot: the exchange does not give a@trade: see the receiver's log for why"
    ]
    assert notices.look(status(one, two)) == []


def test_what_stays_without_data_is_told_after_a_while() -> None:
    notices = Notices()
    ages = {f"{name}@trade": None for name in "abcdef"} | {"x@trade": 0.1, "r@trade": None}
    section: dict[str, Any] = {"state": "open", "active": 7, "freshness": ages, "rejected": []}
    assert notices.look(status(service(health=connections(**section, openSeconds=59.0)))) == []
    (line,) = notices.look(status(service(health=connections(**section, openSeconds=61.0))))
    assert line.startswith("default/spot: no data yet of a@trade, b@trade, c@trade, d@trade and 3 more, 60 s after")
    assert notices.look(status(service(health=connections(**section, openSeconds=99.0)))) == []


def test_a_problem_of_rest_is_told_once() -> None:
    notices = Notices()
    bad = service(health={"rest": {"problem": "HTTP 400 from h: Invalid symbol."}})
    assert notices.look(status(bad)) == ["default/spot: REST: HTTP 400 from h: Invalid symbol."]
    assert notices.look(status(service(health={"rest": {"problem": ""}}))) == []
    failure = {"host": "h", "cause": "dns", "detail": ""}
    away = connections(state="backoff", failure=failure) | {"rest": {"problem": "api: dns"}}
    assert notices.look(status(service(health=away))) == ["default/spot: cannot reach h: dns; trying again"]
    assert notices.look(status(bad)) == []


def test_ends_and_starts() -> None:
    notices = Notices()
    assert notices.look(status(service())) == []
    down = service(state="backoff", last_exit="killed by SIGKILL", next_start_seconds=0.3)
    assert notices.look(status(down)) == ["spot-receiver-0-0 ended (killed by SIGKILL), again in 0.3 s"]
    assert notices.look(status(down)) == []
    assert notices.look(status(service(restarts=1))) == ["spot-receiver-0-0 was started again, restart 1"]
    assert notices.look(status(service(restarts=1))) == []
    assert notices.look(status(service(restarts=2, last_exit="killed by SIGKILL"))) == [
        "spot-receiver-0-0 was started again after its end (killed by SIGKILL), restart 2"
    ]


def test_a_crash_loop_is_told_once_and_then_quiet() -> None:
    notices = Notices()
    looping = service(state="backoff", crash_loop=True, restarts=4, last_exit="exit code 1", last_error="E: no module")
    assert notices.look(status(service())) == []
    told = notices.look(status(looping))
    assert told[-1] == (
        "spot-receiver-0-0 keeps ending at its start (E: no module): tried less and less often, see its log"
    )
    for state, restarts in (("starting", 5), ("backoff", 5), ("starting", 6), ("backoff", 6)):
        again = service(state=state, crash_loop=True, restarts=restarts, last_exit="exit code 1")
        assert notices.look(status(again)) == []
    assert notices.look(status(service(restarts=7))) == ["spot-receiver-0-0 runs again"]


def test_refused_configuration_is_told_as_final() -> None:
    told = Notices().look(status(service(state="failed", last_error="spec.x: 1: write 2")))
    assert told == ["spot-receiver-0-0 refuses its configuration and is not started again: spec.x: 1: write 2"]


def test_servers() -> None:
    notices = Notices()
    running = ServerStatus("redis", "embedded", "redis://127.0.0.1:1/0", "running")
    assert notices.look(status(servers=[running])) == []
    ended = ServerStatus("redis", "embedded", "redis://127.0.0.1:1/0", "restarting")
    assert notices.look(status(servers=[ended])) == ["redis has ended: starting it again; the services wait for it"]
    again = ServerStatus("redis", "embedded", "redis://127.0.0.1:1/0", "running", restarts=1)
    assert notices.look(status(servers=[again])) == ["redis had ended and was started again (its log is in data)"]


def test_totals_do_not_count_the_unknown() -> None:
    one, two = service(rss_bytes=100, cpu_percent=None, ready=True), service(rss_bytes=None, cpu_percent=2.5)
    found = total([one, two], [])
    assert (found.rss_bytes, found.cpu_percent, found.ready, found.running) == (100, 2.5, 1, 2)
    assert total([service()], []).rss_bytes is None


def test_causes_that_take_turns_are_told_once_each() -> None:
    notices = Notices()
    down = [
        connections(state="backoff", failure={"host": "h", "cause": cause, "detail": ""})
        for cause in ("dns", "timeout")
    ]
    found = [notices.look(status(service(health=each))) for each in [*down, *down]]
    assert [len(lines) for lines in found] == [1, 1, 0, 0], found
