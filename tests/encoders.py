"""Tiny encoders with random weights, in the files of transformers' `save_pretrained`, as published encoders."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import advser.audio.torchaudio  # noqa: F401 (before transformers, which imports torchaudio)

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 4, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
FRAME, HOP = 105, 80
"""Length and distance of frames in samples."""

KINDS = [
    ("data2vec-audio", "layer"),
    *((family, norm) for family in ("hubert", "wav2vec2", "wavlm") for norm in ("group", "layer")),
]
"""Every family with every normalisation of its convolutions."""


@cache
def _home() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="advser-encoders-")


@cache
def tiny_encoder(family: str = "wav2vec2", norm: str = "group") -> str:
    """Return a folder with an encoder; it exists until the process ends."""
    folder = Path(_home().name, f"{family}-{norm}")
    save_encoder(folder, family, norm)
    return str(folder)


def save_encoder(folder: Path, family: str = "wav2vec2", norm: str = "group", **settings: Any) -> None:
    """Write an encoder; with layer normalisation it has the structure of the large published encoders."""
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    normalisation: dict[str, Any] = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    if family == "data2vec-audio":
        normalisation = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
    config = AutoConfig.for_model(family, **(SMALL | normalisation | settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = AutoModel.from_config(config)
        with torch.no_grad():
            for weight in encoder.parameters():
                # transformers initialises biases with 0, which would hide leaks of padding into a layer.
                weight.add_(0.1 * torch.randn(weight.shape))
    encoder.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=family != "wavlm").save_pretrained(folder)
