"""CPU and memory of containers, for whatever a user writes and whatever we would take."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from feedmill.resources.common import ResourceRequirements
from feedmill_operator.build.resources import merged

UNITS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMG", 1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(["Ki", "Mi", "Gi"], 1)},
}
QUANTITIES = st.builds(
    lambda number, unit: f"{number}{unit}",
    st.sampled_from(["0", "1", "2", "10", "128", "0.5", "1.25"]),
    st.sampled_from([*UNITS]),
)
AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), QUANTITIES)


def number(quantity: str) -> Decimal:
    digits = quantity.rstrip("mkMGKi")
    return Decimal(digits) * UNITS[quantity.removeprefix(digits)]


def consistent(requests: dict[str, str], limits: dict[str, str]) -> bool:
    return all(number(requests[name]) <= number(limits[name]) for name in requests.keys() & limits.keys())


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_the_users_word_counts_and_no_request_exceeds_a_limit(
    requests: dict[str, str], limits: dict[str, str], our_requests: dict[str, str], our_limits: dict[str, str]
) -> None:
    assume(consistent(requests, limits))
    assume(consistent(our_requests, our_limits))
    wanted = ResourceRequirements(requests=requests, limits=limits)
    made = merged({"requests": our_requests, "limits": our_limits}, wanted)
    got_requests, got_limits = made.get("requests", {}), made.get("limits", {})
    assert got_requests.items() >= requests.items()
    assert got_limits.items() >= limits.items()
    assert consistent(got_requests, got_limits)
    # Nothing is taken away and nothing invented: ours stands wherever it does not contradict.
    assert got_requests.keys() == requests.keys() | our_requests.keys()
    assert got_limits.keys() == limits.keys() | our_limits.keys()
    for name in our_requests.keys() - requests.keys() - limits.keys():
        assert got_requests[name] == our_requests[name]
    for name in our_limits.keys() - requests.keys() - limits.keys():
        assert got_limits[name] == our_limits[name]


@given(AMOUNTS, AMOUNTS)
def test_the_users_own_contradiction_is_left_for_the_api_server_to_refuse(
    requests: dict[str, str], limits: dict[str, str]
) -> None:
    made = merged({}, ResourceRequirements(requests=requests, limits=limits))
    assert made == {kind: each for kind, each in (("requests", requests), ("limits", limits)) if each}
