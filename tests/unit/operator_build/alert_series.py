"""Series that make each alert fire for an hour and resolve afterwards, as promtool writes them: a value a minute."""

from __future__ import annotations

from dataclasses import dataclass, field

HOUR, REST = 60, 45
CHOSEN = 'namespace="feeds", feedmill_dev_pipeline="main"'


def of(component: str, more: str = "", pod: str = "") -> str:
    """Labels of a pod of the pipeline."""
    text = f'{{{CHOSEN}, pod="{pod or component + "-1"}", app_kubernetes_io_component="{component}"'
    return f"{text}, {more}}}" if more else text + "}"


SHARD = 'feedmill_dev_feed="btc", feedmill_dev_shard="0"'
OTHER_SHARD = 'feedmill_dev_feed="deribit", feedmill_dev_shard="0"'
RECEIVER, DISTRIBUTOR, PROCESSOR, ACCOUNTS = (
    of("receiver", SHARD),
    of("distributor", SHARD),
    of("processor"),
    of("accounts"),
)
OTHER_RECEIVER, OTHER_DISTRIBUTOR = (
    of("receiver", OTHER_SHARD, "deribit-1"),
    of("distributor", OTHER_SHARD, "deribit-2"),
)
BACKUP, NOTIFY = of("backup"), of("notify")
UP, DOWN, NONE = f"1x{HOUR + REST}", f"0x{HOUR} 1x{REST}", f"_x{HOUR} 1x{REST}"
"""Always; away for an hour and back; not there for an hour."""


def operator(number: int, more: str = "") -> str:
    pod = f'namespace="feedmill-system", pod="feedmill-operator-5d4f-x2x{number}"'
    return f"{{{pod}, {more}}}" if more else f"{{{pod}}}"


def hour(value: float, after: float = 0) -> str:
    """A value for an hour, then another."""
    return f"{value}x{HOUR} {after}x{REST}"


def rising(by: int = 1) -> str:
    """A counter that rises for an hour, from a 0 that was scraped."""
    return f"0+{by}x{HOUR} {by * HOUR}x{REST}"


BORN = f"_x50 1x{HOUR - 50 + REST}"
"""A series that begins with its first event, 50 minutes after the beginning."""
BORN_AGAIN = f"3x29 _x16 1x{HOUR - 46 + REST}"
"""One of a process that began anew after 30 minutes and counts its first event 16 minutes later."""
BY_TURNS = " ".join(["2 0"] * (HOUR // 2)), " ".join(["0 2"] * (HOUR // 2))
"""Two series of which always one is 2, for an hour."""
UNKNOWN = " ".join(["NaN"] * (HOUR + REST))
HEALTHY = {
    "up" + RECEIVER: UP,
    "up" + DISTRIBUTOR: UP,
    "up" + OTHER_RECEIVER: UP,
    "up" + OTHER_DISTRIBUTOR: UP,
    "up" + PROCESSOR: UP,
    "up" + ACCOUNTS: UP,
    "up" + BACKUP: UP,
    "up" + NOTIFY: UP,
    "feedmill_operator_leader" + operator(1): UP,
    "feedmill_operator_leader" + operator(2): f"0x{HOUR + REST}",
    "feedmill_database_maintained_timestamp_seconds" + PROCESSOR: f"0+60x{HOUR + REST}",
    "feedmill_backup_wal_streaming" + BACKUP: UP,
    "feedmill_backup_store_up" + BACKUP: UP,
}


@dataclass(frozen=True, slots=True)
class Case:
    """``series``: beside, or instead of, those of HEALTHY. ``firing``: after 55 minutes, as often as
    each does; none does 40 minutes later."""

    name: str
    series: dict[str, str] = field(default_factory=dict)
    firing: tuple[str, ...] = ()


def _of_database(metric: str, kind: str) -> str:
    return f"feedmill_database_backup_{metric}" + of("processor", f'kind="{kind}"')


def _counter(name: str, pod: str, labels: str = "") -> str:
    return name + (pod[:-1] + f", {labels}}}" if labels else pod)


CASES = (
    Case("all is well"),
    Case("a receiver is away", {"up" + RECEIVER: DOWN}, ("FeedmillReceiverAbsent", "FeedmillPodDown")),
    Case("a receiver is not there", {"up" + RECEIVER: NONE}, ("FeedmillReceiverAbsent",)),
    Case("a distributor is away", {"up" + DISTRIBUTOR: DOWN}, ("FeedmillDistributorAbsent", "FeedmillPodDown")),
    Case(
        "no feed has a pod",
        {"up" + pod: NONE for pod in (RECEIVER, DISTRIBUTOR, OTHER_RECEIVER, OTHER_DISTRIBUTOR)},
        ("FeedmillReceiverAbsent",) * 2,
    ),
    Case("one of two feeds has no pod", {"up" + RECEIVER: NONE, "up" + DISTRIBUTOR: NONE}, ("FeedmillReceiverAbsent",)),
    Case("no processor is there", {"up" + PROCESSOR: NONE}, ("FeedmillProcessorAbsent",)),
    Case("a processor is away", {"up" + PROCESSOR: DOWN}, ("FeedmillProcessorAbsent", "FeedmillPodDown")),
    Case("no account receiver is there", {"up" + ACCOUNTS: NONE}, ("FeedmillAccountsAbsent",)),
    Case("nothing uploads the log", {"up" + BACKUP: NONE}, ("FeedmillBackupLogAbsent",)),
    Case("nobody tells", {"up" + NOTIFY: NONE}, ("FeedmillNotifierAbsent",)),
    Case(
        "a second replica makes good for the first",
        {"up" + RECEIVER: DOWN, "up" + of("receiver", SHARD, "receiver-2"): UP},
        ("FeedmillPodDown",),
    ),
    *(
        Case(
            f"accounts are {state}",
            {f'feedmill_account_accounts{ACCOUNTS[:-1]}, exchange="b", market="Spot", state="{state}"}}': hour(2)},
            (firing,),
        )
        for state, firing in (
            ("refused", "FeedmillAccountsRefused"),
            ("waiting", "FeedmillAccountsNotListening"),
            ("connecting", "FeedmillAccountsNotListening"),
        )
    ),
    Case(
        "accounts wait and connect by turns",
        {
            f'feedmill_account_accounts{ACCOUNTS[:-1]}, exchange="b", market="Spot", state="{state}"}}': values
            for state, values in zip(("waiting", "connecting"), BY_TURNS, strict=True)
        },
        ("FeedmillAccountsNotListening",),
    ),
    Case(
        "a pod begins anew again and again",
        {"process_start_time_seconds" + RECEIVER: f"0+0x30 1 2 3 4x{REST + 26}"},
        ("FeedmillPodRestarting",),
    ),
    Case("a pod began anew once", {"process_start_time_seconds" + RECEIVER: f"0+0x40 1x{REST + 20}"}),
    Case(
        "nothing is captured",
        {"feedmill_receiver_connections" + RECEIVER: hour(0, 1)},
        ("FeedmillReceiverNotCapturing",),
    ),
    Case("an account receiver has no connections of feeds", {"feedmill_receiver_connections" + ACCOUNTS: UNKNOWN}),
    Case(
        "a breaker is open", {"feedmill_receiver_breaker_state" + RECEIVER: hour(2)}, ("FeedmillReceiverBreakerOpen",)
    ),
    Case(
        "a breaker is open and tries now and then",
        {"feedmill_receiver_breaker_state" + RECEIVER: " ".join(["2 1"] * (HOUR // 2)) + f" 0x{REST}"},
        ("FeedmillReceiverBreakerOpen",),
    ),
    Case("a spill is in use", {"feedmill_receiver_spill_state" + RECEIVER: hour(1)}, ("FeedmillSpillInUse",)),
    Case("a spill takes nothing", {"feedmill_receiver_spill_state" + RECEIVER: hour(2)}, ("FeedmillSpillFilling",)),
    Case(
        "a spill fills",
        {
            "feedmill_receiver_spill_bytes" + RECEIVER: hour(8, 1),
            "feedmill_receiver_spill_limit_bytes" + RECEIVER: hour(10, 10),
        },
        ("FeedmillSpillFilling",),
    ),
    Case(
        "topics are silent",
        {_counter("feedmill_receiver_silent_topics", RECEIVER, 'channel="Book"'): hour(3)},
        ("FeedmillTopicSilent",),
    ),
    Case("frames are shed", {"feedmill_receiver_shed_frames_total" + RECEIVER: rising()}, ("FeedmillShedding",)),
    Case(
        "memory is nearly used up",
        {
            "feedmill_receiver_buffered_bytes" + RECEIVER: hour(8, 1),
            "feedmill_receiver_budget_bytes" + RECEIVER: hour(10, 10),
        },
        ("FeedmillMemoryNearBound",),
    ),
    Case(
        "Redis is nearly full",
        {"feedmill_distributor_redis_memory_ratio" + DISTRIBUTOR: hour(0.9, 0.5)},
        ("FeedmillRedisNearlyFull",),
    ),
    Case(
        "trades are given up",
        {"feedmill_distributor_given_up_trades_total" + DISTRIBUTOR: rising()},
        ("FeedmillBackfillGivenUp",),
    ),
    Case(
        "gaps are given up", {"feedmill_processor_given_up_gaps_total" + PROCESSOR: BORN}, ("FeedmillBackfillGivenUp",)
    ),
    Case(
        "a distributor is behind",
        {"feedmill_distributor_lag_seconds" + DISTRIBUTOR: hour(11)},
        ("FeedmillDistributorLag",),
    ),
    Case(
        "a processor is behind",
        {_counter("feedmill_processor_lag_seconds", PROCESSOR, 'shard="a.b.0"'): hour(31)},
        ("FeedmillProcessorLag",),
    ),
    Case(
        "how far behind is not known",
        {_counter("feedmill_processor_lag_seconds", PROCESSOR, 'shard="a.b.0"'): UNKNOWN},
    ),
    Case(
        "a server is away",
        {_counter("feedmill_processor_server_up", PROCESSOR, 'server="redis"'): hour(0, 1)},
        ("FeedmillProcessorServerDown",),
    ),
    Case(
        "gaps opened long ago and the pod was not scraped for a while",
        {
            _counter(
                "feedmill_distributor_gaps_total", DISTRIBUTOR, 'channel="Trades", cause="shed"'
            ): f"3x35 _x6 3x{REST + 19}"
        },
    ),
    Case(
        "gaps open",
        {_counter("feedmill_distributor_gaps_total", DISTRIBUTOR, 'channel="Trades", cause="shed"'): BORN},
        ("FeedmillGaps",),
    ),
    Case(
        "gaps open some time after the process began anew",
        {_counter("feedmill_distributor_gaps_total", DISTRIBUTOR, 'channel="Trades", cause="shed"'): BORN_AGAIN},
        ("FeedmillGaps",),
    ),
    *(
        Case(
            f"dead letters of {service}",
            {_counter(f"feedmill_{service}_dead_letters_total", pod, labels): values},
            ("FeedmillDeadLetters",),
        )
        for service, pod, labels, values in (
            ("distributor", DISTRIBUTOR, 'reason="bad_json"', BORN),
            ("processor", PROCESSOR, 'reason="refused"', BORN),
            ("account", ACCOUNTS, "", rising()),
        )
    ),
    *(
        Case(
            f"a configuration is {outcome}",
            {_counter("feedmill_config_reloads_total", RECEIVER, f'outcome="{outcome}"'): BORN},
            firing,
        )
        for outcome, firing in (
            ("refused", ("FeedmillConfigRefused",)),
            ("failed", ("FeedmillConfigRefused",)),
            ("applied", ()),
        )
    ),
    Case("a backup failed", {_of_database("failed", "logical"): hour(1)}, ("FeedmillBackupFailed",)),
    Case("a drill failed", {_of_database("failed", "drill"): hour(1)}, ("FeedmillDrillFailed",)),
    Case(
        "the log is not received", {"feedmill_backup_wal_streaming" + BACKUP: hour(0, 1)}, ("FeedmillBackupLogStopped",)
    ),
    Case("no log is to be received", {"feedmill_backup_wal_streaming" + BACKUP: UNKNOWN}),
    Case(
        "the log waits",
        {
            "feedmill_backup_wal_spool_bytes" + BACKUP: hour(8, 1),
            "feedmill_backup_wal_spool_limit_bytes" + BACKUP: hour(10, 10),
        },
        ("FeedmillBackupLogWaits",),
    ),
    Case("the destination is away", {"feedmill_backup_store_up" + BACKUP: hour(0, 1)}, ("FeedmillBackupStoreAway",)),
    Case("a chat refuses", {"feedmill_notify_blocked" + NOTIFY: hour(1)}, ("FeedmillNotifyFailing",)),
    Case(
        "a chat does not answer",
        {_counter("feedmill_notify_messages_total", NOTIFY, 'outcome="away"'): rising()},
        ("FeedmillNotifyFailing",),
    ),
    Case(
        "a chat answers now and then",
        {
            _counter("feedmill_notify_messages_total", NOTIFY, f'outcome="{outcome}"'): rising()
            for outcome in ("away", "sent")
        },
    ),
    Case("no operator works", {"feedmill_operator_leader" + operator(1): DOWN}, ("FeedmillOperatorAbsent",)),
    Case(
        "an operator is deaf",
        {"feedmill_operator_watch_probe_age_seconds" + operator(1): f"5x30 30+60x30 5x{REST}"},
        ("FeedmillOperatorDeaf",),
    ),
    Case(
        "an operator fails again and again",
        {"feedmill_operator_reconcile_seconds_count" + operator(1, 'kind="ExchangeFeed", result="failed"'): rising()},
        ("FeedmillOperatorReconcileErrors",),
    ),
)
LATE = (
    Case(
        "a backup is overdue",
        {_of_database("overdue_seconds", "logical"): f"0+60x90 0x{REST}"},
        ("FeedmillBackupOverdue",),
    ),
    Case(
        "a drill is overdue", {_of_database("overdue_seconds", "drill"): f"0+60x90 0x{REST}"}, ("FeedmillDrillOverdue",)
    ),
    Case(
        "maintenance fails",
        {"feedmill_database_maintained_timestamp_seconds" + PROCESSOR: f"500x90 500+60x{REST}"},
        ("FeedmillMaintenanceFailing",),
    ),
)
"""Those that wait longer: they fire after 85 minutes."""
