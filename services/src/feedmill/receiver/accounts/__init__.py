"""Listening to accounts: private connections of many accounts of one market."""
