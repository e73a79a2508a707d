"""torchaudio, which also works beside a CPU build of torch. All of AdvSER imports torchaudio from this module.

On Linux the torchaudio wheel is linked against CUDA. Beside a CPU build of torch its compiled extension cannot load,
although AdvSER needs only its Python code.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import NoReturn


def _alignment_unavailable(*_: object) -> NoReturn:
    raise RuntimeError("torchaudio's compiled extension is not available beside this build of torch")


def _without_extension() -> ModuleType:
    """Return a stand-in for ``torchaudio._extension`` that reports no compiled code."""
    stand_in = ModuleType("torchaudio._extension")
    stand_in.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=lambda function: _alignment_unavailable,
    )
    return stand_in


try:
    import torchaudio
except OSError:
    for _name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[_name]
    sys.modules["torchaudio._extension"] = _without_extension()
    import torchaudio

from torchaudio import functional, transforms  # noqa: E402 (only importable after the repair above)

__all__ = ["functional", "torchaudio", "transforms"]
