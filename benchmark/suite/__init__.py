"""Suites: schema, loading, changes, exhibits."""
