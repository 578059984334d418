"""Shared by the cluster tests and ``make bench-operator``: clusters, the operator as a process, faults."""
