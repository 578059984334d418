"""How fast something grows, whatever single samples say: the median slope of all pairs (Theil and Sen). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

POINTS = 300
"""Beyond that many samples neighbours are joined to their median first: pairs grow with the square."""

Sample = tuple[float, float]
"""(time, value)."""


def thin(samples: Sequence[Sample], points: int = POINTS) -> list[Sample]:
    """At most ``points`` samples, each the median of those it stands for."""
    if len(samples) <= points:
        return list(samples)
    made: list[Sample] = []
    for number in range(points):
        part = samples[number * len(samples) // points : (number + 1) * len(samples) // points]
        made.append((median(at for at, _ in part), median(value for _, value in part)))
    return made


def theil_sen(samples: Sequence[Sample]) -> float:
    """Growth per unit of time; 0 where there is nothing to compare. A third of the samples may be anything."""
    found = thin(samples)
    slopes = [
        (later - value) / (then - at)
        for place, (at, value) in enumerate(found)
        for then, later in found[place + 1 :]
        if then > at
    ]
    return median(slopes) if slopes else 0.0
