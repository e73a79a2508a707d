"""A run: from a request to a results folder."""
