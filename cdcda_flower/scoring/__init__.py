"""Metrics over answers and paired statistics over users: pure functions."""
