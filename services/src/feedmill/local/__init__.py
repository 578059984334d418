"""Local mode: embedded Redis and PostgreSQL, and the supervisor of the service processes."""
