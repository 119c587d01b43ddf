"""What shared examples and adapters give away about a person, measured on a finished run (docs/how-to/leakage.md)."""
