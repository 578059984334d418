"""Protocol-faithful exchanges with a ledger of the truth and injectable faults (docs/simulator.md)."""

from feedmill.simulator.config import ConfigError, Limits, SimulatorConfig, VenueConfig, default_limits, parse_mix
from feedmill.simulator.faults import Fault
from feedmill.simulator.recorded import recorded_feeds
from feedmill.simulator.simulator import Simulator

__all__ = [
    "ConfigError",
    "Fault",
    "Limits",
    "Simulator",
    "SimulatorConfig",
    "VenueConfig",
    "default_limits",
    "parse_mix",
    "recorded_feeds",
]
