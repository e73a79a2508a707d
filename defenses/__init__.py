"""Defenses: one file per family."""
