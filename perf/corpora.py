"""Corpora of any size."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile


def corpus(folder: Path, times: int) -> None:
    """Write ``times`` copies of the demo corpus, each with its own faint noise."""
    source = Path(str(files("advser.corpora") / "demo_data"))
    rows = pd.read_csv(source / "metadata.csv", keep_default_na=False)
    noise = np.random.default_rng(0)
    copies = []
    folder.mkdir(parents=True)
    for number in range(times):
        for file in rows["file"]:
            samples, rate = soundfile.read(source / file, dtype="int16")
            noisy = samples.astype(np.int32) + noise.integers(-2, 3, samples.shape)
            soundfile.write(folder / f"{number}_{file}", noisy.clip(-32768, 32767).astype(np.int16), rate)
        copies.append(rows.assign(file=f"{number}_" + rows["file"]))
    pd.concat(copies).to_csv(folder / "metadata.csv", index=False)
