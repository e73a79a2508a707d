"""Formats of boards: terminal, Markdown, LaTeX, CSV."""
