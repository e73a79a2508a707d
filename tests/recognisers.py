"""A Whisper with random weights, converted for CTranslate2 like published models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import advser.audio.torchaudio  # noqa: F401 (before transformers, which imports torchaudio)

SMALL: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip


def save_whisper(folder: Path, **sizes: int) -> Path:
    """Write a Whisper with a vocabulary in the real layout; return its folder for faster-whisper."""
    import tokenizers
    import transformers
    from ctranslate2.converters import TransformersConverter
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"Ġw{number}" for number in range(50257 - len(letters)))]
    specials = ["endoftext", "startoftranscript", *_LANGUAGE_CODES[:99], "translate", "transcribe", "startoflm",
                "startofprev", "nospeech", "notimestamps", *(f"{step * 0.02:.2f}" for step in range(1501))]  # fmt: skip
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({word: number for number, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([f"<|{name}|>" for name in specials])
    config = transformers.WhisperConfig(
        **(SMALL | sizes), vocab_size=tokenizer.get_vocab_size(), init_std=0.5, pad_token_id=50257,
        bos_token_id=50257, eos_token_id=50257, decoder_start_token_id=50258, suppress_tokens=[],
        begin_suppress_tokens=[],
    )  # fmt: skip
    source, target = folder / "source", folder / "random"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.WhisperForConditionalGeneration(config).save_pretrained(source)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(source)
    TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(str(target))
    return target
