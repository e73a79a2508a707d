"""Attacks that other plugins refer to: by name and parameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from advser.attacks.base import Attack
from advser.attacks.learned import LearnedAttack
from advser.errors import InputError
from advser.parameters import build, validated
from advser.plugins import ATTACKS


class AttackReference(BaseModel):
    """An attack by name and parameters, as a suite writes it: ``{name: fgsm, params: {epsilon: 0.06}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            try:
                plugin = ATTACKS.get(data["name"])
                params = validated(plugin, data.get("params") or {}, f"attack '{data['name']}'")
            except InputError as error:
                raise ValueError(str(error)) from None
            if issubclass(plugin, LearnedAttack):
                raise ValueError(
                    f"name: found '{data['name']}', whose network is trained against a finished model; allowed "
                    "here: an attack that crafts at once"
                )
            return {**data, "params": params}
        return data

    def build(self) -> Attack:
        """Return the attack."""
        return build(ATTACKS.get(self.name), self.params, f"attack '{self.name}'")
