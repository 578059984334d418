"""What every service of the data plane shares: wire formats, clients, settings, health."""
