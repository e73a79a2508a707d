"""Protection of a single recording from emotion recognition."""
