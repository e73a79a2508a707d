"""The stages of a run: each a pure function from a task to a stored artefact."""

__affects_results__ = False

STAGES = {
    "prepare": "advser.stages.prepare:prepare",
    "train": "advser.stages.train:train",
    "learn": "advser.stages.learn:learn",
    "craft": "advser.stages.craft:craft",
    "predict": "advser.stages.judge:predict",
    "measure": "advser.stages.judge:measure",
    "transcribe": "advser.stages.judge:transcribe",
    "examine": "advser.stages.judge:examine",
    "probe": "advser.stages.probes.probe:probe",
}
"""Stage name → function from a `Task` to an artefact."""

PACKAGES = {
    "prepare": ("soundfile", "torch", "torchaudio"),
    "train": ("torch", "torchaudio"),
    "learn": ("torch", "torchaudio"),
    "craft": ("torch", "torchaudio"),
    "predict": ("torch", "torchaudio"),
    "measure": (),
    "transcribe": ("jiwer",),
    "examine": ("torch", "torchaudio"),
    "probe": ("torch", "torchaudio"),
}
"""Stage name → distributions whose versions decide its result."""
