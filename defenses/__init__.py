"""Defenses: one file a family."""
