"""Every kind of wrong manifest: one line each that names file, line, path, value and what to write instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from feedmill.exchanges.registry import get_venue
from feedmill.resources.checks import Venues
from feedmill.resources.load import MAX_FILE_BYTES, ResourceError, load_files, load_texts

HEAD = "apiVersion: feedmill.dev/v1alpha1\n"
DURATION = "write a whole number and one unit of ms, s, m, h, d, such as 500ms, 30s, 5m, 24h or 30d"
BYTES = "write a number and one unit of Ki, Mi, Gi, Ti, k, M, G, T, such as 64Mi or 1Gi"
LIST = "write a list: [a, b], or one '- item' a line"


def feed(
    *,
    name: str = "spot",
    exchange: str = "{name: binance, market: Spot}",
    instruments: str = "{symbols: [BTC-USDT]}",
    channels: str = "[{name: Trades}]",
    more: str = "",
) -> str:
    """An ExchangeFeed of nine lines: exchange in line 6, instruments in 7, channels in 8, ``more`` from 9 on."""
    return (
        f"{HEAD}kind: ExchangeFeed\nmetadata: {{name: {name}}}\nspec:\n  pipelineRef: {{name: main}}\n"
        f"  exchange: {exchange}\n  instruments: {instruments}\n  channels: {channels}\n{more}"
    )


def receiver(content: str) -> str:
    return feed(more=f"  receiver: {content}\n")


def pipeline(more: str = "", *, redis: str = "{managed: {}}", name: str = "main") -> str:
    """A FeedPipeline of six lines: redis in line 5, ``more`` from 7 on."""
    return (
        f"{HEAD}kind: FeedPipeline\nmetadata: {{name: {name}}}\nspec:\n  redis: {redis}\n"
        f"  postgres: {{managed: {{}}}}\n{more}"
    )


def backup(
    *,
    schedule: str = '"0 3 * * *"',
    destination: str = "{b2: {bucket: bucket1, credentialsSecretRef: {name: b2}}}",
    key: str = "backup-key",
    more: str = "",
) -> str:
    """A FeedPipeline with ``spec.backup`` in line 7."""
    encryption = f"{{keySecretRef: {{name: {key}, key: key}}}}"
    return pipeline(f"  backup: {{schedule: {schedule}, destination: {destination}, encryption: {encryption}{more}}}\n")


def account(
    *,
    name: str = "mine",
    exchange: str = "{name: binance, market: Spot}",
    secret: str = "{name: binance-main}",
    more: str = "",
) -> str:
    """An ExchangeAccount of seven lines: exchange in line 6, the Secret in 7, ``more`` from 8 on."""
    return (
        f"{HEAD}kind: ExchangeAccount\nmetadata: {{name: {name}}}\nspec:\n  pipelineRef: {{name: main}}\n"
        f"  exchange: {exchange}\n  credentialsSecretRef: {secret}\n{more}"
    )


def problems(text: str) -> list[str]:
    with pytest.raises(ResourceError) as caught:
        load_texts({"feed.yaml": text}, local=True)
    return [str(problem) for problem in caught.value.problems]


NOT_YAML = {
    "tab": (
        "a:\n\tb: 1\n",
        "feed.yaml:2: not valid YAML: found character that cannot start any token: indent with spaces",
    ),
    "reserved character": (
        "a:\n  b: @c\n",
        "feed.yaml:2: not valid YAML: found character that cannot start any token: put values",
    ),
    "colon": ("a: b: c\n", "feed.yaml:1: not valid YAML: mapping values are not allowed in this context: check the"),
    "bracket": ("a: [1, 2\nb: 3\n", "feed.yaml:2: not valid YAML: did not find expected ',' or ']': check the"),
    "key twice": (
        feed(more="  suspend: false\n  suspend: true\n"),
        "feed.yaml:10: spec.suspend: the key is given twice (first in line 9): remove one",
    ),
    "alias of itself": ("x: &a [*a]\n", "feed.yaml:1: a YAML alias (*name) contains itself: write the value out"),
    "alias to nothing": ("x: *a\n", "feed.yaml:1: not valid YAML: found undefined alias"),
    "too deep": ("[" * 60 + "]" * 60, "feed.yaml:1: nested deeper than 40 levels: no resource needs that"),
    "aliases that grow": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        "its YAML aliases grow beyond 200000 values: write the values out",
    ),
    "many aliases": (
        "a: &a 1\nb: [" + "*a, " * 300 + "]\n",
        "feed.yaml:2: more than 200 YAML aliases (*name): write the values out",
    ),
    "python object": (
        "a: !!python/object/apply:os.system ['x']\n",
        "feed.yaml:1: apiVersion: is missing or not a word",
    ),
}

NO_RESOURCE = {
    "list": ("- 1\n", "feed.yaml:1: a list is not a resource: write apiVersion, kind, metadata and spec"),
    "word": ("hello\n", 'feed.yaml:1: "hello" is not a resource: write apiVersion, kind, metadata and spec'),
    "nothing": ("", "feed.yaml: holds no ExchangeFeed, ExchangeAccount or FeedPipeline: add one (see examples/)"),
    "only others": ("apiVersion: v1\nkind: Secret\n", "feed.yaml: holds no ExchangeFeed, ExchangeAccount or FeedPip"),
    "no kind": (
        HEAD,
        "feed.yaml:1: kind: is missing or not a word: write one of ExchangeFeed, FeedPipeline, ExchangeAccount",
    ),
    "version": (
        feed().replace("v1alpha1", "v1"),
        'feed.yaml:1: apiVersion: "feedmill.dev/v1" is not known: write feedmill.dev/v1alpha1',
    ),
    "kind": (
        feed().replace("ExchangeFeed", "ExchangeFed"),
        'feed.yaml:2: kind: "ExchangeFed" is not known: did you mean ExchangeFeed?',
    ),
    "kind of a run": (
        feed().replace("ExchangeFeed", "FeedBackup"),
        "feed.yaml:2: kind: FeedBackup is for a cluster, where kubectl applies it: remove it from the files and use "
        "feedmill backup run",
    ),
}

WRONG_FORM = {
    "key misspelt": (feed(more="  recever: {}\n"), '9: spec.recever: unknown key "recever": did you mean receiver?'),
    "key misplaced": (
        feed(more="  maxAge: 1s\n"),
        '9: spec.maxAge: unknown key "maxAge": did you mean spec.receiver.batching.maxAge?',
    ),
    "key in snake case": (
        receiver("{max_age: 1s}"),
        '9: spec.receiver.max_age: unknown key "max_age": did you mean spec.receiver.batching.maxAge?',
    ),
    "key of nobody": (
        feed(more="  colour: red\n"),
        '9: spec.colour: unknown key "colour": remove it (known here: pipelineRef, exchange,',
    ),
    "no value": (
        feed(more="  receiver:\n"),
        "9: spec.receiver: has no value: give one, write {} for an empty mapping, or remove the line",
    ),
    "duration without unit": (
        receiver("{batching: {maxAge: 20}}"),
        f"9: spec.receiver.batching.maxAge: 20 is only a number: {DURATION}",
    ),
    "duration with a space": (
        receiver("{batching: {maxAge: 20 ms}}"),
        f'9: spec.receiver.batching.maxAge: "20 ms" is not a duration: {DURATION}',
    ),
    "duration of zero": (
        receiver("{batching: {maxAge: 0s}}"),
        f'9: spec.receiver.batching.maxAge: "0s" is not a duration: {DURATION}',
    ),
    "quantity": (receiver("{memory: 64MB}"), f'9: spec.receiver.memory: "64MB" is not a number of bytes: {BYTES}'),
    "quantity without quotes": (receiver("{memory: 64}"), f"9: spec.receiver.memory: 64 is only a number: {BYTES}"),
    "slot too short": (
        feed(channels="[{name: Book, sampleInterval: 10ms}]"),
        '8: spec.channels[0].sampleInterval: "10ms" is not a sample interval: write 100ms or longer',
    ),
    "too small": (receiver("{shards: 0}"), "9: spec.receiver.shards: 0 is out of range: write 1 to 64"),
    "too large": (
        feed(channels="[{name: Book, depth: 5000}]"),
        "8: spec.channels[0].depth: 5000 is out of range: write 1 to 1000",
    ),
    "number as text": (
        receiver('{shards: "2"}'),
        '9: spec.receiver.shards: "2" is not of the right form or type: write a whole number without quotes, 1 to 64',
    ),
    "fraction": (
        receiver("{shards: 1.5}"),
        "9: spec.receiver.shards: 1.5 is not of the right form or type: write a whole number, 1 to 64",
    ),
    "octal": (receiver("{shards: 012}"), '9: spec.receiver.shards: "012" is not of the right form'),
    "truth as a number": (
        pipeline("  processor: {replicas: true}\n"),
        "7: spec.processor.replicas: true is not of the right form or type: write a whole number, 1 to 16",
    ),
    "text as truth": (
        feed(more='  suspend: "yes"\n'),
        '9: spec.suspend: "yes" is not of the right form or type: write true or false, without quotes',
    ),
    "choice": (
        receiver("{batching: {mode: latency}}"),
        '9: spec.receiver.batching.mode: "latency" is not known: did you mean Latency? (Adaptive, Latency, Throughput)',
    ),
    "channel": (
        feed(channels="[{name: Trade}]"),
        '8: spec.channels[0].name: "Trade" is not known: did you mean Trades? (Trades, Book, Ticker, Candles)',
    ),
    "word for an object": (
        feed(exchange="binance"),
        '6: spec.exchange: "binance" is not of the right form or type: write a mapping with name, market',
    ),
    "word for a list": (
        feed(instruments="{symbols: BTC-USDT}"),
        f'7: spec.instruments.symbols: "BTC-USDT" is not of the right form or type: {LIST}',
    ),
    "mapping for a list": (
        feed(channels="{name: Trades}"),
        f"8: spec.channels: a mapping is not of the right form or type: {LIST}",
    ),
    "empty list": (feed(instruments="{symbols: []}"), "7: spec.instruments.symbols: is empty: list at least one"),
    "missing": (
        feed(exchange="{name: binance}"),
        "6: spec.exchange.market: is missing: write it in CamelCase, such as Spot",
    ),
    "no name": (
        feed().replace("{name: spot}", "{}"),
        "3: metadata.name: is missing: write a name, such as binance-spot",
    ),
    "symbol": (
        feed(instruments="{symbols: [BTC-USDT, eth/usdt]}"),
        '7: spec.instruments.symbols[1]: "eth/usdt" is not a symbol: write ETH-USDT',
    ),
    "number for a symbol": (
        feed(instruments="{symbols: [1]}"),
        '7: spec.instruments.symbols[0]: 1 is not text: put it in quotes: "1"',
    ),
    "chat id": (
        pipeline("  notifications: {telegram: {botTokenSecretRef: {name: t, key: k}, chatId: -1001}}\n"),
        '7: spec.notifications.telegram.chatId: -1001 is not text: put it in quotes: "-1001"',
    ),
    "cron": (
        backup(schedule="daily"),
        '7: spec.backup.schedule: "daily" is not a schedule: write five cron fields',
    ),
    "cron that never comes": (
        backup(schedule='"61 3 * * *"'),
        '7: spec.backup.schedule: "61 3 * * *" is not a schedule: write five cron fields',
    ),
    "time zone": (
        backup(more=", timeZone: Europe/Berlim"),
        '7: spec.backup.timeZone: "Europe/Berlim" is not a time zone: write UTC or a name such as Europe/Berlin',
    ),
    "hour of a day": (
        pipeline(
            '  notifications: {telegram: {botTokenSecretRef: {name: t, key: k}, chatId: "-1", '
            'quietHours: {from: 24:00, to: "07:00"}}}\n'
        ),
        '7: spec.notifications.telegram.quietHours.from: "24:00" is not a time of day: write hours and minutes, such '
        "as 22:00",
    ),
    "retention": (
        pipeline("  retention: {trades: 90m}\n"),
        '7: spec.retention.trades: "90m" is not a retention: write whole hours or days, such as 36h or 30d',
    ),
    "namespace": (
        feed(name="a, namespace: A_B"),
        '3: metadata.namespace: "A_B" is not of the right form or type: write at most 63 lower-case letters',
    ),
    "URL of another kind": (
        feed(exchange='{name: binance, market: Spot, endpoints: {stream: "http://host"}}'),
        '6: spec.exchange.endpoints.stream: "http://host" is not of the right form or type: write ws:// or wss://',
    ),
    "secret in an account": (
        account(more="  apiSecret: hunter2222\n"),
        '8: spec.apiSecret: unknown key "apiSecret": secrets stay out of manifests, put it into a Secret and name that '
        "in credentialsSecretRef",
    ),
    "policy": (
        pipeline("  accounts: {permissions: {withdraw: Allow}}\n"),
        '7: spec.accounts.permissions.withdraw: "Allow" is not known: write one of Refuse, Flag',
    ),
    "looked at too often": (
        pipeline("  accounts: {permissions: {checkEvery: 5s}}\n"),
        '7: spec.accounts.permissions.checkEvery: "5s" is not an interval: write 10s or longer in s, m, h or d',
    ),
    "key for the accounts without its key": (
        pipeline("  accounts: {keyEncryptionSecretRef: {name: kek}}\n"),
        "7: spec.accounts.keyEncryptionSecretRef.key: is missing: write the key's name inside the Secret",
    ),
    "pod quantity": (
        receiver("{resources: {limits: {memory: lots}}}"),
        '9: spec.receiver.resources.limits.memory: "lots" is not of the right form or type: write a Kubernetes',
    ),
}

AGAINST_A_RULE = {
    "name": (feed(name="My_Feed"), '3: metadata.name: "My_Feed": the name must be 1 to 40 lower-case letters'),
    "long name": (feed(name="a" * 41), "the name must be 1 to 40 lower-case letters"),
    "depth for trades": (
        feed(channels="[{name: Trades, depth: 5}]"),
        "8: spec.channels[0].depth: 5: depth is only for the channel Book: remove it",
    ),
    "slot for trades": (
        feed(channels="[{name: Trades, sampleInterval: 1s}]"),
        '8: spec.channels[0].sampleInterval: "1s": sampleInterval is only for the channel Book: remove it',
    ),
    "interval for trades": (
        feed(channels="[{name: Trades, interval: 1m}]"),
        '8: spec.channels[0].interval: "1m": interval is only for the channel Candles: remove it',
    ),
    "candles without interval": (
        feed(channels="[{name: Candles}]"),
        "8: spec.channels[0]: the channel Candles needs an interval: add interval: 1m",
    ),
    "channel twice": (
        feed(channels="[{name: Trades}, {name: Trades}]"),
        "8: spec.channels: each channel may be listed once (Candles: once per interval)",
    ),
    "symbol twice": (
        feed(instruments="{symbols: [BTC-USDT, BTC-USDT]}"),
        '7: spec.instruments.symbols[1]: "BTC-USDT" is listed twice (first as symbols[0]): remove one',
    ),
    "no instruments": (feed(instruments="{}"), "7: spec.instruments: give exactly one of symbols and select"),
    "both": (
        feed(instruments="{symbols: [BTC-USDT], select: {base: [BTC]}}"),
        "7: spec.instruments: give exactly one of symbols and select",
    ),
    "empty selection": (
        feed(instruments="{select: {}}"),
        "7: spec.instruments.select: give at least one criterion of types, base, quote, expiresWithin",
    ),
    "empty endpoints": (
        feed(exchange="{name: binance, market: Spot, endpoints: {}}"),
        "6: spec.exchange.endpoints: give stream, rest or both",
    ),
    "no server": (
        pipeline(redis="{}"),
        "5: spec.redis: give exactly one of urlSecretRef (a server of your own) and managed",
    ),
    "two servers": (
        pipeline(redis="{managed: {}, urlSecretRef: {name: a, key: b}}"),
        "5: spec.redis: give exactly one of urlSecretRef",
    ),
    "replicas of a managed server": (
        pipeline(redis="{managed: {}, confirm: {replicas: 1}}"),
        "5: spec.redis.confirm: a managed Redis has no replicas that could confirm: remove confirm, or give a server "
        "of your own (urlSecretRef)",
    ),
    "tls for a managed server": (
        pipeline(redis="{managed: {}, tls: {caSecretRef: {name: a, key: b}}}"),
        "5: spec.redis.tls: tls is only for a server of your own (urlSecretRef): remove it",
    ),
    "no 1m": (pipeline("  candles: {intervals: [5m]}\n"), "7: spec.candles.intervals: 1m must be among the intervals"),
    "no place for backups": (
        backup(destination="{}"),
        "7: spec.backup.destination: give exactly one of b2, s3 and folder",
    ),
    "two places for backups": (
        backup(destination="{folder: {path: /b}, b2: {bucket: bucket1, credentialsSecretRef: {name: b2}}}"),
        "7: spec.backup.destination: give exactly one of b2, s3 and folder",
    ),
    "key beside the credentials": (
        backup(key="b2"),
        "7: spec.backup.encryption.keySecretRef: the key and the credentials of the destination must not be in one "
        "Secret",
    ),
    "volume at a relative path": (
        backup(destination="{folder: {path: backups, claimName: disk}}"),
        '7: spec.backup.destination.folder.path: "backups": path must be absolute',
    ),
    "quiet hours of no length": (
        pipeline(
            '  notifications: {telegram: {botTokenSecretRef: {name: t, key: k}, chatId: "-1", '
            'quietHours: {from: "22:00", to: "22:00"}}}\n'
        ),
        '7: spec.notifications.telegram.quietHours.to: "22:00": from and to are the same',
    ),
    "nobody to tell": (pipeline("  notifications: {}\n"), "7: spec.notifications: name where to send to (telegram)"),
}

AGAINST_THE_VENUE = {
    "exchange": (
        feed(exchange="{name: binnance, market: Spot}"),
        '6: spec.exchange.name: "binnance" is not an exchange this installation knows: did you mean binance?',
    ),
    "market": (
        feed(exchange="{name: binance, market: Futures}"),
        '6: spec.exchange.market: "Futures" is not a market of binance: write one of Spot, UsdM',
    ),
    "symbol": (
        feed(instruments="{symbols: [BTCUSDT]}"),
        '7: spec.instruments.symbols[0]: "BTCUSDT" is not a symbol of binance/Spot: write BTC-USDT',
    ),
    "interval": (
        feed(channels="[{name: Candles, interval: 7m}]"),
        '8: spec.channels[0].interval: "7m" is not a candle of binance/Spot: write one of 1s, 1m,',
    ),
    "list read too often": (
        feed(instruments="{select: {base: [BTC], refreshInterval: 5s}}"),
        '7: spec.instruments.select.refreshInterval: "5s" is not an interval: write 10s or longer in s, m or h, '
        "such as 30s, 5m or 1h",
    ),
    "shards without symbols": (
        receiver("{shards: 2}"),
        "9: spec.receiver.shards: 2 shards for 1 symbol: some would be empty, write fewer",
    ),
    "pipeline": (
        f"{feed()}---\n{pipeline(name='mian')}",
        '5: spec.pipelineRef.name: "main": no FeedPipeline of that name in namespace default: did you mean mian?',
    ),
    "pipeline elsewhere": (
        f"{feed(name='a, namespace: x')}---\n{pipeline()}",
        "it is in namespace default: a feed and its pipeline share one namespace",
    ),
    "exchange of an account": (
        account(exchange="{name: binnance, market: Spot}"),
        '6: spec.exchange.name: "binnance" is not an exchange this installation knows: did you mean binance?',
    ),
    "market of an account": (
        account(exchange="{name: deribit, market: Spot}"),
        '6: spec.exchange.market: "Spot" is not a market of deribit: write one of Derivatives',
    ),
    "pipeline of an account": (
        f"{account()}---\n{pipeline(name='mian')}",
        '5: spec.pipelineRef.name: "main": no FeedPipeline of that name in namespace default: did you mean mian?',
    ),
    "pipeline of an account elsewhere": (
        f"{account(name='a, namespace: x')}---\n{pipeline()}",
        "it is in namespace default: an account and its pipeline share one namespace",
    ),
    "account twice": (
        f"{account()}---\n{account()}",
        '11: metadata.name: "mine": another ExchangeAccount of that name is in feed.yaml:3: rename or remove one',
    ),
    "name twice": (
        f"{feed()}---\n{feed()}",
        '12: metadata.name: "spot": another ExchangeFeed of that name is in feed.yaml:3: rename or remove one',
    ),
}

CASES = NOT_YAML | NO_RESOURCE | WRONG_FORM | AGAINST_A_RULE | AGAINST_THE_VENUE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(*case, id=f"{group}: {name}")
        for group, cases in (
            ("yaml", NOT_YAML),
            ("kind", NO_RESOURCE),
            ("form", WRONG_FORM),
            ("rule", AGAINST_A_RULE),
            ("whole", AGAINST_THE_VENUE),
        )
        for name, case in cases.items()
    ],
)
def test_one_problem_one_line_with_place_and_remedy(text: str, said: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith("feed.yaml")
    assert said in found[0]


def test_all_problems_are_listed_at_once_in_order_of_the_lines() -> None:
    wrong = feed(
        name="Bad_Name",
        instruments="{symbols: [eth/usdt, BTC-USDT, BTC-USDT]}",
        channels="[{name: Trade}, {name: Book, depth: 0}]",
        more="  receiver: {memory: 1GB, batching: {maxAge: 5}}\n  colour: red\n",
    )
    broken = pipeline("  retention: {trades: 1m}\n", redis="{}")
    with pytest.raises(ResourceError) as caught:
        load_texts({"b.yaml": broken, "a.yaml": f"{wrong}---\n{feed(name='two', instruments='{symbols: [BTCUSDT]}')}"})
    shown = str(caught.value).splitlines()
    assert shown[0] == "11 problems in the resources:"
    places = [line.strip().split(": ")[:2] for line in shown[1:]]
    assert places == [
        ["a.yaml:3", "metadata.name"],
        ["a.yaml:7", "spec.instruments.symbols[0]"],
        ["a.yaml:7", "spec.instruments.symbols[2]"],
        ["a.yaml:8", "spec.channels[0].name"],
        ["a.yaml:8", "spec.channels[1].depth"],
        ["a.yaml:9", "spec.receiver.batching.maxAge"],
        ["a.yaml:9", "spec.receiver.memory"],
        ["a.yaml:10", "spec.colour"],
        ["a.yaml:18", "spec.instruments.symbols[0]"],
        ["b.yaml:5", "spec.redis"],
        ["b.yaml:7", "spec.retention.trades"],
    ]


def test_what_the_venue_says_is_listed_beside_what_the_form_says() -> None:
    wrong = feed(
        instruments="{symbols: [BTCUSDT, eth/usdt, BTC-USDT]}",
        channels="[{name: Trades, depth: 5}, {name: Candles, interval: 7m}]",
        more="  colour: red\n  receiver: {shards: 9, memory: 1GB}\n",
    )
    places = [line.split(": ")[1] for line in problems(wrong)]
    assert places == [
        "spec.instruments.symbols[0]",
        "spec.instruments.symbols[1]",
        "spec.channels[0].depth",
        "spec.channels[1].interval",
        "spec.colour",
        "spec.receiver.memory",
        "spec.receiver.shards",
    ]


@pytest.mark.parametrize(
    "text",
    [
        pipeline(redis="{url: 'redis://:hunter2222@host:6379/0'}"),
        pipeline(redis="{urlSecretRef: 'redis://:hunter2222@host:6379/0'}"),
        pipeline(redis="{urlSecretRef: {name: 'redis://:hunter2222@host', key: url}}"),
        pipeline("  notifications: {telegram: {botTokenSecretRef: hunter2222, chatId: '-1001'}}\n"),
        feed(exchange="{name: binance, market: Spot, endpoints: {stream: 'wss://me:hunter2222@host/ws'}}"),
        feed(exchange="{name: binance, market: Spot, credentialsSecretRef: hunter2222}"),
        feed(exchange="{name: binance, market: Spot, apiKey: hunter2222}"),
        account(secret="hunter2222"),
        account(secret="{name: 'hunter2222 '}"),
        account(more="  privateKey: hunter2222\n"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(text: str) -> None:
    found = problems(text)
    assert found
    assert "hunter2222" not in " ".join(found)


def test_a_url_in_the_manifest_is_sent_to_a_secret() -> None:
    assert problems(pipeline(redis="{url: 'redis://h/0'}")) == [
        'feed.yaml:5: spec.redis.url: unknown key "url": secrets stay out of manifests, put it into a Secret and name '
        "that in urlSecretRef"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"kind: ExchangeFeed\nname: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "lost.yaml").symlink_to(tmp_path / "gone.yaml")
    names = ["missing.yaml", "empty", "latin.yaml", "huge.yaml", "loop.yaml", "lost.yaml", "/dev/null"]
    with pytest.raises(ResourceError) as caught:
        load_files([tmp_path / name for name in names], local=True)
    said = {Path(problem.file).name: problem.message for problem in caught.value.problems}
    absent = "there is no such file or folder: check the path (relative paths count from the working directory)"
    assert said["missing.yaml"] == said["lost.yaml"] == absent
    assert said["empty"] == "the folder holds no .yaml or .yml file"
    assert said["latin.yaml"] == "is not UTF-8 text: save it as UTF-8"
    assert said["huge.yaml"].startswith("is larger than 1048576 bytes")
    assert said["null"] == "is not a regular file"
    assert said["loop.yaml"]
    assert {problem.line for problem in caught.value.problems if problem.file.endswith("latin.yaml")} == {2}


def test_a_market_whose_accounts_cannot_be_listened_to() -> None:
    venue = replace(get_venue("binance", "Spot"), accounts=None)
    venues = Venues(lambda: ["binance/Spot"], lambda exchange, market: venue)
    with pytest.raises(ResourceError) as caught:
        load_texts({"feed.yaml": account()}, local=True, venues=venues)
    assert [str(problem) for problem in caught.value.problems] == [
        'feed.yaml:6: spec.exchange.market: "Spot": accounts of binance/Spot cannot be listened to by this installation'
    ]
    # Its public data can be.
    assert load_texts({"feed.yaml": feed()}, local=True, venues=venues).feeds


def test_an_account_and_a_feed_may_have_one_name() -> None:
    found = load_texts({"feed.yaml": f"{feed(name='spot')}---\n{account(name='spot')}"}, local=True)
    assert list(found.feeds) == list(found.accounts) == [("default", "spot")]
    assert list(found.pipelines) == [("default", "main")]
    (pipeline,) = found.pipelines.values()
    assert found.accounts_of(pipeline) == list(found.accounts.values())
