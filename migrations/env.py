"""alembic's environment: asyncpg only, one starter at a time.

The URL comes from the caller (``config.attributes["database_url"]``, see ``feedmill.cli.migrate``) or, when alembic is
run by hand, from ``DATABASE_URL``. It is never written to a configuration file or a log.
"""

from __future__ import annotations

import asyncio
import os

import asyncpg
from alembic import context
from sqlalchemy import Connection, pool, text

SETTINGS = {"application_name": "feedmill-migrate"}
LOCK = 0x6665_6564_6D69_6C6C
"""Advisory lock ("feedmill") held while migrating: a second starter waits, then finds nothing left to do."""


def database_url() -> str:
    url = context.config.attributes.get("database_url") or os.environ.get("DATABASE_URL", "")
    if not url:
        raise SystemExit("no database to migrate: set DATABASE_URL, or use feedmill migrate")
    return str(url)


def run_offline() -> None:
    """Write the statements instead of running them."""
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
    restoring = connection.execute(text("SELECT to_regclass('feedmill_restoring') IS NOT NULL")).scalar()
    connection.commit()
    if restoring and not context.config.attributes.get("restoring"):
        raise RuntimeError("a restore of this database is not finished: wait for it, or run feedmill backup restore")
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    from sqlalchemy.ext.asyncio import create_async_engine  # Not needed to write SQL.

    url = database_url()
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda *_, **__: asyncpg.connect(url, timeout=10, server_settings=SETTINGS),
        poolclass=pool.NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
