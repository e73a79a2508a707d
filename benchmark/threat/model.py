"""Threat models: what an attacker stands on, what it may ask, and in what its budget is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advser.errors import InputError
from advser.models.terms import Domain

Delivery = Literal["audio", "features"]
Labels = Literal["true", "predicted", "soft", "none"]
Access = Literal["white-box", "transfer", "scores", "decisions", "blind"]
Norm = Literal["linf", "l2", "relative-l2"]
Unit = Literal["full-scale", "z", "clip"]


def unit_of(domain: Domain, norm: Norm = "linf") -> Unit:
    """Return the unit of a budget: the scale [−1, 1] for sound, standard deviations for features, or the clip's norm.

    Raises:
        InputError: if the norm is relative to the clip and the domain is not the waveform.
    """
    if norm == "relative-l2":
        if domain != "waveform":
            raise InputError(f"norm: got '{norm}', expected in the domain {domain}: linf, l2")
        return "clip"
    return "full-scale" if domain == "waveform" else "z"


@dataclass(frozen=True)
class ThreatModel:
    """What the attacker stands on.

    Attributes:
        domain: what is perturbed, the waveform or the normalised spectrogram.
        delivery: ``features`` if the attacker stands between front end and classifier, ``audio`` if what is
            judged is sound.
        labels: which labels the attack is given; ``none`` if it uses none.
        access: what it may ask of the model; ``blind`` if nothing.
    """

    domain: Domain
    delivery: Delivery
    labels: Labels
    access: Access
