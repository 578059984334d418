"""Real Redis and PostgreSQL servers from wheels (or the system), under our own supervision.

``start``, ``stop`` and ``kill`` are plain blocking functions, so they work from sync code and, through
``asyncio.to_thread``, from any event loop.
"""

from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.postgres import EmbeddedPostgres
from feedmill.local.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]
