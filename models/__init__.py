"""Emotion models: one file per model."""
