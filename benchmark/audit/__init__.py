"""The audit of runs and the contracts of plugins; each check is a small function."""
