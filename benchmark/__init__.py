"""AdvSER: adversarial attacks on, and defenses of, speech emotion recognition, benchmarked.

``@advser.attack(name)``, ``@advser.defense(name)``, ``@advser.model(name)``, ``@advser.corpus(name)``,
``@advser.metric(name)`` and ``@advser.transcriber(name)`` register plugins.
"""

from advser.plugins import ATTACKS, CORPORA, DEFENSES, METRICS, MODELS, TRANSCRIBERS

__all__ = ["attack", "corpus", "defense", "metric", "model", "transcriber"]

attack = ATTACKS.register
corpus = CORPORA.register
defense = DEFENSES.register
metric = METRICS.register
model = MODELS.register
transcriber = TRANSCRIBERS.register
