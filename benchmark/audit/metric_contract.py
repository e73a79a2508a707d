"""The contract of a metric, checked on examples whose figures are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from advser.audio.pcm import Samples
from advser.audit.contract import CLIPS, Finding, clips, copied_state, difference, small_model
from advser.errors import MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.plugins.parameters import build
from advser.results.schema import KEYS


def metric(plugin: type[Metric], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Hold a metric against its contract: the same again, whatever the order of clips, and no constant."""
    made = build(plugin, dict(params), plugin.__name__)
    if isinstance(made, ClipMetric):
        yield from _clip_metric(made)
    elif isinstance(made, ModelMetric):
        yield from _model_metric(made)
    else:
        yield from _metric(made)


def _metric(made: Metric) -> Iterator[Finding]:
    examples = _examples(0)
    found = torch.from_numpy(made.statistics(examples.copy(), 4))
    yield Finding("a row a clip", "" if len(found) == len(examples) else f"{len(found)} rows of {len(examples)} clips")
    again = torch.from_numpy(made.statistics(examples.iloc[::-1].reset_index(drop=True), 4)).flip(0)
    yield Finding("the order of the clips makes no difference", difference(found.nan_to_num(), again.nan_to_num()))
    right, wrong = (_figure(made, _read(examples, rightly=so)) for so in (True, False))
    figures = {right, wrong, *(_figure(made, _examples(seed)) for seed in range(8))}
    numbers = {figure for figure in figures if not math.isnan(figure)}
    constant = "never a number" if not numbers else f"always {numbers.pop():g}" if len(numbers) == 1 else ""
    yield Finding("it tells clips apart", constant)
    if {*made.needs} <= {"predictions", "attack", "source"} and made.higher_is_better is not None:
        upside_down = right < wrong if made.higher_is_better else right > wrong
        told = f"{right:g} of a model that is always right, {wrong:g} of one that never is"
        yield Finding("higher_is_better says which end is good", told if upside_down else "")


def _figure(made: Metric, examples: pd.DataFrame) -> float:
    return float(made.combine(np.nansum(made.statistics(examples, 4), axis=0)))


def _read(examples: pd.DataFrame, *, rightly: bool) -> pd.DataFrame:
    """Return clips that were read rightly when clean, and all of them, or none, when attacked."""
    label = examples["label"]
    other = (label + 1) % 4
    sign = 1.0 if rightly else -1.0
    return examples.assign(
        prediction=label if rightly else other,
        clean_prediction=label,
        source_prediction=other,
        margin=sign * examples["margin"],
        loss=examples["loss"] if rightly else examples["loss"] + 1,
    )


def _model_metric(made: ModelMetric) -> Iterator[Finding]:
    some = clips()
    victim = small_model(some).eval()
    state = copied_state(victim)
    values = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            try:
                values.append(made.measure(victim, some.waveform, some.waveform, some.lengths, some.labels))
            except NotApplicableError as error:
                yield Finding("measure", note=f"not asked: {error}")
                return
    expected = (CLIPS,)
    shape = tuple(values[0].shape)
    yield Finding("a value a clip (B,)", "" if shape == expected else f"got {shape}, expected {expected}")
    yield Finding("the same clips give the same", difference(*(value.nan_to_num() for value in values)))
    changed = [name for name, value in copied_state(victim).items() if not torch.equal(value, state[name])]
    yield Finding("the model stays as it is", f"changed: {', '.join(changed)}" if changed else "")


def _clip_metric(made: ClipMetric) -> Iterator[Finding]:
    some = clips()
    clean = some.waveform[0, : int(some.lengths[0])].numpy()
    noisy = clean + np.float32(0.02) * torch.randn(len(clean), generator=torch.Generator().manual_seed(0)).numpy()
    kept = clean.copy()
    values = [float(made.measure(clean, noisy, 16_000)) for _ in range(2)]
    yield Finding("the same clips give the same", "" if values[0] == values[1] else f"{values[0]} and {values[1]}")
    yield Finding("clips stay as they are", "" if (clean == kept).all() else "the clean clip was changed")
    if made.higher_is_better is not None:
        yield _direction(made, kept, noisy)


def _direction(made: ClipMetric, clean: Samples, noisy: Samples) -> Finding:
    """Tell whether a clip of which nothing was changed is at the good end, seen from one with noise in it."""
    part = "higher_is_better says which end is good"
    try:
        same, other = (float(made.measure(clean.copy(), judged, 16_000)) for judged in (clean.copy(), noisy.copy()))
    except (MeasurementError, NotApplicableError) as error:
        return Finding(part, note=f"not asked: {error}")
    upside_down = same < other if made.higher_is_better else same > other
    told = f"{same:g} of an untouched clip, {other:g} of one with noise in it"
    return Finding(part, "always the same" if same == other else told if upside_down else "")


def _examples(seed: int) -> pd.DataFrame:
    """Return a made-up examples table with every column that metrics read."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randint(4, (24,), generator=generator).numpy() for name in _CLASSES}
    numbers = {name: torch.rand(24, generator=generator).double().numpy() for name in _NUMBERS}
    counts = {name: torch.randint(1, 9, (24,), generator=generator).double().numpy() for name in _COUNTS}
    rows = range(24)
    told = {"clip": [f"clip{row}" for row in rows], "speaker": [f"s{row % 4}" for row in rows]}
    words = [" ".join(["word"] * int(count)) for count in counts["words"]]
    made = {**drawn, **numbers, **counts, **told, "fold": "fold1", "text": words, "transcript": words}
    keys = {name: _KEYS.get(name, "") for name in KEYS}
    return pd.DataFrame({**keys, **made})


_KEYS: Final[Mapping[str, Any]] = {
    "suite": "mock", "corpus": "demo", "task": "emotion", "protocol": "3pair", "split": "test", "seed": 0,
    "model": "tiny", "defense": "none", "attack": "fgsm", "params": "{}", "domain": "waveform", "delivery": "audio",
    "labels": "true", "access": "white-box", "norm": "linf", "epsilon": 0.001, "epsilon_unit": "full-scale",
}  # fmt: skip


_CLASSES: Final = ("label", "prediction", "clean_prediction", "source_prediction")


_NUMBERS: Final = ("loss", "margin", "detection", "clean_detection", "seconds", "forwards", "backwards")


_COUNTS: Final = ("word_errors", "clean_word_errors", "words", "char_errors", "clean_char_errors", "chars")
