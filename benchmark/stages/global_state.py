"""The global state of torch and numpy, which no plugin may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from advser.errors import ContractError


@contextmanager
def global_state_kept(x: Tensor) -> Iterator[None]:
    """Refuse a plugin that draws from global generators or leaves torch's settings changed, and restore the settings.

    Args:
        x: a tensor on the device that the plugin works on.
    """
    states, settings = _random_states(x), _settings()
    try:
        yield
    finally:
        changed = [name for name, value in _settings().items() if value != settings[name]]
        for name in changed:
            _SETTINGS[name][1](settings[name])
    if changed:
        raise ContractError(f"perturb changed torch's {' and '.join(changed)}, expected a context manager around it")
    if _random_states(x) != states:
        raise ContractError("perturb drew from a global generator of torch or numpy, expected the generator argument")


_SETTINGS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
}
"""Settings that a plugin could leave changed for the jobs after it: how to read each, and how to set it."""


def _settings() -> dict[str, Any]:
    return {name: read() for name, (read, _) in _SETTINGS.items()}


def _random_states(x: Tensor) -> list[bytes]:
    """Return the states of torch's and numpy's global generators; of GPUs only if ``x`` is on one.

    Python's own generator is left out: the threads of a worker that talk to the scheduler draw from it too.
    """
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if x.is_cuda else [])]
    return [*(state.numpy().tobytes() for state in states), _numpy_state()]


def _numpy_state() -> bytes:
    _, keys, position, *_ = np.random.get_state(legacy=True)
    return np.asarray(keys).tobytes() + str(position).encode()
