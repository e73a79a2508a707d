"""Suites: what a run combines."""
