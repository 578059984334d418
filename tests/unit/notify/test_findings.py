"""What health documents and tables show to be wrong; and that silence is no reason to call something well."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.general.notify import of_processes, of_tables
from feedmill.general.notify.notices import Finding, Look, Notice
from feedmill.general.notify.of_tables import OpenGaps, Tables
from feedmill.general.notify.settings import notify_settings, read_token
from feedmill.general.notify.texts import block_of
from feedmill.plan import Workload
from feedmill.resources.load import load_texts
from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND
from feedmill.shared.config import ConfigError

PIPELINE = "default/main"
FEED = "default/spot"
NOW = 1_790_000_000 * SECOND
HOUR = 3600 * SECOND
MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  notifications:
    telegram:
      botTokenSecretRef: {name: telegram, key: token}
      chatId: "-1001"
      accountEvents: [Fills]
      quietHours: {from: "22:00", to: "07:00", timeZone: Europe/Berlin}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT]}
  channels: [{name: Trades}]
  receiver: {replicas: 2}
"""
KEY = ("default", "main")
RECEIVER = Workload("receiver", "spot-receiver-0-0", (), KEY, ("default", "spot"), 0, "r0")
SECOND_RECEIVER = Workload("receiver", "spot-receiver-0-1", (), KEY, ("default", "spot"), 0, "r1")
PROCESSOR = Workload("processor", "main-processor-0", (), KEY, replica="r0")


def process(service: str, **sections: Any) -> dict[str, Any]:
    own = {"pid": 1, "version": "1", "pipeline": PIPELINE}
    if service in ("receiver", "distributor"):
        own |= {"feed": FEED, "shard": 0}
    return {"service": service, "ready": True, "waitingFor": {}, "process": own, **sections}


def connection(**more: Any) -> dict[str, Any]:
    own = {
        "state": "open",
        "topics": 1,
        "openSeconds": 500.0,
        "lastDataSeconds": 0.1,
        "active": 1,
        "freshSeconds": 60.0,
    }
    return {**own, "silentTopics": 0, "silent": [], **more}


def broken(**failure: str) -> dict[str, Any]:
    return {"state": "backoff", "topics": 1, "failure": {"host": "stream.example.com", "cause": "refused", **failure}}


def judged(documents: list[dict[str, Any]], *expected: Workload) -> dict[str, Finding]:
    found = of_processes.judge(PIPELINE, expected, documents).findings
    assert len({finding.key for finding in found}) == len(found)
    for finding in found:
        assert block_of([Notice(finding.kind, Severity.WARNING, finding.subject, finding.key, finding.body)]).title
    return {finding.key: finding for finding in found}


def test_all_is_well() -> None:
    receiver = process(
        "receiver", connections={"stream": connection()}, breaker={"state": "closed"}, spill={"state": "idle"}
    )
    processor = process("processor", breaker={"redis": {"state": "closed"}, "postgres": {"state": "closed"}},
                        lag={"seconds": 0.2}, postgres={"reachable": True}, config={"error": ""})  # fmt: skip
    assert judged([receiver, processor], RECEIVER, PROCESSOR) == {}


def test_a_feed_is_stale_when_none_of_its_receivers_has_data() -> None:
    bad = process("receiver", connections={"stream": broken(detail="errno 111")})
    silent = process("receiver", connections={"stream": connection(lastDataSeconds=61.0)})
    well = process("receiver", connections={"stream": connection()})
    assert "FeedStale/default/spot/0" not in judged([bad, well], RECEIVER, SECOND_RECEIVER)
    found = judged([bad, silent], RECEIVER, SECOND_RECEIVER)["FeedStale/default/spot/0"]
    assert found.subject == FEED
    assert found.body["why"] == [
        "cannot reach stream.example.com: refused (errno 111)", "connection stream: silent for 61 s"
    ]  # fmt: skip


def test_a_quiet_market_is_judged_by_what_is_usual_of_it() -> None:
    quiet = process("receiver", connections={"stream": connection(lastDataSeconds=299.0, freshSeconds=300.0)})
    assert judged([quiet], RECEIVER) == {}
    young = process("receiver", connections={"stream": connection(openSeconds=10.0, lastDataSeconds=None)})
    assert judged([young], RECEIVER) == {}
    never = process("receiver", connections={"stream": connection(openSeconds=60.0, lastDataSeconds=None)})
    assert "FeedStale/default/spot/0" in judged([never], RECEIVER)


def test_a_receiver_that_could_not_begin_is_stale() -> None:
    waits = process("receiver", connections={}, waitingFor={"capturing": "no list of instruments yet"})
    assert judged([waits], RECEIVER)["FeedStale/default/spot/0"].body["why"] == ["no list of instruments yet"]


def test_processes_that_do_not_answer_are_missed_and_not_called_stale() -> None:
    look = of_processes.judge(PIPELINE, [RECEIVER, SECOND_RECEIVER, PROCESSOR], [process("processor")])
    [down] = look.findings
    assert (down.kind, down.key, down.subject) == ("ProcessDown", "ProcessDown/receiver/default/spot/0", FEED)
    assert down.body == {"role": "receiver", "wanted": 2, "found": 0, "shard": 0}
    assert "FeedStale/default/spot/0" in look.blind
    assert "Spilling/default/spot/0" in look.blind


def test_nobody_answers_is_one_finding_and_blindness_for_the_rest() -> None:
    other = process("receiver")
    other["process"]["pipeline"] = "default/another"
    look = of_processes.judge(PIPELINE, [RECEIVER, PROCESSOR], [other])
    assert [finding.key for finding in look.findings] == ["ProcessDown"]
    assert all("ServerAway/redis".startswith(look.blind) for _ in range(1))
    assert not "ProcessDown".startswith(look.blind)


def test_a_server_that_several_cannot_reach_is_one_finding() -> None:
    receiver = process("receiver", connections={"s": connection()}, breaker={"state": "open", "lastError": "refused"})
    processor = process(
        "processor",
        breaker={"redis": {"state": "half-open", "lastError": "timeout"}, "postgres": {"state": "closed"}},
        postgres={"reachable": False, "lastError": "the disk is full", "remedy": "make room"},
    )
    found = judged([receiver, processor], RECEIVER, PROCESSOR)
    assert set(found) == {"ServerAway/redis", "ServerAway/postgres"}
    assert found["ServerAway/redis"].body["away"] == 2
    assert found["ServerAway/redis"].body["processes"] == ["receiver default/spot/0", "processor"]
    assert found["ServerAway/postgres"].body == {
        "away": 1, "processes": ["processor"], "error": "the disk is full", "remedy": "make room"
    }  # fmt: skip


def test_the_breaker_of_one_that_stands_by_is_of_a_former_time() -> None:
    opened = {"state": "open", "lastError": "refused"}
    distributor = process("distributor", breaker=opened, dispatch={"standby": True}, lease={"held": False})
    processor = process("processor", breaker={"redis": opened, "postgres": opened}, leases={"held": 0})
    assert judged([distributor, processor]) == {}
    assert set(judged([processor | {"redis": {"reachable": False, "lastError": "refused"}}])) == {"ServerAway/redis"}
    assert set(judged([process("processor", breaker={"postgres": opened}, leases={"held": 1})])) == {
        "ServerAway/postgres"
    }


def test_spills_lag_topics_manifests_and_secrets() -> None:
    receiver = process(
        "receiver",
        connections={"s": connection(silentTopics=2, silent=[{"topic": "btcusdt@trade"}, {"topic": "ethusdt@trade"}])},
        spill={"state": "spilling", "unsentBytes": 10, "oldestSeconds": 3.5},
        config={"error": "feed.yaml:3: no such channel"},
        secrets={"redis": {"state": "refused", "error": "WRONGPASS"}},
    )
    no_room = {"state": "full", "problem": "disk full", "shedding": True, "shedFrames": 7}
    full = process("receiver", connections={"s": connection(silentTopics=1)}, spill=no_room)
    processor = process("processor", lag={"seconds": 61.4})
    found = judged([receiver, full, processor], RECEIVER, SECOND_RECEIVER, PROCESSOR)
    assert set(found) == {
        "TopicSilent/default/spot/0", "Spilling/default/spot/0", "SpillFull/default/spot/0", "Lagging/processor",
        "ConfigRefused", "SecretRefused/redis",
    }  # fmt: skip
    # One of two receivers hears all but one.
    assert found["TopicSilent/default/spot/0"].body["topics"] == 1
    assert found["SpillFull/default/spot/0"].body["frames"] == 7
    assert found["Lagging/processor"].body["seconds"] == 61


def test_who_stands_by_is_not_behind() -> None:
    standby = process("distributor", lag={"seconds": 900.0}, dispatch={"standby": True}, lease={"held": False})
    idle = process("processor", lag={"seconds": 900.0}, leases={"held": 0})
    assert judged([standby, idle]) == {}
    works = process("distributor", lag={"seconds": 900.0}, dispatch={"standby": True}, lease={"held": True})
    assert set(judged([works])) == {"Lagging/distributor"}


def test_accounts_that_only_the_user_can_help() -> None:
    problems = {
        "default/a": {"state": "refused", "why": "the key may withdraw"},
        "default/b": {"state": "connecting", "why": "the venue rests"},
        "default/c": {"state": "waiting", "why": "Secret 'c' does not exist"},
    }
    found = judged([process("accounts", accounts={"problems": problems})])
    assert [(finding.subject, finding.body["why"]) for finding in found.values()] == [
        ("default/a", "the key may withdraw"), ("default/c", "Secret 'c' does not exist")
    ]  # fmt: skip
    assert "AccountProblem/" in of_processes.judge(PIPELINE, [], [process("processor")]).blind


@pytest.mark.parametrize("odd", [None, 3, "text", [], {"x": 3}, {"x": None}, {"x": []}])
def test_sections_of_another_form_are_unknown(odd: Any) -> None:
    sections = (
        "connections",
        "breaker",
        "lag",
        "spill",
        "config",
        "secrets",
        "accounts",
        "redis",
        "postgres",
        "waitingFor",
    )
    documents = [process(role, **dict.fromkeys(sections, odd)) for role in ("receiver", "processor", "accounts")]
    of_processes.judge(PIPELINE, [RECEIVER, PROCESSOR], documents)


def gaps(shard: str, channel: str = "Trades", **more: Any) -> OpenGaps:
    told: dict[str, Any] = {"cause": "sequence", "gaps": 1, "missing": 5, "instruments": 1, "symbols": ("BTC-USDT",),
                            "since_ns": NOW - 60 * SECOND, **more}  # fmt: skip
    return OpenGaps(shard, channel, **told)


def of(tables: Tables, schedule: tuple[str, str] | None = None, now: int = NOW) -> Look:
    return of_tables.judge(PIPELINE, {FEED}, schedule, tables, now)


def test_open_gaps_are_one_finding_a_feed() -> None:
    rows = [
        gaps("default.spot.0"),
        gaps("default.spot.1", gaps=2, since_ns=NOW - 90 * SECOND, symbols=("ETH-USDT",)),
        gaps("default.spot.0", "Ticker", missing=0),
        gaps("default.@desk.0", "Account", missing=0, symbols=()),
        gaps("default.other.0"),
    ]
    found = {finding.key: finding for finding in of(Tables(gaps=rows)).findings}
    assert set(found) == {"GapOpen/default/spot", "GapOpen/default/@desk"}
    spot = found["GapOpen/default/spot"]
    assert spot.since_ns == NOW - 90 * SECOND
    assert spot.body["channels"] == [
        {"channel": "Ticker", "cause": "sequence", "gaps": 1, "missing": 0, "instruments": 1, "symbols": ["BTC-USDT"]},
        {"channel": "Trades", "cause": "sequence", "gaps": 3, "missing": 10, "instruments": 2,
         "symbols": ["BTC-USDT", "ETH-USDT"]},
    ]  # fmt: skip
    text = block_of([Notice("GapOpen", Severity.WARNING, FEED, "k", spot.body)])
    assert "Trades: 3 gaps (sequence), 10 trades missing: BTC-USDT, ETH-USDT" in text.lines


def test_keys_that_expire_soon() -> None:
    keys = [("default/a", NOW + 6 * 24 * HOUR), ("default/b", NOW + 8 * 24 * HOUR)]
    assert [finding.subject for finding in of(Tables(keys=keys)).findings] == ["default/a"]


def test_backups_are_overdue_when_two_times_have_passed() -> None:
    # Each day at 3:00 UTC; now is 14:13.
    day, three = 24 * HOUR, NOW - NOW % (24 * HOUR) + 3 * HOUR
    schedule = ("0 3 * * *", "UTC")

    def stale(**tables: Any) -> bool:
        return any(finding.kind == "BackupStale" for finding in of(Tables(**tables), schedule).findings)

    assert not stale(backup_ns=three + SECOND)
    assert not stale(backup_ns=three - day + SECOND)
    assert stale(backup_ns=three - day - SECOND, backup_error="the store is away")
    assert not stale(first_ns=NOW - HOUR)
    assert stale(first_ns=three - day - SECOND)
    assert not stale()
    # The newest may still be running.
    just_after = of_tables.judge(PIPELINE, (), schedule, Tables(backup_ns=three - 2 * day + SECOND), three + HOUR // 2)
    assert just_after.findings == ()
    assert of(Tables(backup_ns=0)).findings == ()


def test_maintenance_that_does_not_run() -> None:
    assert of(Tables(maintained_ns=NOW - 23 * HOUR)).findings == ()
    assert [finding.kind for finding in of(Tables(maintained_ns=NOW - 25 * HOUR)).findings] == ["MaintenanceStale"]
    assert of(Tables()).findings == ()


def test_settings_of_a_manifest(tmp_path: Any) -> None:
    resources = load_texts({"feed.yaml": MANIFEST}, local=True)
    settings = notify_settings(resources, resources.pipelines[KEY])
    assert (settings.pipeline, settings.chat, settings.per_minute) == (PIPELINE, "-1001", 20)
    assert settings.base_url == "https://api.telegram.org"
    assert {"GapOpen", "Fill"} <= settings.kinds
    assert not {"DataLost", "Order"} & settings.kinds
    assert settings.feeds == (FEED,)
    assert settings.quiet is not None
    assert (settings.quiet.begin, settings.quiet.end) == (22 * 60, 7 * 60)
    assert sorted(load.role for load in settings.expected) == ["distributor", "processor", "receiver", "receiver"]
    (tmp_path / "telegram").mkdir()
    token = tmp_path / "telegram" / "token"
    token.write_text("123456:AAbb-cc_dd\n")
    assert read_token(settings, tmp_path).get_secret_value() == "123456:AAbb-cc_dd"
    for bad in ("AAbb", "123456:", "abc:AA", "123456:AA/../getMe", "123456:AA bb"):
        token.write_text(bad)
        with pytest.raises(ConfigError, match="holds no bot token") as failed:
            read_token(settings, tmp_path)
        assert bad not in str(failed.value)
    with pytest.raises(ConfigError, match="give --secrets-dir"):
        read_token(settings, None)
    token.unlink()
    with pytest.raises(ConfigError, match="botTokenSecretRef"):
        read_token(settings, tmp_path)


def test_a_pipeline_that_tells_nobody() -> None:
    resources = load_texts({"feed.yaml": MANIFEST}, local=True)
    pipeline = resources.pipelines[KEY]
    quiet = pipeline.model_copy(update={"spec": pipeline.spec.model_copy(update={"notifications": None})})
    with pytest.raises(ConfigError, match=r"spec\.notifications\.telegram"):
        notify_settings(resources, quiet)


def test_maintenance_that_failed_and_what_it_found() -> None:
    found = [
        {"kind": "unused_index", "subject": "trades_x", "text": "never used", "remedy": "drop it"},
        {"kind": "wraparound", "subject": "trades", "text": "1.9 billion", "remedy": "vacuum it"},
    ]
    report = {"outcome": "partly", "errors": {"retention": "a lock"}, "findings": found}
    findings = {finding.key: finding for finding in of(Tables(maintenance=report)).findings}
    assert set(findings) == {"MaintenanceFailed", "DatabaseTrouble/wraparound/trades"}
    assert findings["MaintenanceFailed"].body == {"errors": {"retention": "a lock"}}
    assert of(Tables(maintenance={"outcome": "succeeded", "errors": None, "findings": None})).findings == ()
