"""What a suite cannot hold is refused when it is read, before the first job."""

from __future__ import annotations

from pathlib import Path

import pytest

from advser.errors import InputError
from advser.suite.loading import load
from advser.suite.reading import read_yaml

SMALL = """
name: small
corpus: demo
protocol: 3pair
models: [tiny]
defenses: [none]
attacks: [{name: fgsm, params: {epsilon: 0.1}}]
metrics: [uar]
"""

LONG = "x" * 300

WRONG = [
    "bootstrap=1000000000",
    "bootstrap=1e9",
    "seeds=[9223372036854775808]",
    "seeds=[-5]",
    f"seeds=[{'9' * 400}]",
    f"seeds=[{'9' * 5000}]",
    f"samples={'9' * 30}",
    f"training.iterations={'9' * 30}",
    "training.learning_rate=.inf",
    "training.learning_rate=.nan",
    "worst=[{name: w, epsilon: .inf}]",
    "worst=[{name: w, epsilon: -1}]",
    "newcomers=[{domain: waveform, epsilon: .inf}]",
    f"name={LONG}",
    f"title={LONG}",
    f"attacks.fgsm.label={LONG}",
    f"models=[{{name: tiny, label: {'é' * 60}}}]",
    f"parts={{{LONG}: {{}}}}",
    f"worst=[{{name: {LONG}}}]",
    *(f'attacks.fgsm.label="a{letter}b"' for letter in (r"\n", r"\e", r"\0", r"\x7f", r"\u2028", r"\ud800")),
    r'title="a\nb"',
    r'about="\ud800"',
    "parts={a-b: {}, a.b: {}}",
    "parts={A: {}, a: {}}",
    "parts={a: {training: x}}",
    "parts={a: {training: [1]}}",
]


@pytest.mark.parametrize("change", WRONG, ids=lambda change: ascii(change[:40]))
def test_what_no_run_can_hold_is_refused_in_one_short_line(tmp_path: Path, change: str) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    with pytest.raises(InputError) as caught:
        load(str(file), [change])
    assert str(caught.value).isprintable()


BOMB = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10))]
)

NOT_DATA = [
    "!!int abc",
    "!!float x",
    "!!bool maybe",
    "!!timestamp 2001-99-99",
    "!!binary '*'",
    "!!set {a, b}",
    "!!python/name:os.system",
    "&a [*a]",
    "&a {b: *a}",
    "{[a]: b}",
    "{{a: b}: c}",
    "9" * 5000,
    "[" * 5000,
    "[" * 60 + "]" * 60,
    BOMB,
    MERGES,
    "[" + "1," * 100_001 + "]",
    r'"\ud800"',
    "a: b: c",
    "--- 1\n--- 2",
]


@pytest.mark.parametrize("text", NOT_DATA, ids=lambda text: ascii(text[:20]))
def test_yaml_that_is_no_plain_data_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^here: .*expected") as caught:
        read_yaml(text, "here")
    assert str(caught.value).isprintable()


def test_dates_are_texts_and_aliases_are_shared() -> None:
    assert read_yaml("[2001-99-99, 2001-01-01]", "here") == ["2001-99-99", "2001-01-01"]
    assert read_yaml("{a: &x {b: 1}, c: {<<: *x, d: 1e-3}}", "here") == {"a": {"b": 1}, "c": {"b": 1, "d": 0.001}}
