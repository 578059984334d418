"""Accounts: private frames and REST answers of each become its events, gaps are closed by reconciliation."""
