"""A base backup that is stored is one, whatever becomes of its row."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedmill.general.backup import base, record, slot
from feedmill.general.backup.names import Names
from feedmill.shared import postgres
from feedmill.shared.database_url import DatabaseUrl


async def test_a_database_that_is_away_in_the_end_does_not_make_it_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SimpleNamespace(id="20261126T030000Z-base-000001")
    connections = [0]

    async def connect(*_: Any, **__: Any) -> Any:
        connections[0] += 1
        if connections[0] > 1:
            raise ConnectionRefusedError("too many clients")
        return SimpleNamespace(is_closed=lambda: True)

    async def nothing(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(schema_version="0003")

    async def make(*_: Any) -> Any:
        return made

    monkeypatch.setattr(postgres, "connect", connect)
    monkeypatch.setattr(slot, "require_allowed", nothing)
    monkeypatch.setattr(record, "begin", nothing)
    monkeypatch.setattr(base, "_look", nothing)
    monkeypatch.setattr(base, "_make", make)
    store = cast("Any", SimpleNamespace(where="here"))
    found = await base.run_base(DatabaseUrl("postgresql://nobody"), store, cast("Any", None), Names("default", "main"))
    assert found.id == made.id
    assert connections == [2]
