"""``feedmill`` for an exchange that allows more weight: to ask for a thousand new accounts takes hours else."""

from __future__ import annotations

from dataclasses import replace

from feedmill.cli.main import main
from feedmill.exchanges.binance_spot.feed import SpotFeed

WEIGHT = 1_000_000

SpotFeed.limits = replace(SpotFeed.limits, request_weight=WEIGHT)
main()
