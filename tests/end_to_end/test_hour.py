"""A run of a corpus with a clip of an hour: it ends, and every figure has a value or a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from commandline import ADVSER

from advser.corpora import demo_data
from advser.results.folder import Results
from advser.results.terms import CHANCE_BASELINES

LONG = "long.wav"
SUITE = {
    "name": "hour", "corpus": "folder", "protocol": "3pair", "folds": ["fold1", "fold2"], "transcriber": "none",
    "training": {"iterations": 20, "batch_size": 16, "fit_on": "train"}, "noise": False, "samples": 1,
    "models": [{"name": "cnn4", "params": {"width": 0.1}}], "defenses": ["none"],
    "metrics": ["uar", "snr", "pesq", "stoi"],
    "attacks": [
        {"name": "ifgsm", "domain": "waveform", "params": {"epsilon": 0.001, "steps": 3}},
        {"name": "ifgsm", "domain": "spectrogram", "delivery": ["features", "audio"],
         "params": {"epsilon": 0.06, "steps": 3}},
    ],
}  # fmt: skip


def corpus(folder: Path, seconds: int) -> None:
    """Write a third of the embedded corpus, and another clip of so many seconds."""
    source = Path(demo_data.__file__).parent
    rows = pd.read_csv(source / "metadata.csv", keep_default_na=False).iloc[::3]
    folder.mkdir()
    for file in rows["file"]:
        shutil.copy(source / file, folder)
    samples, rate = soundfile.read(source / rows["file"].iloc[0], dtype="int16")
    soundfile.write(folder / LONG, np.resize(samples, seconds * rate), rate)
    whole = pd.concat([rows, rows.iloc[:1].assign(file=LONG)])
    whole.to_csv(folder / "metadata.csv", index=False)


@pytest.mark.hour
def test_a_clip_of_an_hour_is_trained_on_attacked_and_evaluated(tmp_path: Path) -> None:
    corpus(tmp_path / "corpus", 3600)
    (tmp_path / "hour.yaml").write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    command = [ADVSER, "run", "hour.yaml", "--data", "folder=corpus", "--store", "store", "--out", "out"]
    measured = [sys.executable, "-c", MEASURED, *map(str, command)]
    done = subprocess.run(measured, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1]) < 6_000_000, "kilobytes"
    results = Results.load(tmp_path / "out")
    table = results.table[~results.table["model"].isin(CHANCE_BASELINES)]
    assert set(table["status"]) == {"ok", "not-applicable"}
    assert (table["reason"] != "")[table["n_failed"] > 0].all()
    audible = table[(table["attack"] == "ifgsm") & (table["delivery"] == "audio")]
    # The long clip is a test clip of one fold. SNR has a value for it; PESQ and STOI refuse it.
    assert audible.groupby("metric")["n_failed"].unique().map(list).to_dict() == {
        "uar": [0], "snr": [0], "pesq": [1], "stoi": [1]
    }  # fmt: skip
    reasons = audible.set_index("metric")["reason"]
    assert reasons[["pesq"]].str.endswith("the clip is 3600.0 s long, PESQ takes 20 s").all()
    assert reasons[["stoi"]].str.endswith("is 3600.0 s long, STOI takes 600 s").all()
    long = results.examples[(results.examples["clip"] == LONG) & (results.examples["attack"] == "ifgsm")]
    assert len(long) == 3
    assert (long["prediction"] >= 0).all()


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
