"""Notifications: what is wrong, or was asked to be told, reaches people. See docs/notifications.md."""
