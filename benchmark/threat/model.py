"""Threat models: domain, delivery, labels and access of an attacker, and the unit of its budget."""

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
            raise InputError(f"norm: got '{norm}', expected linf or l2 in the domain {domain}")
        return "clip"
    return "full-scale" if domain == "waveform" else "z"


@dataclass(frozen=True)
class ThreatModel:
    """The position of an attacker.

    Attributes:
        domain: whether the waveform or the normalised spectrogram is perturbed.
        delivery: ``features`` if the attacker is between front end and classifier; ``audio`` if the victim classifies
            sound.
        labels: the labels that the attack is given; ``none`` if it uses none.
        access: what the attack may read of the model; ``blind`` if nothing.
    """

    domain: Domain
    delivery: Delivery
    labels: Labels
    access: Access
