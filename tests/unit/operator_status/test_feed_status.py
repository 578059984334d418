"""What is said of a feed, fact by fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from status_facts import LATER, NOW, after, feed, fresh_pod, good, role, rollout, shown

from feedmill.resources.status import FeedStatus
from feedmill_operator.reconcile.answer import Connection, Server
from feedmill_operator.reconcile.facts import FeedFacts, Role
from feedmill_operator.reconcile.pods import ContainerFacts
from feedmill_operator.reconcile.reasons import Reason, Type
from feedmill_operator.reconcile.status import feed_status
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal

GOOD = {
    "Ready": "True/AllAvailable",
    "Accepted": "True/Valid",
    "Progressing": "False/Reconciled",
    "ReceiverAvailable": "True/Available",
    "DistributorAvailable": "True/Available",
    "RedisReachable": "True/Reachable",
    "DataFresh": "True/Fresh",
    "Suspended": "False/NotSuspended",
    "Paused": "False/NotPaused",
}


def said(facts: FeedFacts, kind: Type) -> str:
    return next(str(c["message"]) for c in feed_status(facts, NOW)["conditions"] if c["type"] == kind)


def crashing(name: str = "spot-receiver-0-x", shard: int = 0, words: str = "boom", code: int = 1) -> Any:
    container = ContainerFacts("c", waiting="CrashLoopBackOff", exit_code=code, exit_message=words, restarts=3)
    return fresh_pod(name, shard, ready=False, containers=(container,))


DOWN = rollout(ready=0)
NEW = rollout(ready=0, complete=False)
STARTING = fresh_pod("spot-receiver-0-x", ready=False)
UNREACHABLE = Connection("stream-0", host="stream.example.com:443", cause="dns", detail="no such name", fresh=False)
SILENT = Connection("stream-0", open=True, fresh=False, age="10 minutes")
YOUNG = Connection("stream-0", open=True)
LACKING = Connection("stream-0", open=True, fresh=True, silent=("b@trade",))
MISSING = Refusal(Reason.SECRET_NOT_FOUND, "there is no Secret x")

CASES: list[tuple[str, FeedFacts, dict[str, str]]] = [
    ("good", feed(), {}),
    ("refused-running", feed(refusal=MISSING), {
        "Ready": "False/SecretNotFound", "Accepted": "False/SecretNotFound", "Progressing": "False/NotAccepted",
    }),
    ("refused-nothing-there", feed(refusal=MISSING, receiver=Role(), distributor=Role()), {
        "Ready": "False/SecretNotFound", "Accepted": "False/SecretNotFound", "Progressing": "False/NotAccepted",
        "ReceiverAvailable": "False/NotAccepted", "DistributorAvailable": "False/NotAccepted",
        "RedisReachable": "Unknown/NobodyAnswered", "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("suspended", feed(suspended=True, receiver=Role(), distributor=Role()), {
        "Ready": "False/Suspended", "Progressing": "False/Suspended", "ReceiverAvailable": "False/Suspended",
        "DistributorAvailable": "False/Suspended", "RedisReachable": "Unknown/NobodyAnswered",
        "DataFresh": "False/Suspended", "Suspended": "True/Suspended",
    }),
    ("suspending", feed(suspended=True, receiver=Role((), (fresh_pod("p"),)), distributor=Role()), {
        "Ready": "False/Suspended", "Progressing": "True/RollingOut", "ReceiverAvailable": "False/Suspended",
        "DistributorAvailable": "False/Suspended", "RedisReachable": "Unknown/NobodyAnswered",
        "DataFresh": "Unknown/NobodyAnswered", "Suspended": "True/Suspended",
    }),
    ("starting", feed(receiver=role(NEW, pods=(STARTING,), answers={})), {
        "Ready": "False/Starting", "Progressing": "True/RollingOut", "ReceiverAvailable": "False/Starting",
        "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("not-there", feed(receiver=role(rollout(exists=False, ready=0, replicas=0, updated=0, complete=False), pods=())), {
        "Ready": "False/Starting", "Progressing": "True/RollingOut", "ReceiverAvailable": "False/Starting",
        "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("crash-loop", feed(receiver=role(NEW, pods=(crashing(),), answers={})), {
        "Ready": "False/CrashLooping", "Progressing": "True/CrashLooping", "ReceiverAvailable": "False/CrashLooping",
        "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("one-of-two-shards", feed(receiver=role(
        rollout(), rollout("spot-receiver-1", 1, ready=0), pods=(fresh_pod("a", 0), crashing("b", 1)),
        answers={"a": good()},
    )), {
        "Ready": "False/CrashLooping", "Progressing": "True/CrashLooping", "ReceiverAvailable": "False/CrashLooping",
        "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("quota", feed(receiver=role(rollout(ready=0, replicas=0, updated=0, complete=False,
                                         refused="exceeded quota: pods"), pods=())), {
        "Ready": "False/QuotaExceeded", "Progressing": "True/QuotaExceeded", "ReceiverAvailable": "False/QuotaExceeded",
        "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("distributor-down", feed(distributor=role(rollout("d", ready=0), pods=(crashing("d-x"),), answers={})), {
        "Ready": "False/CrashLooping", "Progressing": "True/CrashLooping", "DistributorAvailable": "False/CrashLooping",
    }),
    ("exchange-unreachable", feed(receiver=role(NEW, pods=(STARTING,), answers=good(
        ready=False, waiting_for="connection: backoff", connections=(UNREACHABLE,)))), {
        "Ready": "False/ExchangeUnreachable", "Progressing": "True/RollingOut",
        "ReceiverAvailable": "False/ExchangeUnreachable", "DataFresh": "False/ExchangeUnreachable",
    }),
    ("says-why", feed(receiver=role(DOWN, pods=(STARTING,), answers=good(
        ready=False, waiting_for="3 topics wait", connections=(YOUNG,)))), {
        "Ready": "False/NotReady", "Progressing": "True/RollingOut", "ReceiverAvailable": "False/NotReady",
        "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("accepted-none", feed(receiver=role(DOWN, pods=(STARTING,), answers=good(
        ready=False, waiting_for="the venue accepted none of its topics", rejected=("x@trade",)))), {
        "Ready": "False/TopicsRejected", "Progressing": "True/RollingOut", "ReceiverAvailable": "False/TopicsRejected",
        "DataFresh": "False/TopicsRejected",
    }),
    ("stale", feed(receiver=role(rollout(), answers=good(connections=(SILENT,)))), {"DataFresh": "False/Stale"}),
    ("some-topics-refused", feed(receiver=role(rollout(), answers=good(rejected=("x@trade",)))), {
        "DataFresh": "False/TopicsRejected",
    }),
    ("redis-away", feed(
        receiver=role(rollout(), answers=good(redis=Server(False, "refused", "closed"))),
        distributor=role(rollout("d"), answers=good(redis=Server(False, "refused", "closed"))),
    ), {"Ready": "False/Unreachable", "RedisReachable": "False/Unreachable"}),
    ("breaker", feed(
        receiver=role(rollout(), answers=good(redis=Server(False, "refused", "open"))),
        distributor=role(rollout("d"), answers=good(redis=Server())),
    ), {"Ready": "False/BreakerOpen", "RedisReachable": "False/BreakerOpen"}),
    ("redis-away-for-one", feed(receiver=role(rollout(), answers=good(redis=Server(False, "refused")))), {}),
    ("nobody-answers", feed(receiver=role(rollout(), answers={}), distributor=role(rollout("d"), answers={})), {
        "RedisReachable": "Unknown/NobodyAnswered", "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("config-pending", feed(receiver=role(rollout(), answers=good(config_hash="old"))), {
        "Ready": "False/ConfigPending", "Progressing": "True/ConfigPending",
    }),
    ("config-rejected", feed(receiver=role(rollout(), answers=good(config_hash="old", config_error="no depth"))), {
        "Ready": "False/ConfigRejected", "Progressing": "True/ConfigRejected",
    }),
    ("refused-by-server", feed(problems=(Trouble(Reason.OBJECT_REFUSED, "the API server refuses it"),)), {
        "Ready": "False/ObjectRefused", "Progressing": "False/ObjectRefused",
    }),
    ("failed", feed(failure="the API server answered 500"), {
        "Ready": "False/ReconcileFailed", "Progressing": "True/ReconcileFailed",
    }),
    ("stalled", feed(receiver=role(rollout(updated=0, complete=False, stalled="timed out"))), {
        "Ready": "False/RolloutStalled", "Progressing": "False/RolloutStalled",
    }),
    ("paused-at-once", feed(paused=True), {
        "Ready": "False/Paused", "Progressing": "False/Paused", "Paused": "True/Paused",
    }),
    # What was ready before.
    ("later-rollout", after(feed(), receiver=role(rollout(updated=0, current=False))), {
        "Progressing": "True/RollingOut",
    }),
    ("later-crash-of-the-new", after(feed(), receiver=role(
        rollout(updated=0, complete=False), pods=(fresh_pod("a"), crashing("b")), answers={"a": good()})), {
        "Progressing": "True/CrashLooping",
    }),
    ("later-loss-of-one-of-two", after(feed(receiver=role(rollout(wanted=2))), receiver=role(
        rollout(wanted=2, ready=1))), {}),
    ("later-loss", after(feed(), receiver=role(DOWN, pods=(STARTING,), answers={})), {
        "Ready": "False/NotReady", "ReceiverAvailable": "False/NotReady", "DataFresh": "Unknown/NobodyAnswered",
    }),
    ("later-failure", after(feed(), failure="the API server answered 500"), {"Progressing": "True/ReconcileFailed"}),
    ("later-paused", after(feed(), paused=True), {"Progressing": "False/Paused", "Paused": "True/Paused"}),
    ("new-generation-rolls", after(feed(), generation=2, receiver=role(rollout(current=False, updated=0))), {
        "Ready": "False/RollingOut", "Progressing": "True/RollingOut",
    }),
    ("new-generation-waits-for-all", after(
        feed(receiver=role(rollout(wanted=2))), generation=2, receiver=role(rollout(wanted=2, ready=1))), {
        "Ready": "False/RollingOut", "Progressing": "True/RollingOut",
    }),
    ("new-generation-reloads", after(feed(), generation=2, config_hash="new"), {
        "Ready": "False/ConfigPending", "Progressing": "True/ConfigPending",
    }),
    ("new-generation-in-force", after(feed(), generation=2), {}),
    ("new-generation-while-paused", after(feed(), generation=2, paused=True), {
        "Ready": "False/Paused", "Progressing": "False/Paused", "Paused": "True/Paused",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "differs"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_conditions(facts: FeedFacts, differs: dict[str, str]) -> None:
    status = feed_status(facts, NOW)
    assert shown(status) == {**GOOD, **differs}
    assert all(item["observedGeneration"] == facts.generation for item in status["conditions"])
    # The schema takes it, and whatever is wrong is said in words.
    FeedStatus.model_validate(status)
    for item in status["conditions"]:
        if item["reason"] not in ("NotSuspended", "NotPaused"):
            assert item["message"]


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        (CASES[1][1], Type.READY, ["there is no Secret x"]),
        (feed(receiver=role(NEW, pods=(crashing(code=2, words="spec.x: no"),), answers={})), Type.READY,
         ["no receiver is ready", "cannot use its configuration", "spec.x: no", "kubectl -n ns logs"]),
        (CASES[8][1], Type.READY, ["of shard 1", "boom"]),
        (CASES[11][1], Type.DATA_FRESH, ["stream.example.com:443", "dns", "no such name", "DNS"]),
        (feed(receiver=role(rollout(), answers=good(connections=(replace(UNREACHABLE, cause="rate_limited"),)))),
         Type.DATA_FRESH, ["limits this address", "spec.egress"]),
        (feed(receiver=role(rollout(), answers=good(connections=(SILENT,)))), Type.DATA_FRESH, ["than 10 minutes"]),
        (feed(receiver=role(rollout(), answers=good(rejected=("b", "a")))), Type.DATA_FRESH, ["refused a, b"]),
        (feed(receiver=role(rollout(), answers=good(redis=Server(False, "NOAUTH")))), Type.REDIS_REACHABLE,
         ["some processes", "NOAUTH"]),
        (feed(receiver=role(rollout(), answers=good(config_hash="old", config_error="no depth"))), Type.PROGRESSING,
         ["pod spot-receiver-0-x", "no depth", "stays in force"]),
        (feed(receiver=role(rollout(updated=0, complete=False, stalled="timed out"))), Type.READY,
         ["timed out", "describe deployment spot-receiver-0"]),
    ],
)  # fmt: skip
def test_messages_say_what_is_wrong_and_what_to_do(facts: FeedFacts, kind: Type, words: list[str]) -> None:
    text = said(facts, kind)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (feed(), "Fresh"),
        (feed(receiver=role(rollout(), answers=good(connections=(SILENT,)))), "Stale"),
        (feed(receiver=role(rollout(), answers=good(rejected=("a",)))), "Partial"),
        (feed(receiver=role(rollout(), answers={})), "Unknown"),
        (feed(receiver=role(rollout(), answers=good(connections=()))), "Unknown"),
        (feed(receiver=role(rollout(), answers=good(connections=(YOUNG,)))), "Unknown"),
        (feed(suspended=True, receiver=Role(), distributor=Role()), "Suspended"),
        # One of two shards.
        (feed(receiver=role(rollout(), rollout("b", 1), pods=(fresh_pod("a", 0), fresh_pod("b", 1)),
                            answers={"a": good(), "b": good(connections=(SILENT,))})), "Partial"),
        (feed(receiver=role(rollout(), rollout("b", 1), pods=(fresh_pod("a", 0), fresh_pod("b", 1)),
                            answers={"a": good()})), "Unknown"),
        # One of two replicas is enough.
        (feed(receiver=role(rollout(wanted=2), pods=(fresh_pod("a"), fresh_pod("b")),
                            answers={"a": good(), "b": good(connections=(UNREACHABLE,))})), "Fresh"),
        # A young one may turn out well.
        (feed(receiver=role(rollout(wanted=2), pods=(fresh_pod("a"), fresh_pod("b")),
                            answers={"a": good(connections=(YOUNG,)), "b": good(connections=(SILENT,))})), "Unknown"),
        # One of two connections of a receiver.
        (feed(receiver=role(rollout(), answers=good(
            connections=(Connection("a", open=True, fresh=True), replace(SILENT, name="b"))))), "Stale"),
        # One topic of many: by what all receivers of the shard miss.
        (feed(receiver=role(rollout(), answers=good(connections=(LACKING,)))), "Partial"),
        (feed(receiver=role(rollout(wanted=2), pods=(fresh_pod("a"), fresh_pod("b")),
                            answers={"a": good(), "b": good(connections=(LACKING,))})), "Fresh"),
    ],
)  # fmt: skip
def test_data_in_a_word(facts: FeedFacts, word: str) -> None:
    status = feed_status(facts, NOW)
    assert status["data"] == word
    fresh = shown(status)["DataFresh"].partition("/")[0]
    assert fresh == {"Fresh": "True", "Unknown": "Unknown"}.get(word, "False")


@pytest.mark.parametrize(
    ("distributor", "lag"),
    [
        (role(rollout("d")), "<1s"),
        (role(rollout("d"), answers={}), None),
        (role(rollout("d"), answers=good(lag=None)), None),
        (role(rollout("d", 0), rollout("e", 1), pods=(fresh_pod("d", 0), fresh_pod("e", 1)),
              answers={"d": good(lag="<1m"), "e": good(lag="<10s")}), "<1m"),
        (role(rollout("d", 0), rollout("e", 1), pods=(fresh_pod("d", 0), fresh_pod("e", 1)),
              answers={"d": good(lag="<1m")}), None),
        (role(rollout("d", wanted=2), pods=(fresh_pod("a"), fresh_pod("b")),
              answers={"a": good(lag=">=10m"), "b": good(lag=None, standby=True)}), ">=10m"),
        (role(rollout("d"), answers=good(lag=None, standby=True)), None),
    ],
)  # fmt: skip
def test_lag_is_unknown_unless_it_is_known_of_every_shard(distributor: Role, lag: str | None) -> None:
    assert feed_status(feed(distributor=distributor), NOW).get("lag") == lag


def test_counts() -> None:
    facts = feed(
        receiver=role(rollout(wanted=2, ready=1, updated=2), rollout("b", 1), answers={}),
        distributor=role(rollout("d"), answers=good(config_hash="old")),
    )
    status = feed_status(facts, NOW)
    assert status["receiver"] == {"replicas": 3, "updated": 3, "ready": 2}
    assert status["distributor"] == {"replicas": 1, "updated": 1, "ready": 1}
    # Who did not say has not acknowledged.
    assert status["config"]["pods"] == 3
    assert status["config"]["acknowledged"] == 0
    assert status["instruments"] == 2
    assert feed_status(feed(), NOW)["config"]["acknowledged"] == 2


def test_only_so_many_topics_are_listed() -> None:
    many = tuple(f"t{number:02}" for number in range(30))
    status = feed_status(feed(receiver=role(rollout(), answers=good(rejected=many))), NOW)
    assert status["rejected"] == list(many[:20])


def test_the_time_of_a_transition_stays_while_the_status_does() -> None:
    facts = after(feed(), receiver=role(DOWN, pods=(STARTING,), answers={}))
    times = {item["type"]: item["lastTransitionTime"] for item in feed_status(facts, LATER)["conditions"]}
    moved = {kind for kind, time in times.items() if time == LATER}
    assert moved == {"Ready", "ReceiverAvailable", "DataFresh"}
    assert all(time == NOW for kind, time in times.items() if kind not in moved)


def test_a_paused_object_keeps_the_generation_that_was_worked_on() -> None:
    assert feed_status(after(feed(), generation=2, paused=True), LATER)["observedGeneration"] == 1
    assert feed_status(after(feed(), generation=2), LATER)["observedGeneration"] == 2
