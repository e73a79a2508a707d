"""Boards: tables of results."""
