"""Corpora and split protocols."""
