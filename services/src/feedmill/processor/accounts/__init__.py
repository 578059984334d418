"""The storing side of accounts: own streams, own consumers, so that a burst of market data never delays a fill."""
