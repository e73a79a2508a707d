"""AdvSER: adversarial attacks on, and defenses of, speech emotion recognition, benchmarked.

``advser.run(suite)`` runs a suite, ``advser.load(folder)`` reads its results, ``advser.compare(base, new)`` tells what
moved. ``@advser.attack(name)``, ``@advser.defense(name)``, ``@advser.model(name)``, ``@advser.corpus(name)``,
``@advser.metric(name)`` and ``@advser.transcriber(name)`` register plugins; an attack may be a function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advser.api import Run, compare, load, run
    from advser.functions import attack
    from advser.plugins import CORPORA, DEFENSES, METRICS, MODELS, TRANSCRIBERS

    corpus = CORPORA.register
    defense = DEFENSES.register
    metric = METRICS.register
    model = MODELS.register
    transcriber = TRANSCRIBERS.register

__all__ = ["Run", "attack", "compare", "corpus", "defense", "load", "metric", "model", "run", "transcriber"]

_HOMES = {"Run": "api", "attack": "functions", "compare": "api", "load": "api", "run": "api"}
_KINDS = ("corpus", "defense", "metric", "model", "transcriber")


def __getattr__(name: str) -> Any:
    """Import what is asked for: whoever wants the command line's help, or a submodule, need not wait for the rest."""
    if name in _HOMES:
        return getattr(import_module(f"advser.{_HOMES[name]}"), name)
    if name in _KINDS:
        return import_module("advser.plugins").BY_KIND[name].register
    raise AttributeError(f"module 'advser' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
