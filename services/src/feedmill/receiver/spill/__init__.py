"""The spill: batches on disk while Redis is away or full, so that an outage costs disk and not memory or data."""
