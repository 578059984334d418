"""Places that backups are stored in."""
