"""``kubectl feedmill lag``: figures asked of real health servers."""

from __future__ import annotations

import json
from typing import Any

from feedmill_operator.plugin.ask import totals


def receiver(**connection: Any) -> dict[str, Any]:
    state = {"state": "open", "framesPerSecond": 120.5} | connection
    return {"connections": {"stream-1": state}, "session": {"batches": 110, "acknowledged": 100}}


def processor(seconds: float | None, *, owned: bool = True) -> dict[str, Any]:
    stretch = {"exchangeToCommit": {"p50Ms": 4.2, "p99Ms": 150.0, "count": 9}}
    return {
        "shards": {"trading.btc.0": {"owned": owned, "lagCommits": 3, "lagSeconds": seconds, "lastError": ""}},
        "latency": {"binance/Spot": stretch},
    }


def prepare(api: Any, kit: Any) -> None:
    api.add("feedpipelines", kit.pipeline("main", kit.READY))
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    for name in ("btc-receiver-0-a", "btc-receiver-0-b"):
        api.pod(name, "receiver", feed="btc", shard=0)
        api.says(name, **receiver())
    for name, standby in (("btc-distributor-0-a", False), ("btc-distributor-0-b", True)):
        api.pod(name, "distributor", feed="btc", shard=0)
        api.says(name, dispatch={"standby": standby, "heldBack": ""}, lag={"seconds": None if standby else 0.25})
    api.pod("main-processor-a", "processor")
    api.says("main-processor-a", **processor(1.5))


def test_one_line_a_shard(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    done = feedmill("lag")
    assert done.code == 0, done.err
    heading, row = done.out.splitlines()
    assert heading.split("  ")[0] == "FEED"
    assert " ".join(row.split()) == "btc 0 241 20 batches 250 ms 3 commits, 1.5 s 4.2 ms 150 ms"


def test_json_has_the_exact_numbers(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    found = json.loads(feedmill("lag", "main", "-o", "json").out)
    (shard,) = found["shards"]
    assert shard["processor_seconds"] == 1.5
    assert shard["distributor_seconds"] == 0.25
    assert (shard["backlog_batches"], shard["backlog_bytes"], shard["receivers"]) == (20, None, 2)
    assert (shard["latency_since"], shard["p50_ms"], shard["p99_ms"]) == ("exchange", 4.2, 150.0)
    assert found["silent"] == []


def test_unknown_is_never_zero(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    del api.health["btc-receiver-0-b"]
    api.says("main-processor-a", **processor(None, owned=False))
    silent = api.objects["pods", "trading", "btc-distributor-0-a"]
    silent["status"] |= {"podIP": "", "phase": "Pending", "conditions": [], "containerStatuses": []}
    done = feedmill("lag", "btc")
    assert done.code == 1
    assert " ".join(done.out.splitlines()[1].split()) == "btc 0 120 10 batches ? ? 4.2 ms 150 ms"
    below = done.out.split("\n\n", 1)[1].splitlines()
    assert below == [
        "btc shard 0: no distributor is at work",
        "btc shard 0: no processor has it",
        "btc-distributor-0-a gave no answer: Pending",
        "btc-receiver-0-b gave no answer: error trying to reach service: dial tcp: connection refused",
    ]


def test_a_forbidden_proxy_is_replaced_by_a_forwarded_port(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    api.forbidden.add("GET */proxy/*")
    done = feedmill("lag")
    assert done.code == 0, done.out
    assert done.lines[1][-5:] == ["s", "4.2", "ms", "150", "ms"]
    assert any("/portforward" in line for line in api.asked)
    api.forbidden.add("* */portforward")
    done = feedmill("lag")
    assert done.code == 1
    assert done.out.count("gave no answer: User") == 5


def test_a_pod_that_the_api_server_cannot_reach_is_asked_by_a_forwarded_port(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    api.broken["GET */pods/main-processor-a:8080/proxy/*"] = (503, "error trying to reach service: i/o timeout")
    assert feedmill("lag").code == 0


def test_what_keeps_a_shard_back_is_named(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    failure = {"host": "stream.binance.com:9443", "cause": "dns", "detail": ""}
    for name in ("btc-receiver-0-a", "btc-receiver-0-b"):
        api.says(name, connections={"s": {"state": "backoff", "failure": failure}})
    api.says("btc-distributor-0-a", dispatch={"standby": False, "heldBack": "Redis is above 80 % of maxmemory"})
    out = feedmill("lag").out
    assert out.count("btc shard 0: cannot reach stream.binance.com:9443: dns") == 1
    assert "btc shard 0: held back: Redis is above 80 % of maxmemory" in out


def test_recorded_frames_are_measured_from_receiving(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    old = {"p50Ms": 9e9, "p99Ms": 9e9, "count": 1}
    new = {"p50Ms": 2.0, "p99Ms": 3.0, "count": 1}
    api.says("main-processor-a", latency={"binance/Spot": {"exchangeToCommit": old, "receiveToCommit": new}})
    done = feedmill("lag")
    assert done.lines[1][-4:] == ["2.0", "ms", "3.0", "ms"]
    assert "run from receiving to the commit" in done.out


def test_a_feed_without_pods_has_a_line_too(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY))["spec"]["suspend"] = True
    done = feedmill("lag")
    assert done.code == 0
    assert done.lines[1] == ["btc", "-", "?", "?", "?", "?", "?", "?"]
    assert "btc: suspended" in done.out
    assert feedmill("lag", "-n", "empty").err.startswith("no feed to ask")


def test_sums_of_an_exposition() -> None:
    text = '# HELP a b\n# TYPE a gauge\na{x="1}"} 2\na{x="2"} 3.5\nb 1e3\nc NaN\nbroken\n'
    found = totals(text)
    assert (found["a"], found["b"]) == (5.5, 1000.0)
    assert "broken" not in found


def test_a_forwarded_port_that_nobody_listens_on_is_told_in_a_line(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    api.forbidden.add("GET */proxy/*")
    del api.health["main-processor-a"]
    done = feedmill("lag")
    assert done.code == 1
    said = "main-processor-a gave no answer: the forwarded port gave no answer: connection refused in the pod"
    assert said in done.out.splitlines()
    assert done.err == ""
