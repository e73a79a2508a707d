"""AdvSER: adversarial attacks on, and defenses of, speech emotion recognition, benchmarked.

``advser.run(suite)`` runs a suite, ``advser.load(folder)`` reads its results, ``advser.compare(base, new)`` tells what
moved. ``@advser.attack(name)``, ``@advser.defense(name)``, ``@advser.model(name)``, ``@advser.corpus(name)``,
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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line's help waits for nothing else."""
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
