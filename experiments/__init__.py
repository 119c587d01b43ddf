"""Choices and readings: the command line, the launcher, the report. No mechanism of the method itself."""
