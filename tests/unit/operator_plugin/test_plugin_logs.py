"""``kubectl feedmill logs``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from feedmill_operator.plugin.logline import read


def line(second: int, event: str = "hello", level: str = "info", **more: Any) -> str:
    stamp = f"2026-11-26T00:00:{second:02d}.123456789Z"
    record = {"service": "receiver", "event": event, "level": level, "timestamp": stamp[:26] + "Z", **more}
    return f"{stamp} {json.dumps(record)}"


def prepare(api: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    api.pod("btc-receiver-0-a", "receiver", feed="btc", shard=0)
    api.pod("btc-receiver-1-b", "receiver", feed="btc", shard=1)
    api.pod("btc-distributor-0-c", "distributor", feed="btc", shard=0)
    api.pod("main-processor-d", "processor")
    api.logs["btc-receiver-0-a"] = [line(1, "connected", topics=4), line(5, "data.stale", "warning", why="no data yet")]
    api.logs["btc-receiver-1-b"] = [line(3, "connected", topics=2)]
    trace = "Traceback (most recent call last):\n  File x\nValueError: bad"
    api.logs["btc-distributor-0-c"] = [
        line(2, "reload.fault", "error", exception=trace), "2026-11-26T00:00:04.5Z bare words",
    ]  # fmt: skip
    api.logs["main-processor-d"] = [line(0, "not of this feed")]


def test_all_pods_in_order_of_time_for_people(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    done = feedmill("logs", "btc")
    assert done.code == 0
    assert done.out.splitlines() == [
        "btc-receiver-0-a    00:00:01.123 connected topics=4",
        "btc-distributor-0-c 00:00:02.123 ERROR reload.fault",
        "btc-distributor-0-c     Traceback (most recent call last):",
        "btc-distributor-0-c       File x",
        "btc-distributor-0-c     ValueError: bad",
        "btc-receiver-1-b    00:00:03.123 connected topics=2",
        "btc-distributor-0-c 00:00:04.500 bare words",
        'btc-receiver-0-a    00:00:05.123 WARNING data.stale why="no data yet"',
    ]


def test_chosen_by_role_shard_and_level(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    assert feedmill("logs", "btc", "--role", "receiver", "--shard", "1").out.split()[0] == "btc-receiver-1-b"
    done = feedmill("logs", "btc", "--level", "warning")
    assert [words[0] for words in done.lines if words[1][0] == "0"] == [
        "btc-distributor-0-c", "btc-distributor-0-c", "btc-receiver-0-a",
    ], "what says no level is never hidden"  # fmt: skip
    feedmill("logs", "btc", "--since", "10m", "--tail", "5", "--previous", "--role", "distributor")
    assert "sinceSeconds=600&tailLines=5&previous=true" in api.asked[-1]


def test_raw_lines_are_as_they_were_written(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    done = feedmill("logs", "btc", "--raw", "--role", "receiver")
    assert [json.loads(text)["event"] for text in done.out.splitlines()] == ["connected", "connected", "data.stale"]


def test_a_pod_without_a_log_does_not_hide_the_others(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    del api.logs["btc-receiver-1-b"]
    done = feedmill("logs", "btc")
    assert done.code == 0
    assert 'btc-receiver-1-b: no log: Ready: container "x" in pod "btc-receiver-1-b" is waiting to start' in done.err
    assert len(done.lines) == 7
    assert feedmill("logs", "btc", "--shard", "1").code == 1


def test_no_pod_says_where_to_look(api: Any, feedmill: Any, kit: Any) -> None:
    feed = api.add("exchangefeeds", kit.feed("btc", kit.READY))
    done = feedmill("logs", "btc", "--role", "processor")
    assert done.code == 1
    assert done.err == (
        "feed/btc has no pod of role processor (its roles: receiver, distributor; the pipeline has its own): "
        "see kubectl feedmill status feed/btc\n"
    )
    assert feedmill("logs", "btc", "--role", "procesor").err.startswith("--role procesor: did you mean processor?")
    assert feedmill("logs", "btc", "--level", "loud").code == 2
    feed["spec"]["suspend"] = True
    assert "is suspended, so it has no pods: set spec.suspend to false" in feedmill("logs", "btc").err


def test_a_forbidden_log_ends_the_command(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    api.forbidden.add("GET */log")
    done = feedmill("logs", "btc")
    assert done.code == 1
    assert "/log: ask the cluster's administrator for that right" in done.err


def test_following_takes_new_lines_and_new_pods_until_interrupted(api: Any, kubeconfig: Path, kit: Any) -> None:
    prepare(api, kit)
    command = [sys.executable, "-m", "feedmill_operator.plugin.main", "logs", "btc", "--role", "receiver", "-f"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    watchdog = threading.Timer(200, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        seen = {" ".join(process.stdout.readline().split()) for _ in range(3)}
        assert "btc-receiver-1-b 00:00:03.123 connected topics=2" in seen
        api.logs["btc-receiver-1-b"].append(line(6, "more"))
        assert process.stdout.readline().split() == ["btc-receiver-1-b", "00:00:06.123", "more"]
        api.logs["btc-receiver-0-new"] = [line(7, "new")]
        api.pod("btc-receiver-0-new", "receiver", feed="btc", shard=0)
        assert process.stdout.readline().split() == ["btc-receiver-0-new", "00:00:07.123", "new"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.communicate()[1]
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("given", "level", "shown"),
    [
        (b'2026-11-26T00:00:01Z {"event": "a", "level": "info", "n": 1, "t": "x y"}', "info", 'a n=1 t="x y"'),
        (b'2026-11-26T00:00:01Z {"no": "event"}', "", '{"no": "event"}'),
        (b"2026-11-26T00:00:01Z {broken", "", "{broken"),
        (b"2026-11-26T00:00:01Z ", "", ""),
        (b"no stamp", "", "no stamp"),
        (b"2026-11-26T00:00:01+00:00 \x1b[31mred\x1b[0m \xff", "", "red \ufffd"),
    ],
)
def test_lines_of_every_kind(given: bytes, level: str, shown: str) -> None:
    found = read(given)
    assert (found.level, found.message) == (level, shown)
