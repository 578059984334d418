"""The operator reads Secrets to judge them: nothing of their values is in what it makes, says, logs or tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faults.leaks import Scanner, Secret
from flow_world import FEED, FEED_TEXT, PIPELINE, PIPELINE_TEXT, World

PLANTED = {
    "redis password": "Planted-redis-8dTq", "postgres password": "Planted-postgres-c1Zx",
    "KEK": "UGxhbnRlZC1rZWstb2YtdGhpcnR5LXR3by1ieXRlcyE=", "key id": "PlantedKeyIdOfAnAccount31",
    "key secret": "PlantedKeySecretOfAnAccount47", "client id": "PlantedClientId5",
    "client secret": "PlantedClientSecret6",
}  # fmt: skip
ACCOUNT_TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {name: mine, namespace: ns}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  credentialsSecretRef: {name: mine}
"""
ACCOUNT = ("ExchangeAccount", "mine")
GOOD: dict[str, dict[str, str]] = {
    "servers": {
        "redis": f"redis://user:{PLANTED['redis password']}@cache:6379/0",
        "postgres": f"postgresql://user:{PLANTED['postgres password']}@db/feeds",
    },
    "kek": {"kek": f"first {PLANTED['KEK']}\n"},
    "mine": {"apiKey": PLANTED["key id"], "apiSecret": PLANTED["key secret"]},
    "client": {"apiKey": PLANTED["client id"], "apiSecret": PLANTED["client secret"]},
}
ALL = "\n".join(PLANTED.values())
BAD: dict[str, dict[str, dict[str, str]]] = {
    "none": {},
    "a URL of another scheme": {"servers": GOOD["servers"] | {"redis": f"http://u:{PLANTED['redis password']}@h"}},
    "a port that is none": {
        "servers": GOOD["servers"] | {"postgres": f"postgresql://u:{PLANTED['postgres password']}@h:x/d"}
    },
    "a password not encoded": {"servers": GOOD["servers"] | {"redis": f"redis://u:/{PLANTED['redis password']}@h:1/0"}},
    "all in one": {name: dict.fromkeys(keys, ALL) for name, keys in GOOD.items()},
    "values as names": {name: {f"key-{number}": ALL for number, _ in enumerate(keys)} for name, keys in GOOD.items()},
    "both kinds of key": {"mine": GOOD["mine"] | {"privateKey": PLANTED["key secret"]}},
}


def look(world: World, scanner: Scanner) -> None:
    for (kind, _, name), found in world.api.objects.items():
        # What users wrote is theirs; all else the operator made.
        if kind != "Secret":
            scanner.look(f"{kind} {name}", json.dumps(found, default=str))
    scanner.look("events", repr(world.told.events))


@pytest.mark.parametrize("case", BAD)
async def test_nothing_of_a_secret_gets_out(
    world: World, case: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    scanner = Scanner()
    for kind, value in PLANTED.items():
        scanner.plant(Secret(kind, value))
    for name, values in (GOOD | BAD[case]).items():
        await world.secret(values, name)
    client: Any = {"name": "deribit", "market": "Derivatives", "credentialsSecretRef": {"name": "client"}}
    await world.make(PIPELINE_TEXT, accounts={"keyEncryptionSecretRef": {"name": "kek", "key": "kek"}})
    await world.make(FEED_TEXT, exchange=client, instruments={"symbols": ["BTC-PERPETUAL"]})
    await world.make(ACCOUNT_TEXT)
    await world.settle()
    if case == "none":
        await world.migrated()
        await world.rolled_out()
        assert "Deployment" in {kind for kind, _, _ in world.api.objects}
    look(world, scanner)
    for what in (PIPELINE, FEED, ACCOUNT):
        assert world.status(what)["conditions"]
    scanner.look("output", "".join(capfd.readouterr()))
    scanner.look("log", caplog.text)
    assert scanner.leaks == []
    # The Secrets themselves hold them: the scanner knows the form in which they would get out.
    held = [leak.kind for (kind, _, _), found in world.api.objects.items() if kind == "Secret"
            for leak in scanner.look("Secret", json.dumps(found))]  # fmt: skip
    assert set(held) == set(PLANTED)
