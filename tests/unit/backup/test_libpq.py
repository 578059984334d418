"""Database URLs as variables of libpq, and whether they lead through a tunnel."""

from __future__ import annotations

import pytest

from feedmill.general.backup.tunnel import wanted
from feedmill.shared.libpq import libpq


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        (
            "postgresql://me:p%2F%40@db:5433/market",
            {"PGHOST": "db", "PGPORT": "5433", "PGUSER": "me", "PGPASSWORD": "p/@", "PGDATABASE": "market"},
        ),
        (
            "postgresql://me@a:1,b/market?sslmode=verify-full&sslrootcert=%2Fca.pem&target_session_attrs=read-write",
            {
                "PGHOST": "a,b", "PGPORT": "1,5432", "PGUSER": "me", "PGDATABASE": "market",
                "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca.pem", "PGTARGETSESSIONATTRS": "read-write",
            },
        ),
        ("postgresql://me@[::1]:5/d", {"PGHOST": "::1", "PGPORT": "5", "PGUSER": "me", "PGDATABASE": "d"}),
        (
            "postgresql:///d?host=/run/pg&user=me&password=x",
            {"PGHOST": "/run/pg", "PGUSER": "me", "PGPASSWORD": "x", "PGDATABASE": "d"},
        ),
    ],
)  # fmt: skip
def test_a_url(url: str, variables: dict[str, str]) -> None:
    assert libpq(url) == variables


@pytest.mark.parametrize(
    ("variables", "tunnelled"),
    [
        ({"PGHOST": "127.0.0.1"}, False),
        ({"PGHOST": "/run/pg", "PGSSLMODE": "require"}, False),
        ({"PGHOST": "db"}, True),
        ({"PGHOST": "db", "PGSSLMODE": "disable"}, False),
        ({"PGHOST": "127.0.0.1", "PGSSLMODE": "require"}, True),
        ({"PGHOST": "localhost,db"}, True),
    ],
)
def test_which_ones_need_a_tunnel(variables: dict[str, str], tunnelled: bool) -> None:
    assert wanted(variables) is tunnelled
