"""Backups of a pipeline's database: sealed, stored away, restored, and proven."""
