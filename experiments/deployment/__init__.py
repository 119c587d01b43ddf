"""Flower's deployment runtime: one SuperLink, and a SuperNode per device, as separate processes."""
