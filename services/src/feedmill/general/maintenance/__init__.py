"""Keeps PostgreSQL and Redis in order: partitions, retention, statistics, checks, orphaned streams."""
