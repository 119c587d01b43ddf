"""A run's folder: manifest, ledger, progress. Written by the server, read by everything that shows results."""
