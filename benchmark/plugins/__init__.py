"""The face for plugin authors: everything that a plugin needs comes from here.

A name is imported from its home when it is first used, so that listing plugins imports no torch.
"""

from typing import TYPE_CHECKING, Any

__affects_results__ = False

if TYPE_CHECKING:
    from advser.attacks.base import Attack, Reading
    from advser.attacks.learned import LearnedAttack
    from advser.attacks.notebook import attack
    from advser.attacks.reference import AttackReference
    from advser.corpora.base import Corpus
    from advser.defenses.base import Defense, TrainingBatch, craft
    from advser.defenses.processing import Processing
    from advser.errors import ContractError, InputError, MeasurementError, NotApplicableError
    from advser.metrics.base import ClipMetric, Metric, ModelMetric
    from advser.metrics.transcribers.base import Transcriber
    from advser.models.base import EmotionModel, FrontEnd, Outputs
    from advser.models.terms import Domain
    from advser.plugins.decorators import corpus, defense, metric, model, transcriber
    from advser.plugins.parameters import Parameters, parameter
    from advser.plugins.roles import budget, budget_norm, gradient_steps, step_size
    from advser.threat.budget import Budget
    from advser.threat.model import Access, Norm
    from advser.threat.target import Target

_HOMES = {
    "advser.attacks.base": ("Attack", "Reading"),
    "advser.attacks.learned": ("LearnedAttack",),
    "advser.attacks.notebook": ("attack",),
    "advser.attacks.reference": ("AttackReference",),
    "advser.corpora.base": ("Corpus",),
    "advser.defenses.base": ("Defense", "TrainingBatch", "craft"),
    "advser.defenses.processing": ("Processing",),
    "advser.errors": ("ContractError", "InputError", "MeasurementError", "NotApplicableError"),
    "advser.metrics.base": ("ClipMetric", "Metric", "ModelMetric"),
    "advser.metrics.transcribers.base": ("Transcriber",),
    "advser.models.base": ("EmotionModel", "FrontEnd", "Outputs"),
    "advser.plugins.decorators": ("corpus", "defense", "metric", "model", "transcriber"),
    "advser.plugins.roles": ("budget", "budget_norm", "gradient_steps", "step_size"),
    "advser.plugins.parameters": ("Parameters", "parameter"),
    "advser.threat.model": ("Access", "Norm"),
    "advser.models.terms": ("Domain",),
    "advser.threat.budget": ("Budget",),
    "advser.threat.target": ("Target",),
}

__all__ = [
    "Access", "Attack", "AttackReference", "Budget", "ClipMetric", "ContractError", "Corpus", "Defense", "Domain",
    "EmotionModel", "FrontEnd", "InputError", "LearnedAttack", "MeasurementError", "Metric", "ModelMetric", "Norm",
    "NotApplicableError", "Outputs", "Parameters", "Processing", "Reading", "Target", "TrainingBatch",
    "Transcriber", "attack", "budget", "budget_norm", "corpus", "craft", "defense", "gradient_steps", "metric",
    "model", "parameter", "step_size", "transcriber",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'advser.plugins' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
