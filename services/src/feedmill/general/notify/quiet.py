"""Quiet hours: when a notice may be sent. Pure; times are ns since the epoch, hours those of the given zone's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND


@dataclass(frozen=True, slots=True)
class QuietTimes:
    """``begin`` and ``end`` are minutes after midnight; ``end`` before ``begin`` = on the next day."""

    begin: int
    end: int
    zone: tzinfo

    def until(self, at_ns: int) -> int | None:
        """When the quiet hours around ``at_ns`` end; None = they are not now."""
        local = datetime.fromtimestamp(at_ns // SECOND, self.zone)
        minute = local.hour * 60 + local.minute
        over_midnight = self.end < self.begin
        inside = minute >= self.begin or minute < self.end if over_midnight else self.begin <= minute < self.end
        if not inside:
            return None
        day = local.date() + timedelta(days=int(over_midnight and minute >= self.begin))
        wall = datetime(day.year, day.month, day.day, self.end // 60, self.end % 60, tzinfo=self.zone)
        first, second = (round(wall.replace(fold=fold).timestamp()) for fold in (0, 1))
        if second < first:
            # The clock is set forward over the end, which it never shows: they end where it jumps.
            return _jump(second, first, self.zone) * SECOND
        # Where it is set back over the end it shows that twice.
        return (first if first * SECOND > at_ns else second) * SECOND


def _jump(low: int, high: int, zone: tzinfo) -> int:
    """When, of these seconds, the clock of a zone jumps."""
    before = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def not_before(severity: Severity, at_ns: int, quiet: QuietTimes | None) -> int:
    """When a notice may be sent at the earliest, as seen at ``at_ns``; 0 = at once."""
    if quiet is None or severity is Severity.CRITICAL:
        return 0
    return quiet.until(at_ns) or 0
