"""Decorators that register plugins: ``@defense("name")`` and its kind. Attacks have their own (`advser.attack`)."""

from __future__ import annotations

from advser.plugins.registries import CORPORA, DEFENSES, METRICS, MODELS, TRANSCRIBERS

__affects_results__ = False

corpus = CORPORA.register
defense = DEFENSES.register
metric = METRICS.register
model = MODELS.register
transcriber = TRANSCRIBERS.register
