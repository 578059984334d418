"""``kubectl feedmill status``."""

from __future__ import annotations

import json
from typing import Any


def test_all_is_well(api: Any, feedmill: Any, kit: Any) -> None:
    api.add(
        "feedpipelines",
        kit.pipeline("main", kit.READY, kit.condition("RedisReachable", "True", "Reachable"), **kit.GOOD_PIPELINE),
    )
    api.add("exchangefeeds", kit.feed("btc", kit.READY, **kit.GOOD_FEED))
    done = feedmill("status")
    assert done.code == 0, done.err
    assert done.lines[0][:5] == ["PIPELINE", "READY", "REASON", "REDIS", "POSTGRES"]
    assert done.lines[1][:9] == ["main", "True", "Available", "ok", "?", "1", "<1s", "1/1", "1/1"]
    assert done.lines[2] == []
    assert done.lines[3] == ["FEED", "READY", "REASON", "DATA", "LAG", "RECEIVERS", "DISTRIBUTORS", "CONFIG", "AGE"]
    assert done.lines[4][:8] == ["btc", "True", "Available", "Fresh", "<1s", "2/2", "1/1", "3/3"]
    assert len(done.lines) == 5, "nothing is to be said of what is well"
    assert not any(line.endswith(" ") for line in done.out.splitlines())


def test_what_is_wrong_stands_below_with_its_remedy(api: Any, feedmill: Any, kit: Any) -> None:
    message = "Secret redis in namespace trading does not exist: create it with the key url"
    broken = kit.feed("btc", kit.condition("Ready", "False", "NotAccepted", message))
    broken["status"]["conditions"][0] = kit.condition("Accepted", "False", "SecretMissing", message)
    api.add("exchangefeeds", broken)
    api.add(
        "exchangefeeds",
        kit.feed(
            "eth",
            kit.condition("Ready", "False", "ReceiverUnavailable", "0 of 1 receivers are ready"),
            kit.condition(
                "ReceiverAvailable", "False", "ImagePullBackOff", "image x:1 cannot be pulled: check its name"
            ),
            kit.condition("DataFresh", "Unknown", "NoAnswer", "no receiver could be asked"),
        ),
    )
    api.add("exchangefeeds", kit.feed("sol", kit.READY, kit.condition("Paused", "True", "Paused", "by annotation")))
    done = feedmill("status")
    assert done.code == 1
    below = done.out.split("\n\n", 1)[1].splitlines()
    assert below == [
        f"feed/btc: Accepted=False (SecretMissing): {message}",
        "feed/eth: Ready=False (ReceiverUnavailable): 0 of 1 receivers are ready",
        "feed/eth: ReceiverAvailable=False (ImagePullBackOff): image x:1 cannot be pulled: check its name",
        "feed/sol: Paused=True (Paused): by annotation",
    ]


def test_unknown_is_a_question_mark_and_names_the_operator(api: Any, feedmill: Any, kit: Any) -> None:
    new = kit.feed("btc")
    del new["status"]
    api.add("exchangefeeds", new)
    done = feedmill("status")
    assert done.code == 1
    assert done.lines[1][:8] == ["btc", "Unknown", "NotReconciled", "?", "?", "?", "?", "?"]
    assert "no operator has looked at it yet" in done.out


def test_a_change_that_nobody_has_worked_on_is_not_shown_as_ready(api: Any, feedmill: Any, kit: Any) -> None:
    changed = kit.feed("btc", kit.READY, **kit.GOOD_FEED)
    changed["metadata"]["generation"] = 3
    api.add("exchangefeeds", changed)
    done = feedmill("status")
    assert done.code == 1
    assert done.lines[1][:3] == ["btc", "Unknown", "NotObserved"]


def test_suspended_by_its_user_is_in_order(api: Any, feedmill: Any, kit: Any) -> None:
    stopped = kit.feed("btc", kit.condition("Ready", "False", "Suspended", "spec.suspend is true"), data="Suspended")
    stopped["spec"]["suspend"] = True
    api.add("exchangefeeds", stopped)
    done = feedmill("status")
    assert done.code == 0
    assert done.lines[1][:4] == ["btc", "False", "Suspended", "Suspended"]


def test_all_namespaces_have_a_column_and_pages_are_followed(api: Any, feedmill: Any, kit: Any) -> None:
    for number in range(501):
        feed = kit.feed(f"f{number}", kit.READY, **kit.GOOD_FEED)
        feed["metadata"]["namespace"] = "a" if number else "b"
        api.add("exchangefeeds", feed)
    done = feedmill("status", "-A")
    assert done.code == 0
    assert done.lines[0][:2] == ["NAMESPACE", "FEED"]
    assert len(done.lines) == 502
    assert done.lines[-1][:2] == ["b", "f0"], "by namespace, then name"
    assert sum("/exchangefeeds?limit=500" in line for line in api.asked) == 2


def test_one_by_name_shows_conditions_and_pods(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY, image="x:1", rejected=["dogebtc@trade"], **kit.GOOD_FEED))
    api.pod("btc-receiver-0-abc", "receiver", feed="btc", shard=0)
    waiting = api.pod("btc-distributor-0-abc", "distributor", feed="btc", shard=0)
    waiting["status"]["containerStatuses"][0] |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 4,
    }  # fmt: skip
    api.pod("eth-receiver-0-abc", "receiver", feed="eth", shard=0)
    api.pod("main-processor-abc", "processor")
    done = feedmill("status", "btc")
    assert done.code == 0
    assert "feed/btc: image x:1, configuration abc taken by 3 of 3 pods" in done.out
    assert "the exchange does not give: dogebtc@trade" in done.out
    (ready,) = [line for line in done.lines if line[:1] == ["Ready"]]
    assert (ready[1], ready[3]) == ("True", "Available")
    pods = [line for line in done.lines if line and line[0].endswith("-abc")]
    assert [line[:6] for line in pods] == [
        ["btc-distributor-0-abc", "distributor", "0", "CrashLoopBackOff", "4", "node-1"],
        ["btc-receiver-0-abc", "receiver", "0", "Ready", "0", "node-1"],
    ]


def test_json_is_for_programs(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY, **kit.GOOD_FEED))
    done = feedmill("status", "-o", "json")
    (found,) = json.loads(done.out)
    assert found["pods"] == {"receiver": {"ready": 2, "wanted": 2}, "distributor": {"ready": 1, "wanted": 1}}
    assert (found["kind"], found["ready"], found["lag"], found["feeds"]) == ("ExchangeFeed", "True", "<1s", None)
    assert [item["type"] for item in found["conditions"]] == ["Accepted", "Ready"]
    assert feedmill("status", "-o", "yaml").err == "-o yaml: write table or json\n"


def test_nothing_there_says_what_to_do(api: Any, feedmill: Any) -> None:
    done = feedmill("status")
    assert (done.code, done.out) == (0, "")
    assert "namespace trading has no feed, pipeline or account: kubectl apply -f examples/kubernetes/" in done.err
    assert feedmill("status", "-o", "json").out == "[]\n"
    assert feedmill("status", "-A").err.startswith("no namespace has a feed, pipeline or account")


def test_one_reason_is_told_once(api: Any, feedmill: Any, kit: Any) -> None:
    api.add(
        "feedpipelines",
        kit.pipeline(
            "main",
            kit.condition("Ready", "False", "Migrating", "the database is being migrated by Job x"),
            kit.condition("ProcessorAvailable", "False", "Migrating", "the database is being migrated by Job x"),
            kit.condition("Progressing", "True", "Migrating", "Job x migrates the database, the processors follow"),
        ),
    )
    below = feedmill("status").out.split("\n\n", 1)[1].splitlines()
    assert below == ["pipeline/main: ProcessorAvailable=False (Migrating): the database is being migrated by Job x"]


LISTENING = ("Listening", "True", "Listening", "orders, fills, balances and positions are heard")


def test_accounts_have_a_table_of_their_own(api: Any, feedmill: Any, kit: Any) -> None:
    pool = {"replicas": 1, "updated": 1, "ready": 1, "enabled": 12, "listening": 11, "refused": 1}
    api.add("feedpipelines", kit.pipeline("main", kit.READY, **kit.GOOD_PIPELINE, accounts=pool))
    api.add("feedpipelines", kit.pipeline("other", kit.READY, **kit.GOOD_PIPELINE))
    heard = kit.condition("Ready", *LISTENING[1:])
    api.add("exchangeaccounts", kit.account("fund", heard, state="Listening", lastFill="2026-01-01T00:00:00Z"))
    refused = "the key may withdraw: take that right away at the exchange"
    api.add("exchangeaccounts", kit.account(
        "hedge", kit.condition("Ready", "False", "MayWithdraw", refused),
        kit.condition("Listening", "False", "MayWithdraw", refused),
        kit.condition("KeySound", "False", "MayWithdraw", refused), state="Refused",
    ))  # fmt: skip
    done = feedmill("status")
    assert done.code == 1
    assert done.lines[0][7:10] == ["PROCESSORS", "ACCOUNTS", "CONFIG"]
    assert done.lines[1][7:10] == ["1/1", "11/12", "1/1"]
    assert done.lines[2][7:10] == ["1/1", "-", "1/1"]
    assert done.lines[4] == ["ACCOUNT", "READY", "REASON", "EXCHANGE", "STATE", "FILL", "AGE"]
    assert done.lines[5][:5] == ["fund", "True", "Listening", "binance/Spot", "Listening"]
    assert done.lines[5][5].endswith("d")
    assert done.lines[6][:6] == ["hedge", "False", "MayWithdraw", "binance/Spot", "Refused", "-"]
    assert done.out.splitlines()[8:] == [f"account/hedge: Listening=False (MayWithdraw): {refused}"]
    (found, _) = json.loads(feedmill("status", "fund", "xa/hedge", "-o", "json").out)
    assert (found["kind"], found["state"], found["lastFill"]) == (
        "ExchangeAccount",
        "Listening",
        "2026-01-01T00:00:00Z",
    )


def test_how_many_accounts_are_heard_is_not_guessed(api: Any, feedmill: Any, kit: Any) -> None:
    pool = {"replicas": 1, "updated": 1, "ready": 1}
    api.add("feedpipelines", kit.pipeline("main", kit.READY, **kit.GOOD_PIPELINE, accounts=pool))
    assert feedmill("status").lines[1][7:10] == ["1/1", "?", "1/1"]


def test_one_account_is_told_with_its_conditions(api: Any, feedmill: Any, kit: Any) -> None:
    found = kit.account("fund", kit.condition("Ready", *LISTENING[1:]), kit.condition(*LISTENING), state="Listening")
    api.add("exchangeaccounts", found)
    done = feedmill("status", "account/fund")
    assert done.code == 0
    assert "account/fund: binance/Spot, Secret fund-key, listened to by pipeline/main" in done.out
    assert [line[:4] for line in done.lines if line[:1] == ["Listening"]] == [
        ["Listening", "True", done.lines[-1][2], "Listening"]
    ]
    assert "no pods" not in done.out


def test_who_may_not_see_accounts_sees_the_rest(api: Any, feedmill: Any, kit: Any) -> None:
    api.forbidden.add("GET */exchangeaccounts*")
    api.add("exchangefeeds", kit.feed("btc", kit.READY, **kit.GOOD_FEED))
    assert feedmill("status").code == 0
    assert feedmill("status", "btc").code == 0


def test_an_account_has_no_pods_to_act_on(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangeaccounts", kit.account("fund"))
    for command in ("logs", "lag", "pause", "restart", "reload", "gaps"):
        done = feedmill(command, "account/fund")
        assert done.code == 2, command
        assert "an account has no pods of its own: name its pipeline (pipeline/NAME)" in done.err
