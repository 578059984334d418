"""``kubectl feedmill pause | resume | restart | reload``."""

from __future__ import annotations

from typing import Any

from feedmill.resources.confighash import config_hash
from feedmill_operator import names


def annotations(api: Any, plural: str, name: str) -> dict[str, str]:
    return dict(api.objects[plural, "trading", name]["metadata"].get("annotations") or {})


def patches(api: Any) -> list[str]:
    return [line for line in api.asked if line.startswith("PATCH")]


def test_pause_and_resume(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    api.add("feedpipelines", kit.pipeline("main", kit.READY))
    done = feedmill("pause", "btc")
    assert done.code == 0
    assert (done.out, done.err.split(",")[0]) == ("feed/btc paused\n", "the processes go on")
    assert annotations(api, "exchangefeeds", "btc") == {names.PAUSE: "true"}
    assert feedmill("pause", "--all").out.splitlines()[1] == "feed/btc is paused already"
    assert annotations(api, "feedpipelines", "main") == {names.PAUSE: "true"}
    done = feedmill("resume", "btc", "main")
    assert done.out == "feed/btc resumed\npipeline/main resumed\n"
    assert annotations(api, "exchangefeeds", "btc") == annotations(api, "feedpipelines", "main") == {}
    before = len(patches(api))
    assert feedmill("resume", "btc").out == "feed/btc is not paused\n"
    assert len(patches(api)) == before


def test_a_forbidden_change_is_told(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    api.forbidden.add("PATCH *")
    done = feedmill("pause", "btc")
    assert done.code == 1
    assert "PATCH /apis/feedmill.dev/v1alpha1/namespaces/trading/exchangefeeds/btc" in done.err


def deployment(api: Any, name: str, feed: str) -> Any:
    marks = {names.MANAGED_BY: names.MANAGER, names.PIPELINE: "main", names.FEED: feed}
    return api.add(
        "deployments",
        {
            "metadata": {"name": name, "labels": marks, "generation": 1},
            "spec": {"replicas": 2, "template": {"metadata": {}}},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
        },
    )


def test_restart_waits_until_all_pods_are_new(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    one, two = deployment(api, "btc-receiver-0", "btc"), deployment(api, "btc-distributor-0", "btc")
    deployment(api, "eth-receiver-0", "eth")

    def operate(item: Any) -> None:
        """What operator and controllers do about the annotation."""
        for each in (one, two):
            each["spec"]["template"]["metadata"]["annotations"] = {
                names.RESTARTED: item["metadata"]["annotations"][names.RESTART]
            }
            each["metadata"]["generation"] = 2
            each["status"]["observedGeneration"] = 2

    api.changed = operate
    done = feedmill("restart", "btc")
    assert done.code == 0
    assert done.out == "feed/btc restarts\n"
    assert done.err == "feed/btc: 2 of 2 deployments have new pods\n"
    assert patches(api) == ["PATCH /apis/feedmill.dev/v1alpha1/namespaces/trading/exchangefeeds/btc"]


def test_restart_says_what_it_waited_for(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    deployment(api, "btc-receiver-0", "btc")
    done = feedmill("restart", "btc", "--timeout", "1s")
    assert done.code == 1
    assert done.err.splitlines() == [
        "feed/btc: 0 of 1 deployments have new pods",
        "not within 1 s: kubectl feedmill status feed/btc tells what holds it up",
    ]


def test_restart_of_what_will_not_restart(api: Any, feedmill: Any, kit: Any) -> None:
    paused = api.add("exchangefeeds", kit.feed("btc", kit.READY))
    paused["metadata"]["annotations"] = {names.PAUSE: "true"}
    api.add("exchangefeeds", kit.feed("eth", kit.READY))["spec"]["suspend"] = True
    done = feedmill("restart", "--all")
    assert done.code == 0
    assert done.out.splitlines() == [
        "feed/btc is paused: it will restart when it is resumed (kubectl feedmill resume feed/btc)",
        "feed/eth is suspended: it has no pods to restart",
    ]
    assert names.RESTART in annotations(api, "exchangefeeds", "btc")
    assert names.RESTART not in annotations(api, "exchangefeeds", "eth")


TEXT = "kind: ExchangeFeed\n"
HASH = config_hash({"resources.yaml": TEXT})


def prepare(api: Any, kit: Any, *says: Any) -> None:
    """A feed with one receiver for each of ``says``."""
    api.add("exchangefeeds", kit.feed("btc", kit.READY))
    api.add("configmaps", {"metadata": {"name": names.feed_config("btc")}, "data": {"resources.yaml": TEXT}})
    for number, section in enumerate(says):
        api.pod(f"btc-receiver-{number}", "receiver", feed="btc", shard=number)
        api.says(f"btc-receiver-{number}", **({"config": section} if section else {}))


def test_reload_touches_the_pods_and_waits_for_each(api: Any, feedmill: Any, kit: Any) -> None:
    section = {"hash": "old", "error": "", "pending": False}
    prepare(api, kit, {"hash": HASH, "error": "", "pending": False}, section)
    api.pod("main-processor-0", "processor")

    def refresh(item: Any) -> None:
        if item["metadata"]["name"] == "btc-receiver-1":
            section["hash"] = item["metadata"]["annotations"][names.CONFIG_HASH]

    api.changed = refresh
    done = feedmill("reload", "btc")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1] == f"feed/btc: 2 of 2 pods work with configuration {HASH}"
    for number in (0, 1):
        found = annotations(api, "pods", f"btc-receiver-{number}")
        assert found[names.CONFIG_HASH] == HASH
        assert names.RELOAD in found, "the hash alone may stand there already: then nothing would change"
    assert annotations(api, "pods", "main-processor-0") == {}


def test_reload_tells_why_a_pod_stays_behind(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(
        api,
        kit,
        {"hash": "old", "error": "spec.receiver.shards changed from 1 to 2: restart it", "pending": False},
        {"hash": "old", "error": "", "pending": True},
        None,
    )
    silent = api.pod("btc-receiver-9", "receiver", feed="btc", shard=9)
    silent["status"]["podIP"] = ""
    silent["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
    done = feedmill("reload", "btc", "--timeout", "1s")
    assert done.code == 1
    assert done.err.splitlines() == [
        f"feed/btc: 0 of 4 pods work with configuration {HASH}",
        "  btc-receiver-0: stays with old: spec.receiver.shards changed from 1 to 2: restart it",
        "  btc-receiver-1: works with old, is taking the new one up",
        "  btc-receiver-2: does not say which configuration it works with (an older image?)",
        "  btc-receiver-9: ImagePullBackOff",
        "not within 1 s: kubectl feedmill logs feed/btc --level warning tells why",
    ]


def test_reload_without_waiting(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit, None)
    done = feedmill("reload", "btc", "--no-wait")
    assert (done.code, done.out) == (0, f"feed/btc: 1 pods asked to take configuration {HASH}\n")


def test_reload_of_what_cannot(api: Any, feedmill: Any, kit: Any) -> None:
    prepare(api, kit)
    assert "feed/btc has no pods that could reload" in feedmill("reload", "btc").err
    del api.objects["configmaps", "trading", names.feed_config("btc")]
    assert "made no configuration of feed/btc (ConfigMap btc-feed-config)" in feedmill("reload", "btc").err
    feed = api.objects["exchangefeeds", "trading", "btc"]
    feed["metadata"] |= {"generation": 3, "annotations": {names.PAUSE: "true"}}
    done = feedmill("reload", "btc")
    assert done.code == 1
    assert "feed/btc is paused, so its last change is not carried out: kubectl feedmill resume feed/btc" in done.err
    feed["metadata"]["annotations"] = {}
    done = feedmill("reload", "btc", "--timeout", "1s")
    assert done.err.splitlines()[0] == "feed/btc: waiting for the operator to work on the last change"


def test_reload_of_a_pipeline_takes_its_account_receivers_along(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("feedpipelines", kit.pipeline("main", kit.READY))
    hashes = {}
    for name, text in (
        (names.pipeline_config("main"), TEXT),
        (names.accounts_config("main"), "kind: ExchangeAccount\n"),
    ):
        api.add("configmaps", {"metadata": {"name": name}, "data": {"resources.yaml": text}})
        hashes[name] = config_hash({"resources.yaml": text})
    for role, name in (("processor", names.pipeline_config("main")), ("accounts", names.accounts_config("main"))):
        api.pod(f"main-{role}-0", role)
        api.says(f"main-{role}-0", config={"hash": hashes[name], "error": "", "pending": False})
    done = feedmill("reload", "pipeline/main")
    assert done.code == 0, done.err
    both = f"{HASH} (account receivers: {hashes['main-accounts-config']})"
    assert done.err.splitlines()[-1] == f"pipeline/main: 2 of 2 pods work with configuration {both}"
    assert annotations(api, "pods", "main-accounts-0")[names.CONFIG_HASH] == hashes["main-accounts-config"]
    assert annotations(api, "pods", "main-processor-0")[names.CONFIG_HASH] == HASH
