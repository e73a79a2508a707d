"""AdvSER: adversarial attacks on, and defenses of, speech emotion recognition, benchmarked.

``advser.run(suite)`` runs a suite, ``advser.load(folder)`` reads its results, ``advser.compare(base, new)`` tells what
moved. ``@advser.attack(name)``, ``@advser.defense(name)``, ``@advser.model(name)``, ``@advser.corpus(name)``,
``@advser.metric(name)`` and ``@advser.transcriber(name)`` register plugins; an attack may be a function.
"""

from advser.api import Run, compare, load, run
from advser.functions import attack
from advser.plugins import CORPORA, DEFENSES, METRICS, MODELS, TRANSCRIBERS

__all__ = ["Run", "attack", "compare", "corpus", "defense", "load", "metric", "model", "run", "transcriber"]

corpus = CORPORA.register
defense = DEFENSES.register
metric = METRICS.register
model = MODELS.register
transcriber = TRANSCRIBERS.register
