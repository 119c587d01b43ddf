"""Re-checks a finished run from its files alone, and says what differs between two runs."""
