"""Scalar types of the manifests: durations, byte quantities, enumerations."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

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
