"""Models that a defense cannot train."""

from __future__ import annotations

from advser.defenses.base import Defense
from advser.defenses.undefended import Undefended
from advser.errors import InputError
from advser.plan.cells import Victim


def refuse_features(victim: Victim, defense: Defense) -> None:
    """Raise InputError if training would perturb a spectrogram that the model does not have."""
    if defense.perturbed_domain() == "spectrogram" and not victim.spectrogram:
        raise InputError(
            f"defense '{victim.defense.title}': domain: got 'spectrogram', expected 'waveform' with model "
            f"'{victim.model.title}', whose features are no spectrogram"
        )


def refuse_descent(victim: Victim, defense: Defense) -> None:
    """Raise InputError if a defense is to train a model without gradients; one that acts at test time alone may."""
    trains = type(defense).loss is not Undefended.loss or type(defense).extend is not Defense.extend
    if not victim.differentiable and trains:
        raise InputError(
            f"model '{victim.model.title}': defense '{victim.defense.title}': got a defense that trains, expected none "
            "or one at test time for a model without gradients (say 'defenses: [none]' in the model's entry)"
        )
