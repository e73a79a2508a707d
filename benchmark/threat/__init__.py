"""Threat models: budgets, admission, targets, objectives."""
