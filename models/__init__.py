"""Emotion models: one file a model."""
