"""Encoders pretrained on unlabelled speech, from transformers: wav2vec 2.0, HuBERT, WavLM and data2vec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import pad

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.errors import InputError
from advser.models.base import EmotionModel, FrontEnd
from advser.plugins.extras import not_installed
from advser.plugins.parameters import parameter
from advser.store.digests import contents_digest

FAMILIES: Final = ("data2vec-audio", "hubert", "wav2vec2", "wavlm")
"""Supported encoders, by ``model_type``."""

NEEDED: Final = {
    "config.json": ("config.json",),
    "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    "model.safetensors": ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
}
"""Parts of an encoder, and the file names for each, of which at least one must exist. No such file can run code."""

FILES: Final = tuple(pattern for patterns in NEEDED.values() for pattern in patterns)
"""Patterns of the files that are downloaded, read and hashed."""


class Utterance(FrontEnd):
    """The sound itself (B, 1, T), zero after each clip's end; if ``normalises``, with mean 0 and variance 1 per clip.

    As in transformers' feature extractor, 1e-7 is added to the variance.
    """

    def __init__(self, *, normalises: bool) -> None:
        super().__init__()
        self.normalises = normalises

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the sound (B, 1, T) of ``waveform`` (B, T)."""
        inside = sound_mask(lengths, waveform.shape[1])
        sound = waveform * inside
        if self.normalises:
            count = lengths[:, None]
            sound = (sound - sound.sum(1, keepdim=True) / count) * inside
            sound = sound / (sound.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
        return sound[:, None]

    def mask(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, 1, T): true before each clip's end."""
        return sound_mask(lengths, waveform.shape[1])[:, None]


class Pretrained(EmotionModel):
    """A pretrained speech encoder of the transformers library and one linear layer on its mean over time.

    Embedding: (B, hidden size), the mean output of the last transformer layer, or of layer ``layer``, over a clip's
    frames (20 ms in the published encoders). Frozen parts are in evaluation mode even during training. Dropout follows
    the encoder's configuration. SpecAugment is off because it draws from numpy's global generator, and layer drop
    because it leaves weights without a gradient.

    Weights are read from safetensors only: pickled weights are refused, and code of a checkpoint never runs. A name is
    read from Hugging Face's cache, or downloaded if it is not cached and the environment variable ``HF_HUB_OFFLINE`` is
    not 1. Every loading of the model reads the encoder: a local folder needs the same path on every worker.
    """

    citation: ClassVar[str] = (
        "encoders: Baevski et al.: wav2vec 2.0, NeurIPS 2020; Hsu et al.: HuBERT, TASLP 29, 2021; Chen et al.: WavLM, "
        "JSTSP 16, 2022; Baevski et al.: data2vec, ICML 2022; head: Yang et al.: SUPERB, Interspeech 2021, sec. 2.2"
    )
    spectrogram: ClassVar[bool] = False

    packages: ClassVar[tuple[str, ...]] = ("transformers", "safetensors")
    """Distributions whose versions affect the outputs, beside those of the training stage."""

    def __init__(
        self,
        classes: int,
        *,
        encoder: Annotated[
            str, parameter(min_length=1, about="name on the Hugging Face Hub, or local folder")
        ] = "facebook/wav2vec2-base-960h",
        revision: Annotated[str, parameter(about="commit hash, tag or branch of a name on the Hub")] = "main",
        freeze: Annotated[
            Literal["encoder", "convolutions", "nothing"],
            parameter(about="frozen part: the whole encoder, its convolutions on the sound, or nothing"),
        ] = "encoder",
        layer: Annotated[
            int | None,
            parameter(ge=0, about="transformer layer of the output; 0: the first layer's input; none: the last"),
        ] = None,
    ) -> None:
        super().__init__()
        folder = located(encoder, revision)
        self.encoder, normalises = _loaded(folder)
        if layer is not None:
            _cut(self.encoder, layer, folder)
        self.frontend = Utterance(normalises=normalises)
        self.head = nn.Linear(self.encoder.config.hidden_size, classes)
        self._frozen: tuple[nn.Module, ...] = {
            "encoder": (self.encoder,),
            "convolutions": (self.encoder.feature_extractor,),
            "nothing": (),
        }[freeze]
        for part in self._frozen:
            part.eval().requires_grad_(requires_grad=False)

    @classmethod
    def fingerprint(cls, params: Mapping[str, Any]) -> str:
        """Return a hash of the encoder's files, which are downloaded if they are not cached.

        Raises:
            InputError: as the constructor, if the encoder does not exist.
        """
        folder = located(params["encoder"], params["revision"])
        return contents_digest((path for pattern in FILES for path in folder.glob(pattern)), folder)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen parts."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings (B, hidden size) of features (B, 1, T); a clip shorter than one frame is padded to it."""
        shortest = _samples(self.encoder.config)
        sound = pad(features[:, 0], (0, max(shortest - features.shape[2], 0)))
        lengths = lengths.clamp_min(shortest)
        batches = self._batches(lengths)
        pooled = torch.cat([self._pooled(sound[rows, : int(lengths[rows].max())], lengths[rows]) for rows in batches])
        return pooled[torch.cat(batches).argsort()]

    def _batches(self, lengths: Tensor) -> list[Tensor]:
        """Return indices of clips that may share a batch: all clips, or only those of equal length.

        The attention mask keeps padding out of the attention, and the library keeps it out of the first positional
        convolution. Padding does leak into group normalisation, whose statistics are over time, into later
        convolutions, and into a convolution after a normalisation.
        """
        config = self.encoder.config
        leaks = (
            config.model_type == "data2vec-audio"
            or config.feat_extract_norm == "group"
            or getattr(config, "conv_pos_batch_norm", False)
        )
        if not leaks:
            return [torch.arange(len(lengths), device=lengths.device)]
        return [(lengths == length).nonzero().squeeze(1) for length in set(lengths.tolist())]

    def _pooled(self, sound: Tensor, lengths: Tensor) -> Tensor:
        inside = sound_mask(lengths, sound.shape[1])
        states: Tensor = self.encoder(sound, attention_mask=None if inside.all() else inside.long()).last_hidden_state
        frames = _frames(self.encoder.config, lengths)
        inside = sound_mask(frames, states.shape[1])[:, :, None]
        return states.masked_fill(~inside, 0).sum(1) / frames[:, None]


def located(encoder: str, revision: str) -> Path:
    """Return the folder of an encoder: a local folder, or a folder in Hugging Face's cache, after a download if needed.

    Raises:
        InputError: if the encoder does not exist, cannot be downloaded, or lacks a part of `NEEDED`.
    """
    folder = Path(encoder) if Path(encoder).is_dir() else _snapshot(encoder, revision)
    if missing := _missing(folder):
        raise InputError(
            f"model 'pretrained': encoder: got '{encoder}' ({revision}) without {', '.join(missing)}, expected a "
            "folder or revision with all files of transformers' save_pretrained; pickled weights are never read"
        )
    return folder


def _missing(folder: Path) -> list[str]:
    """Return the parts that an encoder's folder lacks."""
    return [part for part, patterns in NEEDED.items() if not any(any(folder.glob(pattern)) for pattern in patterns)]


def _snapshot(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = list(FILES)
    try:
        # The cache first: every job of a run then reads the same files, without the network.
        cached = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
        if not _missing(cached):
            return cached
    except (OSError, ValueError):
        pass
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HFValidationError:
        raise InputError(
            f"model 'pretrained': encoder: got '{name}', expected a folder or a name such as facebook/wav2vec2-base"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"model 'pretrained': encoder: got '{name}' ({revision}), expected a folder, or a name on the Hugging "
            f"Face Hub that is cached or can be downloaded ({_single_line(error)})"
        ) from error


def _transformers() -> ModuleType:
    # transformers imports torchaudio, which must be repaired before, beside a CPU build of torch.
    import advser.audio.torchaudio  # noqa: F401

    try:
        import transformers
    except ImportError as error:
        raise not_installed("model 'pretrained'", "transformers") from error
    library: ModuleType = transformers
    return library


def _loaded(folder: Path) -> tuple[Any, bool]:
    """Return the encoder in float32 and in evaluation mode, and whether its input is normalised."""
    transformers = _transformers()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet(transformers):
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            if config.model_type not in FAMILIES:
                raise ValueError(f"model_type: got '{config.model_type}', expected {', '.join(FAMILIES)}")
            extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **local)
            if extractor.sampling_rate != SAMPLE_RATE:
                raise ValueError(f"sampling_rate: got {extractor.sampling_rate} Hz, expected {SAMPLE_RATE} Hz")
            config.update({"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "add_adapter": False})
            encoder, report = transformers.AutoModel.from_pretrained(
                folder, config=config, use_safetensors=True, output_loading_info=True, **local
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"model 'pretrained': {folder}: cannot be loaded: {_single_line(error)}") from error
    if report["missing_keys"]:
        raise InputError(
            f"model 'pretrained': {folder}: got weights without {min(report['missing_keys'])} and "
            f"{len(report['missing_keys']) - 1} more, expected all weights of a {config.model_type} encoder"
        )
    return encoder.float(), bool(extractor.do_normalize)


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Suppress the library's reports of progress and of unused weights, within the context."""
    log = transformers.utils.logging
    level, shows_progress = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shows_progress:
            log.enable_progress_bar()


def _cut(encoder: Any, layer: int, folder: Path) -> None:
    """Remove the transformer layers above ``layer``, and the normalisation of the last layer's output.

    Raises:
        InputError: if the encoder has fewer layers.
    """
    depth = len(encoder.encoder.layers)
    if layer > depth:
        raise InputError(f"model 'pretrained': layer: got {layer}, expected at most {depth} for {folder}")
    encoder.encoder.layers = encoder.encoder.layers[:layer]
    if layer < depth and getattr(encoder.config, "do_stable_layer_norm", False):
        encoder.encoder.layer_norm = nn.Identity()


def _frames(config: Any, lengths: Tensor) -> Tensor:
    """Return the number of frames (B,) that the convolutions compute from ``lengths`` (B,) samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def _samples(config: Any) -> int:
    """Return the length of a frame in samples: the shortest sound that an encoder accepts."""
    samples = 1
    for kernel, stride in reversed([*zip(config.conv_kernel, config.conv_stride, strict=True)]):
        samples = (samples - 1) * stride + kernel
    return int(samples)


def _single_line(error: BaseException) -> str:
    return shorten(str(error), 300, placeholder=" …") or type(error).__name__
