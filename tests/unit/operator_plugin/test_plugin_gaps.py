"""``kubectl feedmill gaps``: what is asked of the pod, and how the rows are shown. The rows themselves: integration."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from feedmill_operator.plugin.gaps import statement


def row(shard: str = "trading.btc-spot.0", state: str = "closed", at: int | None = None, **more: Any) -> dict[str, Any]:
    now = time.time_ns() if at is None else at
    return {
        "shard": shard, "symbol": "BTC-USDT", "channel": "Trades", "cause": "disconnected", "state": state,
        "from_seq": 1, "to_seq": 9, "missing": 9 if state == "open" else 0, "from_ns": now - 90 * 10**9,
        "to_ns": now - 30 * 10**9, "repaired_by": "" if state == "open" else "late", "detected_ns": now - 30 * 10**9,
        **more,
    }  # fmt: skip


def prepare(api: Any, kit: Any, *rows: Any) -> list[list[str]]:
    asked: list[list[str]] = []
    api.add("feedpipelines", kit.pipeline("main", kit.READY))
    api.add("exchangefeeds", kit.feed("btc-spot", kit.READY))
    api.pod("main-processor-a", "processor")

    def execute(pod: str, command: list[str]) -> Any:
        assert pod == "main-processor-a"
        asked.append(command)
        return kit.Executed(out=json.dumps(rows))

    api.execute = execute
    return asked


def test_open_gaps_come_first(api: Any, feedmill: Any, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ages are told by the second, and the first command of a process imports for longer than that.
    at = time.time_ns()
    asked = prepare(api, kit, row(at=at), row(at=at, state="open", to_ns=None, symbol=None))
    monkeypatch.setattr("feedmill_operator.plugin.gaps.time", SimpleNamespace(time_ns=lambda: at))
    done = feedmill("gaps")
    assert done.code == 0, done.err
    first, second = done.out.splitlines()[1:3]
    assert first.split()[:6] == ["btc-spot", "0", "all", "Trades", "open", "disconnected"]
    assert "1 min 30 s" in first
    assert "1 min 00 s" in second
    assert second.split()[-4:] == ["-", "late", "30s", "ago"]
    assert done.out.splitlines()[-1] == "2 gaps, 1 open"
    (command,) = asked
    assert command[:4] == ["feedmill", "query", "-o", "json"]
    assert "/etc/feedmill/secrets" in command
    assert command[command.index("--pipeline") + 1] == "trading/main"


def test_of_one_feed(api: Any, feedmill: Any, kit: Any) -> None:
    asked = prepare(api, kit)
    done = feedmill("gaps", "--feed", "btc-spot", "--since", "1d")
    assert (done.code, done.out) == (0, "no gap is open, and none was found in the last 1d\n")
    assert "starts_with(g.shard, 'trading.btc-spot.')" in asked[0][-1]
    assert feedmill("gaps", "btc-spot").code == 0
    assert asked[1][-1].count("starts_with") == 1
    feedmill("gaps", "btc-spot", "main")
    assert "starts_with" not in asked[2][-1], "the pipeline as a whole was named too"


def test_json_and_limit(api: Any, feedmill: Any, kit: Any) -> None:
    asked = prepare(api, kit, *[row(detected_ns=number) for number in range(3)])
    done = feedmill("gaps", "-o", "json", "--limit", "2")
    found = json.loads(done.out)
    assert [(item["namespace"], item["feed"], item["shard"]) for item in found] == [("trading", "btc-spot", "0")] * 2
    assert done.err == "the first 2 of a pipeline are shown: --limit shows more\n"
    assert asked[0][-1].endswith("limit 3"), "one more, to know whether there are more"
    assert feedmill("gaps", "--limit", "3").err == ""


def test_a_database_that_does_not_answer(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    api.execute = lambda *_: kit.Executed(
        err="the database cannot be reached: postgresql://me:hunter22222@db: refused", code=1
    )
    done = feedmill("gaps")
    assert done.code == 1
    assert "pipeline main: main-processor-a: the database cannot be reached: postgresql://me:[redacted]@db" in done.err
    assert "hunter" not in done.err


def test_no_processor_to_ask(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    pod = api.objects["pods", "trading", "main-processor-a"]
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    done = feedmill("gaps")
    assert done.code == 1
    assert done.out == "", "nobody said that there is no gap"
    assert "no processor runs that could be asked (main-processor-a: CrashLoopBackOff)" in done.err
    assert "kubectl feedmill status pipeline/main -n trading" in done.err
    assert feedmill("gaps", "-n", "empty").err.startswith("no pipeline to ask")


def test_forbidden(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    api.forbidden.add("GET */exec")
    done = feedmill("gaps")
    assert done.code == 1
    assert "/exec: ask the cluster's administrator for that right" in done.err


def test_output_of_many_frames_is_whole(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit, *[row() for _ in range(300)])
    assert len(json.loads(feedmill("gaps", "-o", "json", "--limit", "500").out)) == 300


def test_the_statement_holds_no_more_than_it_should() -> None:
    text = statement(["a", "b"], "ns", 5, 10)
    assert "g.detected_ns >= 5" in text
    assert "(starts_with(g.shard, 'ns.a.') or starts_with(g.shard, 'ns.b.'))" in text
    assert "password" not in text
