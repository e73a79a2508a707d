"""What is specific to the models on pretrained encoders and on the functionals of eGeMAPS."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from encoders import FRAME, HOP, KINDS, save_encoder, tiny_encoder
from places import DEMO
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, multi_margin_loss

from advser.audio.clips import sound_mask
from advser.audio.pcm import SAMPLE_RATE
from advser.errors import InputError
from advser.models import egemaps
from advser.models.egemaps import EgemapsSVM, functionals
from advser.models.pretrained import Pretrained
from advser.stages.train import WEIGHTS

EMOTIONS = ("anger", "happiness", "neutral", "sadness")
TRAINED = "[mf][12]_*_[12].flac"
LENGTHS = torch.tensor([8000, 4000, 50, 6173, 4000])
"""Samples; one clip is shorter than a frame, two are of equal length."""


def noise(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Sound (5, 8000) of unequal lengths (5,), and labels (5,) of three classes."""
    sound = 0.1 * torch.randn(5, 8000, generator=torch.Generator().manual_seed(seed)) + 0.02
    return sound * sound_mask(LENGTHS, 8000), LENGTHS.clone(), torch.tensor([0, 1, 2, 0, 1])


def speech(pattern: str) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of the demo corpus: waveforms (B, T), lengths (B,), labels (B,)."""
    files = sorted(DEMO.glob(pattern))
    clips = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    labels = torch.tensor([EMOTIONS.index(file.stem.split("_")[1]) for file in files])
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips]), labels


def made(family: str = "wav2vec2", norm: str = "group", **params: Any) -> Pretrained:
    torch.manual_seed(0)
    return Pretrained(3, encoder=tiny_encoder(family, norm), **params)


every_kind = pytest.mark.parametrize(("family", "norm"), KINDS)


@every_kind
def test_an_encoder_judges_a_clip_alike_alone_and_in_a_padded_batch(family: str, norm: str) -> None:
    model = made(family, norm).eval()
    waveform, lengths, _ = noise()
    padded = nn.functional.pad(waveform, (0, 3000))
    together = model.outputs(padded, lengths, "waveform")
    assert together.embedding.shape == (5, 32)
    for row, length in enumerate(lengths):
        alone = model.outputs(waveform[row : row + 1, :length], lengths[row : row + 1], "waveform")
        torch.testing.assert_close(together.embedding[row : row + 1], alone.embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.logits[row : row + 1], alone.logits, rtol=1e-4, atol=1e-5)


@every_kind
def test_embedding_is_the_mean_of_what_the_library_itself_computes(family: str, norm: str) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    folder = tiny_encoder(family, norm)
    waveform, _, _ = noise()
    extract, encoder = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    values = extract(waveform[0].numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
    states = encoder(values).last_hidden_state
    assert states.shape[1] == (8000 - FRAME) // HOP + 1
    found = made(family, norm).eval().outputs(waveform[:1], LENGTHS[:1], "waveform").embedding
    torch.testing.assert_close(found, states.mean(1), rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_are_counted_as_the_library_counts_them(family: str, norm: str, layer: int) -> None:
    waveform, lengths, _ = noise()
    whole, cut = made(family, norm).eval(), made(family, norm, layer=layer).eval()
    outputs = whole.encoder(whole.frontend(waveform[:1], lengths[:1])[:, 0], output_hidden_states=True)
    # Some versions of the library leave out the last layer's normalisation in the list of all states.
    states = outputs.last_hidden_state if layer == 2 else outputs.hidden_states[layer]
    found = cut.outputs(waveform[:1], lengths[:1], "waveform").embedding
    torch.testing.assert_close(found, states.mean(1), rtol=1e-4, atol=1e-5)
    assert len(cut.encoder.encoder.layers) == layer


@every_kind
def test_a_gradient_reaches_the_sound_through_frozen_weights(family: str, norm: str) -> None:
    model = made(family, norm).eval()
    waveform, lengths, labels = noise()
    waveform.requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(waveform, lengths), labels), waveform)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(1) > 0).all()
    assert not gradient[~sound_mask(lengths, 8000)].any()


@every_kind
@pytest.mark.parametrize("freeze", ["encoder", "convolutions", "nothing"])
def test_what_is_frozen_keeps_its_weights(family: str, norm: str, freeze: Any) -> None:
    model = made(family, norm, freeze=freeze)
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


def test_training_draws_from_torch_alone() -> None:
    model = made(freeze="nothing").train()
    waveform, lengths, _ = noise()
    drawn = []
    for seed in (1, 2, 2):
        np.random.seed(len(drawn))
        torch.manual_seed(seed)
        drawn.append(model(waveform, lengths))
    assert torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_sound_is_normalised_as_the_encoder_wants_it() -> None:
    waveform, lengths, _ = noise()
    sound = made("wav2vec2").frontend(waveform, lengths)
    assert sound.shape == (5, 1, 8000)
    for clip, length in zip(sound[:, 0], lengths, strict=True):
        assert clip[:length].mean().item() == pytest.approx(0, abs=1e-5)
        assert clip[:length].std(correction=0).item() == pytest.approx(1, abs=1e-3)
        assert not clip[length:].any()
    assert torch.equal(made("wavlm").frontend(waveform, lengths)[:, 0], waveform)


def test_silence_has_finite_logits_and_gradient() -> None:
    model = made().eval()
    waveform = torch.zeros(2, 3000, requires_grad=True)
    logits = model(waveform, torch.tensor([3000, 1]))
    (gradient,) = torch.autograd.grad(logits.sum(), waveform)
    assert logits.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("family", "norm"), [("wav2vec2", "layer"), ("wavlm", "layer"), ("hubert", "group")])
def test_an_encoder_runs_in_bfloat16(family: str, norm: str) -> None:
    model = made(family, norm, freeze="nothing").train()
    waveform, lengths, labels = noise()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(model(waveform, lengths), labels)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@every_kind
def test_fine_tuned_weights_survive_a_checkpoint(family: str, norm: str, tmp_path: Path) -> None:
    model, other = made(family, norm, freeze="nothing", layer=1), made(family, norm, freeze="nothing", layer=1)
    waveform, lengths, _ = noise()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / WEIGHTS)
    assert not torch.equal(other.eval()(waveform, lengths), model.eval()(waveform, lengths))
    other.load_state_dict(load_file(tmp_path / WEIGHTS))
    other = other.to("cpu", memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    assert torch.equal(other(waveform, lengths), model(waveform, lengths))


def test_weights_under_their_published_names_are_found(tmp_path: Path) -> None:
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
    assert torch.equal(Pretrained(3, encoder=str(tmp_path)).eval()(waveform, lengths), made().eval()(waveform, lengths))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    shutil.copytree(tiny_encoder(), tmp_path, dirs_exist_ok=True)
    weights = {name: weight.half() for name, weight in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"dtype": "float16", "torch_dtype": "float16"}))
    assert {weight.dtype for weight in Pretrained(3, encoder=str(tmp_path)).parameters()} == {torch.float32}


def test_loading_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    tiny_encoder("hubert")
    level = logging.get_verbosity()
    capfd.readouterr()
    made("hubert")
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()


def test_fingerprint_is_of_the_encoder_and_not_of_its_place(tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return Pretrained.fingerprint({"encoder": str(folder), "revision": "main"})

    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(tiny_encoder(), here)
    shutil.copytree(tiny_encoder(), there)
    (there / "README.md").write_text("An encoder.")
    first = fingerprint(here)
    assert fingerprint(there) == first
    with (there / "preprocessor_config.json").open("a") as file:
        file.write("\n")
    second = fingerprint(there)
    weights = load_file(here / "model.safetensors")
    save_file(weights | {next(iter(weights)): torch.zeros(1)}, here / "model.safetensors", {"format": "pt"})
    assert len({first, second, fingerprint(here)}) == 3


def test_a_cached_name_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_encoder(), cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    torch.manual_seed(0)
    waveform, lengths, _ = noise()
    found = Pretrained(3, encoder="someone/tiny").eval()(waveform, lengths)
    assert torch.equal(found, made().eval()(waveform, lengths))
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
    (folder / "mine.py").write_text("raise SystemExit('code of a checkpoint was run')")


def lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (shutil.rmtree, "got '.*encoder'.*neither a folder nor a name"),
        (pickled, r"without model\.safetensors, .*pickled weights are never read"),
        (without_settings, r"without config\.json, preprocessor_config\.json, allowed"),
        (other_rate, "sampling_rate: got 8000 Hz, expected 16000 Hz"),
        (other_family, "model_type: got 'bert', expected data2vec-audio, hubert, wav2vec2, wavlm"),
        (own_code, "cannot be loaded"),
        (lacking, r"the weights lack encoder\.layers\.1\.\S+ and \d+ more, expected all of a wav2vec2 encoder"),
        (cut_short, "cannot be loaded"),
    ],
)
def test_an_unusable_encoder_is_refused(spoil: Any, complaint: str, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    spoil(folder)
    with pytest.raises(InputError, match=rf"^model 'pretrained': .*(?:{complaint})") as caught:
        Pretrained(3, encoder=str(folder))
    assert "\n" not in str(caught.value)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"^model 'pretrained': layer: got 3, expected with .*: at most 2$"):
        made(layer=3)


def test_published_encoders_have_frames_of_25_ms_every_20_ms(tmp_path: Path) -> None:
    shape = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_dim": (8,) * 7}
    save_encoder(tmp_path, **shape)
    model = Pretrained(3, encoder=str(tmp_path)).eval()
    states = []
    model.encoder.register_forward_hook(lambda module, inputs, outputs: states.append(outputs.last_hidden_state))
    for samples in (1, 400, 719, 720, 16_000):
        model(torch.zeros(1, samples), torch.tensor([samples]))
    assert [state.shape[1] for state in states] == [1, 1, 1, 2, 49]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    monkeypatch.setitem(sys.modules, request.param, None)
    egemaps._opensmile.cache_clear()
    yield request.param
    egemaps._opensmile.cache_clear()


@pytest.mark.parametrize("absent", ["transformers"], indirect=True)
def test_without_transformers_the_extra_is_named(absent: str) -> None:
    with pytest.raises(InputError, match=r"transformers is not installed; .*: pip install '\.\[transformers\]' "):
        Pretrained(3, encoder=tiny_encoder())


@pytest.mark.parametrize("absent", ["opensmile"], indirect=True)
def test_without_opensmile_the_extra_is_named(absent: str) -> None:
    with pytest.raises(InputError, match=r"opensmile is not installed; .*: pip install '\.\[opensmile\]' "):
        EgemapsSVM(3)


@pytest.mark.parametrize("absent", ["sklearn.svm"], indirect=True)
def test_without_scikit_learn_the_extra_is_named(absent: str) -> None:
    with pytest.raises(InputError, match=r"scikit-learn is not installed; .*: pip install '\.\[opensmile\]' "):
        fitted(EgemapsSVM(4), "m1_*_1.flac")


def fitted(model: EgemapsSVM, pattern: str) -> EgemapsSVM:
    waveform, lengths, labels = speech(pattern)
    model.frontend.fit([(waveform, lengths)])
    model.fit([(waveform, lengths, labels)])
    return model.eval()


@pytest.fixture(scope="module")
def machines() -> EgemapsSVM:
    """Trained on two clips of each emotion by each of four voices; a test leaves it as it is."""
    return fitted(EgemapsSVM(4), TRAINED)


def test_functionals_are_those_of_opensmile() -> None:
    from opensmile import FeatureLevel, FeatureSet, Smile

    waveform, lengths, _ = speech("f1_*_1.flac")
    smile = Smile(feature_set=FeatureSet.eGeMAPSv02, feature_level=FeatureLevel.Functionals)
    for row, length in enumerate(lengths):
        expected = smile.process_signal(waveform[row, :length].numpy(), SAMPLE_RATE)
        assert expected.shape == (1, 88)
        found = functionals(waveform[row : row + 1], lengths[row : row + 1])
        np.testing.assert_array_equal(found.numpy(), expected.to_numpy())


def test_functionals_are_standardised_over_the_training_data() -> None:
    model = EgemapsSVM(4)
    waveform, lengths, _ = speech("m1_*_[12].flac")
    model.frontend.fit([(waveform[:3], lengths[:3]), (waveform[3:], lengths[3:])])
    features = model.frontend(waveform, lengths)
    assert features.shape == (8, 88, 1)
    torch.testing.assert_close(features.mean(0), torch.zeros(88, 1), rtol=0, atol=1e-4)
    spread = features.std(0, correction=0)
    varying = spread > 0
    torch.testing.assert_close(spread[varying], torch.ones(int(varying.sum())), rtol=0, atol=1e-3)
    assert varying.sum() > 80


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_a_clip_without_functionals_is_an_average_one() -> None:
    waveform, lengths, labels = speech("m1_*_1.flac")
    short = lengths.clone()
    short[0] = 300
    one, other = EgemapsSVM(4), EgemapsSVM(4)
    one.frontend.fit([(waveform, short)])
    other.frontend.fit([(waveform[1:], lengths[1:])])
    assert functionals(waveform[:1], short[:1]).isnan().all()
    torch.testing.assert_close(one.frontend.state_dict(), other.frontend.state_dict())
    assert not one.frontend(waveform[:1], short[:1]).any()
    one.fit([(waveform, short, labels)])
    assert all(value.isfinite().all() for value in one.state_dict().values())


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_functionals_that_no_training_clip_has_decide_nothing() -> None:
    model = EgemapsSVM(4)
    waveform, lengths, labels = speech("m1_*_1.flac")
    short = torch.full_like(lengths, 300)
    model.frontend.fit([(waveform, short)])
    model.fit([(waveform, short, labels)])
    assert not model.head.weight.any()
    assert model(waveform, lengths).isfinite().all()


def test_logits_are_the_decision_values_of_one_machine_a_class(machines: EgemapsSVM) -> None:
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    waveform, lengths, labels = speech(TRAINED)
    values = functionals(waveform, lengths).double().numpy()
    scaler = StandardScaler().fit(values)
    machine = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(scaler.transform(values), labels)
    expected = torch.from_numpy(machine.decision_function(scaler.transform(values))).float()
    torch.testing.assert_close(machines(waveform, lengths), expected, rtol=1e-3, atol=1e-3)


def test_the_machines_know_emotions_of_unheard_voices(machines: EgemapsSVM) -> None:
    waveform, lengths, labels = speech("[mf]3_*_[12].flac")
    assert (machines(waveform, lengths).argmax(1) == labels).float().mean() > 0.5


def test_two_classes_have_opposite_machines_and_an_absent_one_says_no() -> None:
    model = EgemapsSVM(3)
    waveform, lengths, labels = speech("m1_*_[12].flac")
    model.frontend.fit([(waveform, lengths)])
    model.fit([(waveform, lengths, torch.where(labels == 1, 2, 0))])
    logits = model(waveform, lengths)
    torch.testing.assert_close(logits[:, 0], -logits[:, 2])
    assert torch.equal(logits[:, 1], torch.full((len(labels),), -1.0))
    assert torch.equal(logits.argmax(1), torch.where(labels == 1, 2, 0))


def test_fitting_again_gives_the_same_weights(machines: EgemapsSVM, tmp_path: Path) -> None:
    save_file(fitted(EgemapsSVM(4), TRAINED).state_dict(), tmp_path / WEIGHTS)
    again = load_file(tmp_path / WEIGHTS)
    assert {name: tuple(value.shape) for name, value in again.items()} == {
        "frontend.mean": (88,), "frontend.std": (88,), "head.weight": (4, 88), "head.bias": (4,)
    }  # fmt: skip
    assert all(torch.equal(again[name], value) for name, value in machines.state_dict().items())


def test_larger_c_fits_the_training_clips_more_closely() -> None:
    waveform, lengths, labels = speech("m1_*_[12].flac")
    losses = [
        multi_margin_loss(fitted(EgemapsSVM(4, c=c), "m1_*_[12].flac")(waveform, lengths), labels).item()
        for c in (1e-4, 1.0)
    ]
    assert losses[0] > losses[1]


def test_sound_is_heard_in_16_bits(machines: EgemapsSVM) -> None:
    """Else an attack that asks for scores would follow what is rounded away before its result is judged."""
    waveform, lengths, _ = speech("f1_*_1.flac")
    assert torch.equal(machines(waveform + 1e-6, lengths), machines(waveform, lengths))
    assert torch.equal(machines((waveform * 40).clamp(-1, 1), lengths), machines(waveform * 40, lengths))


def test_no_gradient_reaches_the_sound(machines: EgemapsSVM) -> None:
    waveform, lengths, _ = speech("f1_anger_1.flac")
    assert not machines.frontend(waveform.requires_grad_(), lengths).requires_grad
    assert not machines.differentiable
