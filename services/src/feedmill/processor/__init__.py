"""Processor: effects exactly once. Events streams to PostgreSQL."""
