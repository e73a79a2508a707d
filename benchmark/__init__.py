"""AdvSER: a benchmark of adversarial attacks on speech emotion recognition, and of defenses against them.

``advser.run(suite)`` runs a suite, ``advser.load(folder)`` reads its results, ``advser.compare(base, new)`` reports
changes. ``@advser.attack(name)``, ``@advser.defense(name)``, ``@advser.model(name)``, ``@advser.corpus(name)``,
``@advser.metric(name)`` and ``@advser.transcriber(name)`` register plugins; an attack may be a function.
"""

from typing import TYPE_CHECKING, Any

__affects_results__ = False

if TYPE_CHECKING:
    from advser.api import Run, compare, load, run
    from advser.attacks.notebook import attack
    from advser.plugins.registries import CORPORA, DEFENSES, METRICS, MODELS, TRANSCRIBERS

    corpus = CORPORA.register
    defense = DEFENSES.register
    metric = METRICS.register
    model = MODELS.register
    transcriber = TRANSCRIBERS.register

__all__ = ["Run", "attack", "compare", "corpus", "defense", "load", "metric", "model", "run", "transcriber"]


def __dir__() -> list[str]:
    """Return the public names, which `__getattr__` imports."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command line's help loads no other library."""
    if name not in __all__:
        raise AttributeError(f"module 'advser' has no attribute '{name}'")
    if name == "attack":
        from advser.attacks.notebook import attack

        return attack
    from advser.plugins.registries import BY_KIND

    if name in BY_KIND:
        return BY_KIND[name].register
    from advser import api

    return getattr(api, name)
