"""Venue adapters: one folder a venue market, each with a feed half, a mapper half and a REST half."""
