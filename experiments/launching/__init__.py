"""Starts a run: checks, the app's staging, Flower's SuperLink and processes, and what is left of earlier runs."""
