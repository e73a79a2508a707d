"""Leaderboards: which rows and columns, and how they are rendered."""
