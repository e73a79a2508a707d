"""The stages of a run: each a pure function from a task to a stored artefact."""

STAGES = {
    "prepare": "advser.stages.prepare:prepare",
    "train": "advser.stages.train:train",
    "craft": "advser.stages.craft:craft",
    "predict": "advser.stages.judge:predict",
    "measure": "advser.stages.judge:measure",
    "transcribe": "advser.stages.judge:transcribe",
}
"""Stage name → function from a `Task` to an artefact."""

PACKAGES = {
    "prepare": ("soundfile", "torch", "torchaudio"),
    "train": ("torch", "torchaudio"),
    "craft": ("torch", "torchaudio"),
    "predict": ("torch", "torchaudio"),
    "measure": (),
    "transcribe": ("jiwer",),
}
"""Stage name → distributions whose versions decide its result."""
