"""Clips per second of the measuring stages, with all cores in use, against PESQ, STOI and Whisper in a row."""

from __future__ import annotations

import json
from pathlib import Path

from contest import CORES, as_one_worker, as_workers, contest
from judges import FOLD, METRICS, ours, stored, theirs
from measuring import Figure, Table
from recognisers import save_whisper

from advser.stages.prepare import load_prepared
from advser.store.artefacts import Store


def test_judging(tmp_path: Path, table: Table) -> None:
    """Measure PESQ, STOI and a very small Whisper with random weights and greedy search."""
    whisper = save_whisper(tmp_path / "whisper", d_model=64, encoder_ffn_dim=256, decoder_ffn_dim=256)
    store = Store(tmp_path / "store")
    artefacts = stored(store)
    keys = {role: artefact.folder.name for role, artefact in artefacts.items()}
    (store.root / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    clips = len(load_prepared(artefacts["prepared"]).folds[FOLD].test)
    taken = contest([as_workers(ours, store.root, whisper), as_one_worker(theirs, store.root, whisper)], 9)
    for name in (*METRICS, "faster-whisper"):
        rate, reference = clips / taken[name], clips / taken[f"{name} in a row"]
        table.add(Figure("judging", name, rate, reference, "called in a row", "clips/s", 0.9 * CORES, at_least=True))
