"""The rows of accounts, whose columns are others than the feeds'. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from faults.judge import MIB, ROLES, Measured

HEADINGS = (
    "fault", "accounts", "fills", "stored", "lost", "doubled", "by REST", "orders", "wrong", "balances wrong",
    "positions wrong", "transfers (in gaps)", "gaps (open)", "market lost+doubled", "caught up", "repaired",
    "peak MiB a/r/d/p/m", "holds",
)  # fmt: skip
WIDTHS = (29, 9, 8, 8, 5, 8, 8, 8, 6, 15, 16, 20, 12, 20, 10, 9, 20, 6)
_ROLES = ("accounts", *ROLES)
_FAULTS = ("lost", "doubled", "phantom", "wrong")


def cells(found: Measured, broken: Sequence[str]) -> tuple[str, ...]:
    verdict = "yes" if not broken else "NO"
    if found.report is None:
        return (found.name, *["-"] * (len(HEADINGS) - 2), verdict)
    of = found.of_accounts
    half = sum(venue.accounts.half_filled for venue in found.report.venues)
    still_open = sum(venue.accounts.gaps_open for venue in found.report.venues)
    market = found.total("lost"), found.total("doubled")
    return (
        found.name,
        str(found.accounts),
        *(f"{of('fills', what):,}" for what in ("emitted", "stored", "lost", "doubled")),
        f"{found.by_rest:,}",
        f"{of('orders', 'emitted'):,}",
        str(_wrong(found, "orders") + half),
        str(_wrong(found, "balances")),
        str(_wrong(found, "positions")),
        f"{of('transfers', 'emitted'):,} ({of('transfers', 'in_gaps'):,})",
        f"{found.account_gaps} ({still_open})",
        "+".join(map(str, market)),
        "-" if found.catch_up is None else f"{found.catch_up:.1f} s",
        "-" if found.repaired is None else f"{found.repaired:.0f} s",
        "/".join(f"{found.peak[role] / MIB:.0f}" if role in found.peak else "-" for role in _ROLES),
        verdict,
    )


def _wrong(found: Measured, kind: str) -> int:
    return sum(found.of_accounts(kind, what) for what in _FAULTS)
