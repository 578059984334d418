"""Scalar types of the manifests: durations, byte quantities, enumerations."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from feedmill.resources.cron import parse_cron, zone_of

_UNIT_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_UNIT_BYTES = {
    "": 1,
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
}


class PatternStr(str):
    """A string of a fixed form; building one of another form raises ValueError."""

    __slots__ = ()
    pattern: ClassVar[str]
    meaning: ClassVar[str]
    """What it is and how to write it, for messages."""

    def __new__(cls, text: str) -> Self:
        if re.fullmatch(cls.pattern, text, re.ASCII) is None or text.endswith("\n"):
            raise ValueError(f"{text!r} is not {cls.meaning}")
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(pattern=cls.pattern),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )


class Duration(PatternStr):
    """A positive length of time: a whole number and one unit of ms, s, m, h, d (``500ms``, ``24h``)."""

    __slots__ = ()
    pattern = r"^[1-9][0-9]{0,8}(ms|s|m|h|d)$"
    meaning = "a duration: write a whole number and one unit of ms, s, m, h, d, such as 500ms, 30s, 5m, 24h or 30d"

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        number, unit = _split(self)
        return float(number * _UNIT_SECONDS[unit])

    @property
    def milliseconds(self) -> int:
        """Length in whole milliseconds (exact)."""
        number, unit = _split(self)
        return int(number * _UNIT_SECONDS[unit] * 1000)


class SampleInterval(Duration):
    """Slot of book snapshots: 100ms at least, hours at most."""

    __slots__ = ()
    pattern = r"^([1-9][0-9]{2,5}ms|[1-9][0-9]{0,4}s|[1-9][0-9]{0,2}m|[1-9]h)$"
    meaning = "a sample interval: write 100ms or longer in ms, s, m or h, such as 500ms, 1s or 1m"


class RefreshInterval(Duration):
    """How often something is asked for: 10s at least, days at most."""

    __slots__ = ()
    pattern = r"^([1-9][0-9]{1,4}s|[1-9][0-9]{0,3}m|[1-9][0-9]?h)$"
    meaning = "an interval: write 10s or longer in s, m or h, such as 30s, 5m or 1h"


class CheckInterval(Duration):
    """How often something is looked at again: 10s at least, days at most."""

    __slots__ = ()
    pattern = r"^([1-9][0-9]{1,4}s|[1-9][0-9]{0,3}m|[1-9][0-9]{0,2}h|[1-9][0-9]?d)$"
    meaning = "an interval: write 10s or longer in s, m, h or d, such as 10m, 24h or 7d"


class KeepFor(Duration):
    """How long data is kept: hours or days, since it is dropped in partitions of a day."""

    __slots__ = ()
    pattern = r"^[1-9][0-9]{0,4}(h|d)$"
    meaning = "a retention: write whole hours or days, such as 36h or 30d"


class Schedule(PatternStr):
    """Points in time in cron form (:mod:`feedmill.resources.cron`): five fields, or ``@daily`` and its kind."""

    __slots__ = ()
    pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[-0-9*/,]+( [-0-9*/,]+){2}( [-0-9A-Za-z*/,]+){2})$"
    meaning = 'a schedule: write five cron fields (minute hour day month weekday), such as "0 3 * * *"'

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        parse_cron(made)  # what the pattern does not see: a minute 99
        return made

    def next_after(self, after_ns: int, time_zone: str) -> int | None:
        """The first time later than ``after_ns`` (Unix ns) in the zone of that name; None = in eight years none."""
        return parse_cron(self).next_after(after_ns, zone_of(time_zone))

    def last_before(self, before_ns: int, time_zone: str) -> int | None:
        """The last time at or before ``before_ns`` (Unix ns); None as above."""
        return parse_cron(self).last_before(before_ns, zone_of(time_zone))


class TimeZone(PatternStr):
    """Name of a time zone as the IANA database writes it."""

    __slots__ = ()
    pattern = r"^(UTC|[A-Z][A-Za-z_]{1,31}(/[A-Z][-+A-Za-z0-9_]{1,31}){1,2})$"
    meaning = "a time zone: write UTC or a name such as Europe/Berlin"

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        zone_of(made)
        return made


class TimeOfDay(PatternStr):
    """Hours and minutes of a day, ``07:30``."""

    __slots__ = ()
    pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
    meaning = "a time of day: write hours and minutes, such as 22:00"

    @property
    def minutes(self) -> int:
        """Minutes since midnight."""
        hours, _, minutes = self.partition(":")
        return int(hours) * 60 + int(minutes)


class Quantity(PatternStr):
    """A number of bytes as Kubernetes writes it (``64Mi``, ``1Gi``, ``1.5G``, ``1048576``)."""

    __slots__ = ()
    pattern = r"^[1-9][0-9]{0,14}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
    meaning = "a number of bytes: write a number and one unit of Ki, Mi, Gi, Ti, k, M, G, T, such as 64Mi or 1Gi"

    @property
    def bytes(self) -> int:
        """Size in bytes, rounded down."""
        number, unit = _split(self)
        return int(number * _UNIT_BYTES[unit])


def _split(text: str) -> tuple[Decimal, str]:
    digits = text.rstrip("KMGTkismhd")
    return Decimal(digits), text[len(digits) :]


class Environment(StrEnum):
    """Which installation of the venue."""

    PRODUCTION = "Production"
    TESTNET = "Testnet"


class InstrumentType(StrEnum):
    """Kinds of instruments a selection can name."""

    SPOT = "Spot"
    PERPETUAL = "Perpetual"
    FUTURE = "Future"
    OPTION = "Option"
    COMBO = "Combo"


class BatchingMode(StrEnum):
    """What the receiver favours when it packs frames."""

    ADAPTIVE = "Adaptive"
    LATENCY = "Latency"
    THROUGHPUT = "Throughput"


class Severity(StrEnum):
    """Weight of a notification."""

    INFO = "Info"
    WARNING = "Warning"
    CRITICAL = "Critical"


class BackupKind(StrEnum):
    """What a backup is made of."""

    LOGICAL = "Logical"
    BASE = "Base"


class RestoreMode(StrEnum):
    """Where to a backup is restored."""

    VERIFY = "Verify"
    RESTORE = "Restore"


class AccountEvent(StrEnum):
    """What happens in an account and may be told of."""

    FILLS = "Fills"
    ORDERS = "Orders"
    TRANSFERS = "Transfers"


class WithdrawPolicy(StrEnum):
    """What is done with a key that may withdraw."""

    REFUSE = "Refuse"
    FLAG = "Flag"


class LogLevel(StrEnum):
    """Least weight of a log line."""

    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"


class Switch(StrEnum):
    """Auto = when the cluster knows the kind of object."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"
