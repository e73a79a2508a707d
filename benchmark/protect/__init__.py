"""Protection of one recording."""
