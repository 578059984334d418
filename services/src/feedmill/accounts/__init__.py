"""Accounts at exchanges: their secrets, and what is done with them."""
