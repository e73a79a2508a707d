"""The models on pretrained encoders."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import FRAME, HOP, KINDS, save_encoder, tiny_encoder
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.errors import InputError
from advser.models.pretrained import Pretrained
from advser.stages.train import WEIGHTS

LENGTHS = torch.tensor([8000, 4000, 50, 6173, 4000])
"""Samples; one clip is shorter than a frame, two are of equal length."""


def noise(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return sound (5, 8000) of unequal lengths (5,), and labels (5,) of three classes."""
    sound = 0.1 * torch.randn(5, 8000, generator=torch.Generator().manual_seed(seed)) + 0.02
    return sound * sound_mask(LENGTHS, 8000), LENGTHS.clone(), torch.tensor([0, 1, 2, 0, 1])


def pretrained(family: str = "wav2vec2", norm: str = "group", **params: Any) -> Pretrained:
    torch.manual_seed(0)
    return Pretrained(3, encoder=tiny_encoder(family, norm), **params)


every_kind = pytest.mark.parametrize(("family", "norm"), KINDS)


@every_kind
def test_the_outputs_of_a_clip_do_not_depend_on_the_batch_or_padding(family: str, norm: str) -> None:
    model = pretrained(family, norm).eval()
    waveform, lengths, _ = noise()
    padded = nn.functional.pad(waveform, (0, 3000))
    together = model.outputs(padded, lengths, "waveform")
    assert together.embedding.shape == (5, 32)
    for row, length in enumerate(lengths):
        alone = model.outputs(waveform[row : row + 1, :length], lengths[row : row + 1], "waveform")
        torch.testing.assert_close(together.embedding[row : row + 1], alone.embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.logits[row : row + 1], alone.logits, rtol=1e-4, atol=1e-5)


@every_kind
def test_the_embedding_is_the_mean_of_the_states_of_the_library(family: str, norm: str) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    folder = tiny_encoder(family, norm)
    waveform, _, _ = noise()
    extract, encoder = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    values = extract(waveform[0].numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
    states = encoder(values).last_hidden_state
    assert states.shape[1] == (8000 - FRAME) // HOP + 1
    embedding = pretrained(family, norm).eval().outputs(waveform[:1], LENGTHS[:1], "waveform").embedding
    torch.testing.assert_close(embedding, states.mean(1), rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_have_the_numbers_of_the_library(family: str, norm: str, layer: int) -> None:
    waveform, lengths, _ = noise()
    whole, cut = pretrained(family, norm).eval(), pretrained(family, norm, layer=layer).eval()
    outputs = whole.encoder(whole.frontend(waveform[:1], lengths[:1])[:, 0], output_hidden_states=True)
    # In some versions of the library the list of all states lacks the last layer's normalisation.
    states = outputs.last_hidden_state if layer == 2 else outputs.hidden_states[layer]
    embedding = cut.outputs(waveform[:1], lengths[:1], "waveform").embedding
    torch.testing.assert_close(embedding, states.mean(1), rtol=1e-4, atol=1e-5)
    assert len(cut.encoder.encoder.layers) == layer


@every_kind
def test_the_gradient_reaches_the_sound_through_frozen_weights(family: str, norm: str) -> None:
    model = pretrained(family, norm).eval()
    waveform, lengths, labels = noise()
    waveform.requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(waveform, lengths), labels), waveform)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(1) > 0).all()
    assert not gradient[~sound_mask(lengths, 8000)].any()


@every_kind
@pytest.mark.parametrize("freeze", ["encoder", "convolutions", "nothing"])
def test_frozen_parts_do_not_change(family: str, norm: str, freeze: Any) -> None:
    model = pretrained(family, norm, freeze=freeze)
    waveform, lengths, labels = noise()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    cross_entropy(model.train()(waveform, lengths), labels).backward()
    optimizer.step()
    for name, weight in model.named_parameters():
        frozen = {
            "encoder": name.startswith("encoder."),
            "convolutions": name.startswith("encoder.feature_extractor."),
            "nothing": False,
        }[freeze]
        assert weight.requires_grad is not frozen, name
        assert (weight.grad is None) is frozen, name
        assert torch.equal(weight, before[name]) or not frozen, name
    frozen_modules = {"encoder": model.encoder, "convolutions": model.encoder.feature_extractor}
    assert freeze == "nothing" or not any(module.training for module in frozen_modules[freeze].modules())
    assert model.encoder.encoder.training is (freeze != "encoder")


def test_training_uses_random_numbers_of_torch_alone() -> None:
    model = pretrained(freeze="nothing").train()
    waveform, lengths, _ = noise()
    logits = []
    for seed in (1, 2, 2):
        np.random.seed(len(logits))
        torch.manual_seed(seed)
        logits.append(model(waveform, lengths))
    assert torch.equal(logits[1], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_sound_is_normalised_as_the_encoder_s_configuration_requires() -> None:
    waveform, lengths, _ = noise()
    sound = pretrained("wav2vec2").frontend(waveform, lengths)
    assert sound.shape == (5, 1, 8000)
    for clip, length in zip(sound[:, 0], lengths, strict=True):
        assert clip[:length].mean().item() == pytest.approx(0, abs=1e-5)
        assert clip[:length].std(correction=0).item() == pytest.approx(1, abs=1e-3)
        assert not clip[length:].any()
    assert torch.equal(pretrained("wavlm").frontend(waveform, lengths)[:, 0], waveform)


def test_silence_has_finite_logits_and_gradient() -> None:
    model = pretrained().eval()
    waveform = torch.zeros(2, 3000, requires_grad=True)
    logits = model(waveform, torch.tensor([3000, 1]))
    (gradient,) = torch.autograd.grad(logits.sum(), waveform)
    assert logits.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("family", "norm"), [("wav2vec2", "layer"), ("wavlm", "layer"), ("hubert", "group")])
def test_an_encoder_runs_in_bfloat16(family: str, norm: str) -> None:
    model = pretrained(family, norm, freeze="nothing").train()
    waveform, lengths, labels = noise()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(waveform, lengths).isfinite().all()
    # Without oneDNN: with AMX, its gradient of a convolution's weight in bfloat16 is at random not finite, for finite
    # sound and weights (PyTorch 2.13, `nn.Conv1d(16, 16, 8, stride=4)` alone: once in 2,400 passes).
    with torch.backends.mkldnn.flags(enabled=False):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(waveform, lengths), labels)
        loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@every_kind
def test_a_checkpoint_restores_fine_tuned_weights(family: str, norm: str, tmp_path: Path) -> None:
    model, other = (
        pretrained(family, norm, freeze="nothing", layer=1),
        pretrained(family, norm, freeze="nothing", layer=1),
    )
    waveform, lengths, _ = noise()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / WEIGHTS)
    assert not torch.equal(other.eval()(waveform, lengths), model.eval()(waveform, lengths))
    other.load_state_dict(load_file(tmp_path / WEIGHTS))
    other = other.to("cpu", memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    assert torch.equal(other(waveform, lengths), model(waveform, lengths))


def test_weights_with_published_names_are_loaded(tmp_path: Path) -> None:
    """The published encoders are older than torch's parametrizations, and most are stored inside a larger model."""
    shutil.copytree(tiny_encoder(), tmp_path, dirs_exist_ok=True)
    new, old = "conv.parametrizations.weight.original", "conv.weight_"
    stored = {
        f"wav2vec2.{name}".replace(f"{new}0", f"{old}g").replace(f"{new}1", f"{old}v"): weight
        for name, weight in load_file(tmp_path / "model.safetensors").items()
    }
    stored["lm_head.weight"] = torch.zeros(5, 32)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    waveform, lengths, _ = noise()
    torch.manual_seed(0)
    assert torch.equal(
        Pretrained(3, encoder=str(tmp_path)).eval()(waveform, lengths), pretrained().eval()(waveform, lengths)
    )


def test_half_precision_is_converted_to_float32(tmp_path: Path) -> None:
    shutil.copytree(tiny_encoder(), tmp_path, dirs_exist_ok=True)
    weights = {name: weight.half() for name, weight in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"dtype": "float16", "torch_dtype": "float16"}))
    assert {weight.dtype for weight in Pretrained(3, encoder=str(tmp_path)).parameters()} == {torch.float32}


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    tiny_encoder("hubert")
    level = logging.get_verbosity()
    capfd.readouterr()
    pretrained("hubert")
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()


def test_the_fingerprint_depends_on_the_encoder_s_files_and_not_on_its_folder(tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return Pretrained.fingerprint({"encoder": str(folder), "revision": "main"})

    original, duplicate = tmp_path / "original", tmp_path / "duplicate"
    shutil.copytree(tiny_encoder(), original)
    shutil.copytree(tiny_encoder(), duplicate)
    (duplicate / "README.md").write_text("An encoder.")
    first = fingerprint(original)
    assert fingerprint(duplicate) == first
    with (duplicate / "preprocessor_config.json").open("a") as file:
        file.write("\n")
    second = fingerprint(duplicate)
    weights = load_file(original / "model.safetensors")
    save_file(weights | {next(iter(weights)): torch.zeros(1)}, original / "model.safetensors", {"format": "pt"})
    assert len({first, second, fingerprint(original)}) == 3


def test_a_cached_encoder_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_encoder(), cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected to the network"))
    torch.manual_seed(0)
    waveform, lengths, _ = noise()
    logits = Pretrained(3, encoder="someone/tiny").eval()(waveform, lengths)
    assert torch.equal(logits, pretrained().eval()(waveform, lengths))
    by_name, by_folder = ({"encoder": name, "revision": "main"} for name in ("someone/tiny", tiny_encoder()))
    assert Pretrained.fingerprint(by_name) == Pretrained.fingerprint(by_folder)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_settings(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "preprocessor_config.json").unlink()


def other_rate(folder: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)


def other_family(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "bert"}))


def own_code(folder: Path) -> None:
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(code))
    (folder / "mine.py").write_text("raise SystemExit('code of a checkpoint ran')")


def without_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    remaining = {name: weight for name, weight in weights.items() if "layers.1." not in name}
    save_file(remaining, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "got '.*encoder', expected a folder or a name"),
        (pickled, r"without model\.safetensors, .*pickled weights are never read"),
        (without_settings, r"without config\.json, preprocessor_config\.json, expected a folder"),
        (other_rate, "sampling_rate: got 8000 Hz, expected 16000 Hz"),
        (other_family, "model_type: got 'bert', expected data2vec-audio, hubert, wav2vec2, wavlm"),
        (own_code, "cannot be loaded"),
        (
            without_layer,
            r"weights without encoder\.layers\.1\.\S+ and \d+ more, expected all weights of a wav2vec2 encoder",
        ),
        (cut_short, "cannot be loaded"),
    ],
)
def test_an_unusable_encoder_is_rejected(spoil: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    spoil(folder)
    with pytest.raises(InputError, match=rf"^model 'pretrained': .*(?:{message})") as caught:
        Pretrained(3, encoder=str(folder))
    assert "\n" not in str(caught.value)


def test_a_layer_above_the_encoder_s_depth_is_rejected() -> None:
    with pytest.raises(InputError, match=r"^model 'pretrained': layer: got 3, expected at most 2 for "):
        pretrained(layer=3)


def test_published_encoders_have_frames_of_25_ms_every_20_ms(tmp_path: Path) -> None:
    shape = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_dim": (8,) * 7}
    save_encoder(tmp_path, **shape)
    model = Pretrained(3, encoder=str(tmp_path)).eval()
    states = []
    model.encoder.register_forward_hook(lambda module, inputs, outputs: states.append(outputs.last_hidden_state))
    for samples in (1, 400, 719, 720, 16_000):
        model(torch.zeros(1, samples), torch.tensor([samples]))
    assert [state.shape[1] for state in states] == [1, 1, 1, 2, 49]


def test_an_error_names_the_extra_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers is not installed; .*: pip install '\.\[transformers\]' "):
        Pretrained(3, encoder=tiny_encoder())
