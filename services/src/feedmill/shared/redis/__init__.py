"""Redis: one bare connection for hot paths (``wire``), redis-py's pool for the rest (``pool``), scripts by digest."""
