"""Every metric on clips with a known figure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import DEMO

from advser.audio.files import read
from advser.audio.pcm import SAMPLE_RATE
from advser.errors import InputError, MeasurementError, NotApplicableError
from advser.metrics.base import ClipMetric, Metric
from advser.metrics.cost import Backwards, Forwards, Seconds
from advser.metrics.detection import DetectorAUC, DetectorEER
from advser.metrics.intelligibility import ESTOI, STOI
from advser.metrics.normalisation import UNSPACED, normalise
from advser.metrics.quality import PESQ, SNR
from advser.metrics.recognition import UAR, Accuracy, AttackSuccess, Loss
from advser.metrics.transcription import CER, WER, CERChange, ErrorCounts, WERChange, count_errors
from advser.metrics.transfer import TransferRate
from advser.plugins.registries import METRICS

CLIP_METRICS = [SNR(), PESQ(), STOI(), ESTOI()]
SCORES = [PESQ(), STOI(), ESTOI()]


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    samples, rate = read(DEMO / "m1_neutral_1.flac", "clip")
    assert rate == SAMPLE_RATE
    return samples


def noisy(clean: np.ndarray, snr: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    return clean + noise * np.sqrt(np.mean(clean**2) / np.mean(noise**2) / 10 ** (snr / 10)).astype(np.float32)


def value(metric: Metric, **columns: list[float]) -> float:
    return float(metric.combine(metric.statistics(pd.DataFrame(columns), 3).sum(axis=0)))


# Five clips (clean → attacked): correct → wrong, wrong → wrong, correct → correct, wrong → correct, correct → wrong.
OUTCOME = {
    "label": [0, 1, 2, 2, 0],
    "clean_prediction": [0, 0, 2, 1, 0],
    "prediction": [1, 0, 2, 2, 2],
    "source_prediction": [1, 0, 0, 0, 0],
    "loss": [2.0, 3.0, 0.5, 0.5, 4.0],
    "seconds": [0.5, 0.5, 0.25, 0.25, 1.0],
    "forwards": [10, 10, 10, 10, 0],
    "backwards": [10, 10, 10, 10, 5],
    "fold": ["1", "1", "1", "2", "2"],
    "detection": [2.0, 0.0, 1.0, 15.0, 11.0],
    "clean_detection": [0.0, 0.0, -1.0, 10.0, 12.0],
}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Accuracy(), 2 / 5),
        (UAR(), (0 / 2 + 0 / 1 + 2 / 2) / 3),
        (Loss(), 2.0),
        (AttackSuccess(), 2 / 5),
        (TransferRate(), 1 / 2),
        (DetectorAUC(), (3 * (3 + 2 + 3) / 9 + 2 * (2 + 1) / 4) / 5),
        (DetectorEER(), (3 * 2 / 9 + 2 * 1 / 2) / 5),
        (Seconds(), 0.5),
        (Forwards(), 8.0),
        (Backwards(), 9.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Metric) else "",
)
def test_known_outcome(metric, expected):
    assert value(metric, **OUTCOME) == pytest.approx(expected)


def test_transfer_rate_without_a_qualifying_clip_is_undefined():
    assert math.isnan(value(TransferRate(), **{**OUTCOME, "source_prediction": OUTCOME["label"]}))


@pytest.mark.parametrize(
    ("metric", "column"),
    [(UAR(), "prediction"), (Accuracy(), "prediction"), (AttackSuccess(), "clean_prediction"),
     (TransferRate(), "source_prediction"), (DetectorAUC(), "detection"), (DetectorEER(), "clean_detection")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_a_missing_prediction_is_a_failed_clip(metric, column):
    missing = np.nan if "detection" in column else -1
    examples = pd.DataFrame({**OUTCOME, column: [missing, *OUTCOME[column][1:]]})
    failed = np.isnan(metric.statistics(examples, 3)).any(axis=1)
    assert failed.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("name", list(METRICS))
def test_shipped_metric_describes_itself(name):
    metric = METRICS.get(name)()
    assert metric.title
    assert metric.higher_is_better in {True, False, None}
    assert metric.needs
    assert type(metric).__doc__


def test_needs_of_metrics():
    needs = {name: METRICS.get(name).needs for name in METRICS}
    assert {name for name, kinds in needs.items() if "audio" in kinds} >= {"snr", "pesq", "stoi", "estoi"}
    assert {name for name, kinds in needs.items() if "source" in kinds} == {"transfer-rate"}
    assert {"snr", "attack-success", "wer-change", "cer-change"} <= {n for n, k in needs.items() if "attack" in k}
    assert {name for name, kinds in needs.items() if "detections" in kinds} == {"detector-auc", "detector-eer"}
    assert "attack" not in needs["pesq"] | needs["stoi"] | needs["wer"] | needs["uar"]
    assert {name for name, kinds in needs.items() if "transcripts" in kinds} == {
        "wer",
        "cer",
        "wer-change",
        "cer-change",
    }


@pytest.mark.parametrize("level", [0, 10, 40])
def test_snr_of_noise_at_a_known_level(speech, level):
    assert SNR().measure(speech, noisy(speech, level), SAMPLE_RATE) == pytest.approx(level, abs=1e-2)


def test_snr_without_a_perturbation_is_not_applicable(speech):
    with pytest.raises(NotApplicableError, match="nothing was perturbed"):
        SNR().measure(speech, speech, SAMPLE_RATE)


def test_identical_sound_scores_highest(speech):
    assert PESQ().measure(speech, speech, SAMPLE_RATE) > 4.6
    assert STOI().measure(speech, speech, SAMPLE_RATE) == pytest.approx(1, abs=1e-6)
    assert ESTOI().measure(speech, speech, SAMPLE_RATE) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("metric", SCORES, ids=lambda metric: metric.title)
def test_more_noise_scores_lower_and_the_same_sound_scores_the_same(metric, speech):
    judged = [noisy(speech, level) for level in (40, 20, 0)]
    scores = [metric.measure(speech, clip, SAMPLE_RATE) for clip in judged]
    assert scores[0] > scores[1] > scores[2]
    assert [metric.measure(speech, clip, SAMPLE_RATE) for clip in judged] == scores


@pytest.mark.parametrize("metric", CLIP_METRICS, ids=lambda metric: metric.title)
def test_a_silent_clip_fails_with_a_reason(metric, speech):
    silence = np.zeros_like(speech)
    with pytest.raises(MeasurementError, match="silent"):
        metric.measure(silence, speech, SAMPLE_RATE)


@pytest.mark.parametrize("metric", SCORES, ids=lambda metric: metric.title)
@pytest.mark.parametrize("samples", [1, 200, 3000])
def test_too_short_a_clip_fails_with_a_reason(metric, samples, speech):
    short = speech[6000 : 6000 + samples]
    with pytest.raises(MeasurementError, match=r"0\.384 s|1/4 of a second|silent"):
        metric.measure(short, short * np.float32(0.9), SAMPLE_RATE)


@pytest.mark.parametrize("metric", [STOI(), ESTOI()], ids=lambda metric: metric.title)
def test_mostly_silence_fails_instead_of_scoring_a_constant(metric):
    clip = np.zeros(SAMPLE_RATE, np.float32)
    clip[8000:9000] = np.random.default_rng(0).standard_normal(1000) * 0.1
    with pytest.raises(MeasurementError, match="too little sound"):
        metric.measure(clip, clip, SAMPLE_RATE)


def test_pesq_refuses_clips_that_overflow_its_code(speech):
    # Sixty bursts in thirty seconds crash the process if they reach the reference code.
    bursts = np.tile(np.repeat([0.3, 0.0], 4000), 60).astype(np.float32)
    bursts *= np.random.default_rng(0).standard_normal(len(bursts)).astype(np.float32)
    with pytest.raises(MeasurementError, match=r"30\.0 s long"):
        PESQ().measure(bursts, bursts, SAMPLE_RATE)
    with pytest.raises(MeasurementError, match="got 8000 Hz, expected 16000 Hz"):
        PESQ().measure(speech, speech, 8000)


@pytest.mark.parametrize("metric", [STOI(), ESTOI()], ids=lambda metric: metric.title)
def test_stoi_refuses_clips_that_need_gigabytes(metric):
    clip = np.random.default_rng(0).standard_normal(601 * SAMPLE_RATE, np.float32) * np.float32(0.1)
    with pytest.raises(MeasurementError, match=rf"the clip is 601\.0 s long, {metric.title} takes 600 s"):
        metric.measure(clip, clip, SAMPLE_RATE)


def test_measuring_preserves_the_random_state_of_the_caller(speech):
    np.random.seed(3)
    expected = np.random.standard_normal(4)
    np.random.seed(3)
    ESTOI().measure(speech, noisy(speech, 20), SAMPLE_RATE)
    assert np.array_equal(np.random.standard_normal(4), expected)


def test_a_clip_metric_averages_over_measured_clips():
    statistics = PESQ().statistics(pd.DataFrame({"pesq": [4.0, np.nan, 3.0]}), 3)
    assert np.isnan(statistics[1]).all()
    assert PESQ().combine(statistics[[0, 2]].sum(axis=0)) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Das will sie.", "de", "das will sie"),
        ("Stück für Öl: WEISS, weiß!", "de", "stueck fuer oel weiss weiss"),
        ("Stu\u0308ck", "de", "stueck"),
        ("In 7 Stunden, um 12 – nicht 13.", "de", "in sieben stunden um zwoelf nicht 13"),
        ("I don\u2019t 'know' 3 well-known 'uns", "en", "i don't know three well known uns"),
        ("  Tab\tund\nZeile ", "de", "tab und zeile"),
        ("Perché no? 3 caffè", "it", "perché no 3 caffè"),
        ("…", "de", ""),
        ("Ex\u00adcuse [LAUGHTER] me. [breathing-in]\u200e", "en", "excuse me"),
        ("\ufeffا\u200cب <noise> [] ج", "fa", "اب ج"),
        ("我[笑]们 很好。", "zh", "我 们 很好"),
    ],
)
def test_normalisation(text, language, expected):
    assert normalise(text, language) == expected


@given(text=st.text(max_size=40), language=st.sampled_from(["de", "en", "it"]))
def test_normalisation_is_idempotent(text, language):
    once = normalise(text, language)
    assert normalise(once, language) == once
    assert once == " ".join(once.split())


@given(reference=st.text("abc äß,.7", min_size=1, max_size=30), hypothesis=st.text("abc äß,.7", max_size=30))
def test_error_counts_are_edit_distances(reference, hypothesis):
    counts = count_errors(reference, hypothesis, "de")
    same = normalise(reference, "de") == normalise(hypothesis, "de")
    assert (counts.word_errors == 0) == (same or counts.words == 0)
    assert counts.words == len(normalise(reference, "de").split())
    assert counts.char_errors <= max(counts.chars, len(normalise(hypothesis, "de")))


@pytest.mark.parametrize("language", sorted(UNSPACED))
def test_languages_without_spaces_have_character_errors_only(language):
    counts = count_errors("我们 很好。", "我们不好", language)
    assert counts == ErrorCounts(0, 0, 1, 4)
    table = {"word_errors": [counts.word_errors], "words": [counts.words], "char_errors": [1], "chars": [4]}
    assert np.isnan(value(WER(), **table))
    assert value(CER(), **table) == pytest.approx(1 / 4)


@given(words=st.lists(st.text("aéخ我", min_size=1, max_size=5), min_size=1, max_size=5), data=st.data())
def test_invisible_characters_and_annotations_change_no_words(words, data):
    marks = st.sampled_from(["", "\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff"])
    marked = ["".join(letter + data.draw(marks) for letter in word) for word in words]
    annotated = data.draw(st.sampled_from([" ", " [LAUGHTER] ", " <sigh> ", " [cross-talk] "])).join(marked)
    assert normalise(annotated, "fa") == normalise(" ".join(words), "fa")


def test_kinds_of_errors_are_summed():
    # One substitution, one deletion, two insertions.
    counts = count_errors("Das will sie am Mittwoch.", "das soll sie mittwoch ja ja", "de")
    assert (counts.word_errors, counts.words) == (4, 5)
    assert count_errors("", "anything", "en") == ErrorCounts(0, 0, 0, 0)


TRANSCRIBED = {
    "word_errors": [2, 0, 3],
    "words": [4, 5, 0],
    "char_errors": [6, 0, 0],
    "chars": [20, 25, 0],
    "clean_word_errors": [1, 1, 0],
    "clean_char_errors": [0, 3, 0],
}


def test_error_rates_are_pooled_over_clips():
    pooled = {**TRANSCRIBED, "word_errors": [2, 0, 0]}
    assert value(WER(), **pooled) == pytest.approx(2 / 9)
    assert value(CER(), **pooled) == pytest.approx(6 / 45)
    assert value(WERChange(), **pooled) == pytest.approx(0)
    assert value(CERChange(), **pooled) == pytest.approx(3 / 45)


@pytest.mark.parametrize("metric", [WER(), CER(), WERChange(), CERChange()], ids=lambda metric: metric.title)
def test_missing_transcripts_are_failed_clips(metric):
    examples = pd.DataFrame({name: [None, *counts[1:]] for name, counts in TRANSCRIBED.items()})
    assert np.isnan(metric.statistics(examples, 3)).any(axis=1).tolist() == [True, False, False]
    nothing = pd.DataFrame(dict.fromkeys(TRANSCRIBED), index=range(2))
    assert np.isnan(metric.statistics(nothing, 3)).all()


@pytest.mark.parametrize("missing", ["title", "higher_is_better", "column"])
def test_a_metric_without_a_class_variable_for_boards_is_refused_by_name(missing: str) -> None:
    variables = {"title": "Partial", "higher_is_better": True, "column": "partial", "measure": lambda self, *clips: 0.0}
    del variables[missing]
    partial = type(ClipMetric)("Partial", (ClipMetric,), {"__module__": __name__, **variables})
    with pytest.raises(InputError, match=f"metric 'partial': got no {missing}, expected a class variable"):
        METRICS.register("partial")(partial)
