"""The contract of a metric, checked on examples with known figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from advser.audio.pcm import Samples
from advser.audit.contract import CLIPS, Finding, clips, copied_state, difference, small_model, state_finding
from advser.errors import MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, Metric, ModelMetric
from advser.plugins.parameters import build
from advser.results.schema import KEYS

CLASSES: Final = 4
"""Number of classes in the examples."""


def metric(plugin: type[Metric], params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check a metric: deterministic, independent of the order of the clips, and not constant."""
    instance = build(plugin, dict(params), plugin.__name__)
    if isinstance(instance, ClipMetric):
        yield from _clip_metric(instance)
    elif isinstance(instance, ModelMetric):
        yield from _model_metric(instance)
    else:
        yield from _table_metric(instance)


def _table_metric(instance: Metric) -> Iterator[Finding]:
    examples = _examples(0)
    rows = torch.from_numpy(instance.statistics(examples.copy(), CLASSES))
    wrong = "" if len(rows) == len(examples) else f"got {len(rows)} rows for {len(examples)} clips"
    yield Finding("one row per clip", wrong)
    backwards = examples.iloc[::-1].reset_index(drop=True)
    reordered = torch.from_numpy(instance.statistics(backwards, CLASSES)).flip(0)
    wrong = difference(rows.nan_to_num(), reordered.nan_to_num())
    yield Finding("independent of the order of the clips", wrong)
    always, never = (_figure(instance, _classified(examples, correctly=correct)) for correct in (True, False))
    figures = {always, never, *(_figure(instance, _examples(seed)) for seed in range(8))}
    numbers = {figure for figure in figures if not math.isnan(figure)}
    constant = "never a number" if not numbers else f"always {numbers.pop():g}" if len(numbers) == 1 else ""
    yield Finding("not constant", constant)
    if {*instance.needs} <= {"predictions", "attack", "source"} and instance.higher_is_better is not None:
        upside_down = always < never if instance.higher_is_better else always > never
        detail = f"{always:g} for a model that is always correct, {never:g} for a model that never is"
        yield Finding("higher_is_better has the right sign", detail if upside_down else "")


def _figure(instance: Metric, examples: pd.DataFrame) -> float:
    return float(instance.combine(np.nansum(instance.statistics(examples, CLASSES), axis=0)))


def _classified(examples: pd.DataFrame, *, correctly: bool) -> pd.DataFrame:
    """Return clips that are classified correctly when clean, and all correctly, or none, when perturbed."""
    label = examples["label"]
    other = (label + 1) % CLASSES
    sign = 1.0 if correctly else -1.0
    return examples.assign(
        prediction=label if correctly else other,
        clean_prediction=label,
        source_prediction=other,
        margin=sign * examples["margin"],
        loss=examples["loss"] if correctly else examples["loss"] + 1,
    )


def _model_metric(instance: ModelMetric) -> Iterator[Finding]:
    batch = clips()
    victim = small_model(batch).eval()
    state = copied_state(victim)
    values = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            try:
                values.append(instance.measure(victim, batch.waveform, batch.waveform, batch.lengths, batch.labels))
            except NotApplicableError as error:
                yield Finding("measure", note=f"not checked: {error}")
                return
    expected = (CLIPS,)
    shape = tuple(values[0].shape)
    yield Finding("one value per clip (B,)", "" if shape == expected else f"got {shape}, expected {expected}")
    yield Finding("equal clips give equal values", difference(*(value.nan_to_num() for value in values)))
    yield state_finding(victim, state, "the model stays unchanged")


def _clip_metric(instance: ClipMetric) -> Iterator[Finding]:
    batch = clips()
    clean = batch.waveform[0, : int(batch.lengths[0])].numpy()
    noisy = clean + np.float32(0.02) * torch.randn(len(clean), generator=torch.Generator().manual_seed(0)).numpy()
    original = clean.copy()
    first, second = (float(instance.measure(clean, noisy, 16_000)) for _ in range(2))
    yield Finding("equal clips give equal values", "" if first == second else f"{first} and {second}")
    yield Finding("clips stay unchanged", "" if (clean == original).all() else "the metric changed the clean clip")
    if instance.higher_is_better is not None:
        yield _direction(instance, original, noisy)


def _direction(instance: ClipMetric, clean: Samples, noisy: Samples) -> Finding:
    """Return a finding about whether the metric prefers an unchanged clip to a clip with noise."""
    part = "higher_is_better has the right sign"
    try:
        unchanged, changed = (
            float(instance.measure(clean.copy(), judged, 16_000)) for judged in (clean.copy(), noisy.copy())
        )
    except (MeasurementError, NotApplicableError) as error:
        return Finding(part, note=f"not checked: {error}")
    if unchanged == changed:
        return Finding(part, f"{unchanged:g} for an unchanged clip and for a clip with noise")
    upside_down = unchanged < changed if instance.higher_is_better else unchanged > changed
    detail = f"{unchanged:g} for an unchanged clip, {changed:g} for a clip with noise"
    return Finding(part, detail if upside_down else "")


def _examples(seed: int) -> pd.DataFrame:
    """Return a synthetic examples table with every column that metrics read."""
    generator = torch.Generator().manual_seed(seed)
    classes = {name: torch.randint(CLASSES, (24,), generator=generator).numpy() for name in _CLASS_COLUMNS}
    numbers = {name: torch.rand(24, generator=generator).double().numpy() for name in _NUMBERS}
    counts = {name: torch.randint(1, 9, (24,), generator=generator).double().numpy() for name in _COUNTS}
    rows = range(24)
    names = {"clip": [f"clip{row}" for row in rows], "speaker": [f"s{row % 4}" for row in rows]}
    words = [" ".join(["word"] * int(count)) for count in counts["words"]]
    columns = {**classes, **numbers, **counts, **names, "fold": "fold1", "text": words, "transcript": words}
    keys = {name: _KEYS.get(name, "") for name in KEYS}
    return pd.DataFrame({**keys, **columns})


_KEYS: Final[Mapping[str, Any]] = {
    "suite": "mock", "corpus": "demo", "task": "emotion", "protocol": "3pair", "split": "test", "seed": 0,
    "model": "tiny", "defense": "none", "attack": "fgsm", "params": "{}", "domain": "waveform", "delivery": "audio",
    "labels": "true", "access": "white-box", "norm": "linf", "epsilon": 0.001, "epsilon_unit": "full-scale",
}  # fmt: skip


_CLASS_COLUMNS: Final = ("label", "prediction", "clean_prediction", "source_prediction")


_NUMBERS: Final = ("loss", "margin", "detection", "clean_detection", "seconds", "forwards", "backwards")


_COUNTS: Final = ("word_errors", "clean_word_errors", "words", "char_errors", "clean_char_errors", "chars")
