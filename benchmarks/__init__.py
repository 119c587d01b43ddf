"""Measures speed and memory against the peers, on the same work, in the same run."""
