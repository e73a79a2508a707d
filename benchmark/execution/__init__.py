"""Runs: from a request to a results folder."""
