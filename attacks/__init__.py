"""Attacks: one file a family."""
