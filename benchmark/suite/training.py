"""Training settings: the part of a suite that the training stage reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from advser.models.terms import WantedPrecision


class Training(BaseModel):
    """Training settings.

    Attributes:
        optimizer: ``adam`` (PyTorch's defaults) or ``rmsprop`` (ρ = 0.9).
        learning_rate: initial rate.
        batch_size: clips per step.
        iterations: number of steps.
        schedule: ``constant``; ``cosine`` (to 0 over all iterations); ``plateau`` (× 0.1 if the validation loss has not
            decreased for more than ``patience`` evaluations).
        patience: number of evaluations, for ``plateau``.
        fit_on: ``train``, or ``train+validation``, which leaves no clips to select a checkpoint by.
        select: the checkpoint to use: ``last``, or ``best`` by validation UAR.
        evaluate_every: steps between evaluations on the validation clips.
        precision: ``fp32``; ``bf16`` (autocast); ``auto``: bf16 on processors that compute in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(16, ge=2, le=65_536)
    iterations: int = Field(10_000, ge=1, le=10**9)
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    patience: int = Field(20, ge=1, le=10**9)
    fit_on: Literal["train", "train+validation"] = "train"
    select: Literal["last", "best"] = "last"
    evaluate_every: int = Field(100, ge=1, le=10**9)
    precision: WantedPrecision = "auto"

    @model_validator(mode="after")
    def _validation_is_held_out(self) -> Self:
        if self.fit_on == "train+validation" and (self.select == "best" or self.schedule == "plateau"):
            raise ValueError("fit_on: train+validation leaves no validation clips for select: best, schedule: plateau")
        return self
