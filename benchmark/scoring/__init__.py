"""Figures, intervals and ranks from evaluated examples."""
