"""Every fault that must not cost anything, one after the other, judged by the simulator's ledger."""
