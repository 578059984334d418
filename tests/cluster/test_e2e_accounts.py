"""A real node, the chart, and accounts of exchanges with a ledger: keys are rotated, spoiled, taken away and refused
while orders are filled. No fill may be lost or doubled, and no pod restarted for a key.

``make e2e`` runs it; the order is the file's, since all tests share one running pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterkit import samples
from clusterkit.bed import Bed
from clusterkit.exchange import Exchange
from clusterkit.images import Images
from clusterkit.install import Installed
from clusterkit.plugin import runner
from clusterkit.waiting import until
from clusterkit.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
NAMESPACE = "desk"
PATIENCE = 240.0
"""Seconds: the kubelet takes one for a Secret, and machines are slow."""
ACCOUNTS = {
    "spot": ("binance/Spot", "hmac"),
    "futures": ("binance/UsdM", "ed25519"),
    "options": ("deribit/Derivatives", "hmac"),
}
"""Name -> venue, kind of its key."""


@dataclass(slots=True)
class Desk(Bed):
    """A pipeline that listens to one account of each venue."""

    def keys(self, name: str) -> dict[str, str]:
        """The newest ones, as the files of a Secret."""
        venue, kind = ACCOUNTS[name]
        written = json.loads((self.exchange.folder / "keys.json").read_text())[venue]["accounts"]
        found = [each for each in written if each["type"] == kind][-1]
        return {key: found[key] for key in ("apiKey", "apiSecret", "privateKey") if key in found}

    def ledger_name(self, name: str) -> str:
        """As the exchange calls it."""
        venue, _ = ACCOUNTS[name]
        return str(json.loads((self.exchange.folder / "keys.json").read_text())[venue]["accounts"][0]["account"])

    def change(self, name: str, **fields: Any) -> None:
        """A key at the exchange."""
        body = {"account": self.ledger_name(name), **fields}
        assert self.exchange.ask(ACCOUNTS[name][0], "/_sim/accounts/key", "POST", body)["hit"]

    def write(self, name: str, values: Mapping[str, str]) -> None:
        """Into its Secret, as a user does, who does not want to wait for the kubelet's turn."""
        self.cluster.api.merge("secrets", NAMESPACE, self.secret_of(name), {"stringData": dict(values)})
        done = runner(self.cluster, self.exchange.folder / "bin")("reload", "pipeline/main", "-n", NAMESPACE)
        assert done.returncode == 0, done.stdout + done.stderr

    def secret_of(self, name: str) -> str:
        return f"{name}-key"

    def pools(self) -> list[tuple[str, int]]:
        """(uid, restarts) of each account receiver."""
        return sorted(
            (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"].get("containerStatuses", [])))
            for pod in self.world.pods("accounts")
        )

    def listened(self, *names: str, timeout: float = PATIENCE) -> None:
        for name in names or ACCOUNTS:
            try:
                self.world.wait(f"xa/{self.ledger_name(name)}", timeout=timeout)
            except AssertionError as error:
                health = [self.health(pod) for pod in self.world.pods("accounts")]
                shown = [(each or {}).get("manifests") for each in health]
                raise AssertionError(f"{error}\n{shown}\n{self.trouble()}") from None

    def status(self, name: str) -> dict[str, Any]:
        return self.world.status(f"xa/{self.ledger_name(name)}")

    def said(self, name: str, kind: str, status: str, reason: str, timeout: float = PATIENCE) -> str:
        found = self.world.wait(f"xa/{self.ledger_name(name)}", kind, status, reason=reason, timeout=timeout)
        return str(found["message"])


@pytest.fixture(scope="module")
def desk(installed: Installed, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    cluster, folder = installed.cluster, tmp_path_factory.mktemp("exchange")
    more = ["--accounts", "1", "--account-rate", "3", "--keys", str(folder / "keys.json")]
    exchange = Exchange(folder, cluster.addresses["host"], 10.0, more)
    exchange.start()
    until(lambda: (folder / "keys.json").exists(), 120, what="the keys")
    made = Desk(cluster, World(cluster, NAMESPACE), exchange, images)
    try:
        cluster.kubectl("create", "namespace", NAMESPACE)
        manifests(made, folder)
        cluster.kubectl("apply", "-f", str(folder / "desk.json"))
        yield made
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    finally:
        exchange.stop()


def manifests(desk: Desk, folder: Path) -> None:
    """As a user writes them; the accounts have the ledger's names, so that the two can be compared."""
    servers = {
        "redis": {"managed": {"storage": "1Gi", "memory": "256Mi"}, "circuitBreaker": {"resetTimeout": "2s"}},
        "postgres": {"managed": {"storage": "2Gi"}, "circuitBreaker": {"resetTimeout": "2s"}},
    }
    # Keys are looked at often: the tests change what they may do.
    pool = {"replicas": 1, "permissions": {"checkEvery": "10s"}}
    found = [samples.pipeline("main", NAMESPACE, **servers, accounts=pool, image=desk.images.services[0])]
    for name, (venue, _) in ACCOUNTS.items():
        exchange, market = venue.split("/")
        endpoints = {key: desk.exchange.endpoints[venue][key] for key in ("stream", "rest")}
        where = {"name": exchange, "market": market, "endpoints": endpoints}
        secret = {"name": desk.secret_of(name)}
        found.append(samples.account(desk.ledger_name(name), NAMESPACE, exchange=where, credentialsSecretRef=secret))
    (folder / "desk.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}))


def test_without_their_secrets_they_say_what_is_missing_and_pods_run(desk: Desk) -> None:
    for name in ACCOUNTS:
        assert desk.secret_of(name) in desk.said(name, "Accepted", "False", "SecretNotFound")
    desk.world.wait("fpl/main", "AccountsAvailable", timeout=PATIENCE)


def test_with_them_each_is_listened_to_by_the_pods_that_are_there(desk: Desk) -> None:
    before = desk.pools()
    for name in ACCOUNTS:
        desk.world.secret(desk.secret_of(name), **desk.keys(name))
    desk.listened()
    assert desk.pools() == before
    until(lambda: desk.world.status("fpl/main")["accounts"].get("listening") == 3, PATIENCE, what="three in the status")
    for name in ACCOUNTS:
        until(lambda n=name: desk.status(n).get("lastFill"), PATIENCE, what=f"a fill of {name}")
    # The venue has said what the key may do: it is bound to no address.
    assert "bind it to yours" in desk.said("spot", "KeySound", "False", "KeyWarning")
    # Accounts are heard without its processors.
    desk.world.wait("fpl/main", timeout=PATIENCE)
    done = runner(desk.cluster, desk.exchange.folder / "bin")("status", "-n", NAMESPACE)
    assert done.returncode == 0, done.stdout + done.stderr
    print(desk.cluster.kubectl("get", "exchangeaccounts,feedpipelines", "-n", NAMESPACE).stdout, done.stdout, sep="\n")


def still(count: Callable[[], int], seconds: float = 5.0) -> int:
    """What ``count`` says once it has said the same for so long."""
    seen = [-1]

    def same() -> bool:
        seen.append(count())
        return seen[-1] == seen[-2]

    until(same, PATIENCE, every=seconds, what="a count to stand still")
    return seen[-1]


def test_a_rotated_key_is_taken_up_without_a_restart(desk: Desk) -> None:
    before = desk.pools()
    for name, (venue, kind) in ACCOUNTS.items():
        desk.change(name, rotate=True, seconds=600.0)
        desk.write(name, desk.keys(name))

        def uses(venue: str = venue, kind: str = kind, account: str = desk.ledger_name(name)) -> tuple[int, int]:
            """(of the former key, of the new one)."""
            found = [each for each in desk.exchange.ask(venue, f"/_sim/accounts/keys?account={account}")
                     if each["type"] == kind]  # fmt: skip
            return found[-2]["uses"], found[-1]["uses"]

        until(lambda look=uses: look()[1] > 0, PATIENCE, what=f"the new key of {name} to be used")
        desk.listened(name)
        # What was signed with the former one may be under way still.
        former = still(lambda look=uses: look()[0])
        # From here on the former one is dead, and nobody tries it.
        desk.change(name, replaced=True, seconds=0.0)
        desk.listened(name)
        assert uses()[0] == former
        found = desk.exchange.ask(venue, f"/_sim/accounts/keys?account={desk.ledger_name(name)}")
        assert [each["refused"] for each in found] == [0] * len(found)
    assert desk.pools() == before


def test_a_wrong_key_costs_its_own_account_and_is_named(desk: Desk) -> None:
    before, right = desk.pools(), desk.keys("spot")
    desk.write("spot", {"apiSecret": "wrong" + right["apiSecret"][5:]})
    message = desk.said("spot", "Listening", "False", "RefusedByVenue")
    assert right["apiSecret"][5:] not in message
    events = until(lambda: [each for each in desk.world.events(f"xa/{desk.ledger_name('spot')}")
                            if each["reason"] == "RefusedByVenue"], PATIENCE, what="an Event")  # fmt: skip
    assert events[0]["type"] == "Warning"
    desk.listened("futures", "options")
    desk.write("spot", right)
    desk.listened("spot")
    assert desk.pools() == before


def test_a_key_that_may_withdraw_is_not_used_unless_the_pipeline_says_so(desk: Desk) -> None:
    before = desk.pools()
    desk.change("spot", withdraw=True)
    assert "may withdraw" in desk.said("spot", "Listening", "False", "MayWithdraw")
    assert desk.said("spot", "KeySound", "False", "MayWithdraw")
    desk.world.patch("fpl/main", {"spec": {"accounts": {"permissions": {"withdraw": "Flag"}}}})
    desk.listened("spot")
    assert "may withdraw" in desk.said("spot", "KeySound", "False", "KeyWarning")
    desk.change("spot", withdraw=False)
    desk.world.patch("fpl/main", {"spec": {"accounts": {"permissions": {"withdraw": "Refuse"}}}})
    desk.listened("spot")
    assert desk.pools() == before


def test_a_secret_that_goes_keeps_no_pod_from_starting(desk: Desk) -> None:
    """A drained node, while somebody has deleted the Secret of one account."""
    desk.cluster.api.delete("secrets", NAMESPACE, desk.secret_of("options"))
    desk.said("options", "Accepted", "False", "SecretNotFound")
    before = desk.pools()
    desk.cluster.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=accounts", "-n", NAMESPACE)
    until(lambda: desk.pools() and desk.pools() != before, PATIENCE, what="another pod")
    desk.listened("spot", "futures")
    assert desk.world.condition(f"xa/{desk.ledger_name('options')}", "Ready")["status"] == "False"
    desk.world.secret(desk.secret_of("options"), **desk.keys("options"))
    runner(desk.cluster, desk.exchange.folder / "bin")("reload", "pipeline/main", "-n", NAMESPACE)
    desk.listened("options")


def test_a_suspended_account_is_let_go_and_taken_up_again(desk: Desk) -> None:
    before, what = desk.pools(), f"xa/{desk.ledger_name('futures')}"
    desk.world.patch(what, {"spec": {"suspend": True}})
    desk.said("futures", "Listening", "False", "Suspended")
    desk.world.patch(what, {"spec": {"suspend": False}})
    desk.listened("futures")
    assert desk.pools() == before


def test_after_all_of_it_the_database_equals_the_ledger(desk: Desk) -> None:
    for venue, _ in ACCOUNTS.values():
        desk.exchange.ask(venue, "/_sim/stop?finish=1", "POST")
    # Deribit tells of transfers by REST alone, which is asked when an account is listened to anew.
    desk.exchange.ask(ACCOUNTS["options"][0], "/_sim/fault", "POST", {"kind": "abort", "channel": "Account"})
    url = desk.database_url()

    def wrong() -> list[str]:
        report = desk.exchange.compare(url)
        return (
            []
            if all(each.accounts.ok for each in report.venues)
            else [note for each in report.venues for note in each.notes]
        )

    try:
        until(lambda: not wrong(), PATIENCE, every=2.0, what="the accounts to be as the ledger has them")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *wrong()])) from None
    for venue in desk.exchange.compare(url).venues:
        fills = venue.accounts.flows["fills"]
        counts = f"{fills.emitted} fills emitted, {fills.stored} stored, {fills.lost} lost, {fills.doubled} doubled"
        print(f"{venue.venue}: {counts}")
        assert venue.accounts.known == 1
        assert fills.stored > 10
        assert venue.accounts.dead_letters == 0


def test_a_deleted_account_leaves_the_others_and_what_is_stored(desk: Desk) -> None:
    desk.world.delete(f"xa/{desk.ledger_name('spot')}")
    until(lambda: desk.world.get(f"xa/{desk.ledger_name('spot')}") is None)
    desk.listened("futures", "options")
    until(lambda: desk.world.status("fpl/main")["accounts"].get("listening") == 2, PATIENCE, what="two in the status")
    assert all(each.accounts.ok for each in desk.exchange.compare(desk.database_url()).venues)
