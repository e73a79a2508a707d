"""An attack in a process of its own, which has no model: it asks for outputs, and gets what its access level grants.

For attacks of plugin files without white-box access. Messages are JSON and safetensors, which run no code when read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn

import torch
from safetensors.torch import load, save
from torch import Tensor

from advser.attacks.base import Attack
from advser.errors import AdvserError, ContractError, one_line
from advser.models.base import Outputs
from advser.models.terms import Domain
from advser.plugins.registry import raised_in
from advser.stages.global_state import global_state_kept
from advser.threat.model import Access
from advser.threat.objectives import Loss
from advser.threat.target import Target


@dataclass(frozen=True)
class SeparateAttack:
    """The attack as the harness sees it.

    Attributes:
        connection: to the attack's process.
    """

    connection: Connection

    @classmethod
    def start(cls, build: Callable[[], Attack], domain: Domain, access: Access, objective: Loss) -> SeparateAttack:
        """Start the attack's process, from before this process has loaded a model.

        Args:
            build: confines the new process, loads the plugin file, and returns the attack.
            domain: what the attack perturbs.
            access: what it may read.
            objective: the loss that it ascends.
        """
        ours, theirs = Pipe()
        if os.fork() == 0:
            ours.close()
            _serve(theirs, build, domain, access, objective)
        theirs.close()
        return cls(ours)

    def perturb(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the attack's examples; answer its questions meanwhile.

        Raises:
            ContractError: if the attack fails.
        """
        tensors = {"x": x, "labels": labels, "lengths": target.lengths, "state": generator.get_state()}
        tensors |= {} if target.mask is None else {"mask": target.mask.expand(x.shape).contiguous()}
        facts = {"device": str(x.device), "detector": target.has_detector, "randomised": target.randomised}
        _send(self.connection, facts, tensors)
        while True:
            try:
                message, sent = _receive(self.connection)
            except EOFError:
                raise ContractError("the attack ended its process, expected examples") from None
            if "reason" in message:
                raise ContractError(str(message["reason"]))
            if "examples" in sent:
                return sent["examples"].to(x)
            _send(self.connection, {}, _answer(target, {name: value.to(x.device) for name, value in sent.items()}))


def _answer(target: Target, question: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs that the access grants; the passes count on ``target``."""
    rows = question.get("rows")
    outputs = (target if rows is None else target.at(rows)).granted(question["x"])
    answer = {"logits": outputs.logits}
    return answer if outputs.detection is None else answer | {"detection": outputs.detection}


class AskingTarget(Target):
    """A target without a model: it asks the process that has one.

    Args:
        ask: returns the outputs for inputs, and the rows of the batch that they belong to; None: all rows.
        lengths, domain, access, objective, mask: as for `Target`.
        facts: whether the model has a ``detector``, and is ``randomised``.
    """

    def __init__(
        self,
        ask: Callable[[Tensor, Tensor | None], Outputs],
        lengths: Tensor,
        domain: Domain,
        access: Access,
        objective: Loss,
        mask: Tensor | None,
        facts: Mapping[str, Any],
    ) -> None:
        super().__init__(None, lengths, domain, access, objective=objective, mask=mask)
        self._ask, self._facts = ask, facts

    @property
    def has_detector(self) -> bool:
        """Whether the model has a detector of adversarial input."""
        return bool(self._facts["detector"])

    @property
    def randomised(self) -> bool:
        """Whether the model draws at random, so that two passes may differ."""
        return bool(self._facts["randomised"])

    def _classify(self, x: Tensor, domain: Domain) -> Outputs:
        return self._ask(x, self._clips.rows)


def _serve(
    connection: Connection, build: Callable[[], Attack], domain: Domain, access: Access, objective: Loss
) -> NoReturn:
    """Attack batches until the harness is gone; the process ends here, whatever the attack raises."""
    try:
        attack = build()
        while True:
            facts, sent = _receive(connection)
            _send(connection, {}, {"examples": _perturbed(connection, attack, facts, sent, domain, access, objective)})
    except EOFError:
        pass
    except BaseException as error:
        text = " ".join(str(error).split()) if isinstance(error, AdvserError) and str(error) else one_line(error)
        _send(connection, {"reason": f"{text}{raised_in(error)}"}, {})
    os._exit(0)


def _perturbed(
    connection: Connection,
    attack: Attack,
    facts: Mapping[str, Any],
    sent: Mapping[str, Tensor],
    domain: Domain,
    access: Access,
    objective: Loss,
) -> Tensor:
    device = torch.device(facts["device"])
    x, labels, lengths = (sent[name].to(device) for name in ("x", "labels", "lengths"))
    mask = sent["mask"].to(device) if "mask" in sent else None

    def ask(inputs: Tensor, rows: Tensor | None) -> Outputs:
        _send(connection, {}, {"x": inputs.detach()} | ({} if rows is None else {"rows": rows}))
        answer = {name: value.to(device) for name, value in _receive(connection)[1].items()}
        return Outputs(answer["logits"], answer["logits"].new_zeros(len(inputs), 0), answer.get("detection"))

    generator = torch.Generator(device)
    generator.set_state(sent["state"].cpu())
    with global_state_kept(x), AskingTarget(ask, lengths, domain, access, objective, mask, facts) as target:
        perturbed: object = attack.perturb(target, x, labels, generator)
    if not isinstance(perturbed, Tensor):
        raise ContractError(f"perturb returned {type(perturbed).__name__}, expected a tensor")
    return perturbed.detach()


def _send(connection: Connection, message: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    connection.send_bytes(json.dumps(message).encode())
    connection.send_bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def _receive(connection: Connection) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads(connection.recv_bytes()), load(connection.recv_bytes())
