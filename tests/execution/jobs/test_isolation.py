"""What code of a plugin file cannot do: each fraud fails, or has the figures of its honest twin."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import soundfile
from commandline import advser, advser_here

from advser.execution.jobs.confinement import by_kernel
from advser.execution.jobs.isolation import Isolation
from advser.results.folder import Results

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not (Isolation.possible() and by_kernel()), reason="no Landlock on this system"),
]

SUITE = """
name: frauds
corpus: demo
protocol: loso
folds: [f1]
classes: [anger, sadness]
training: {iterations: 60, batch_size: 16, learning_rate: 2e-3}
models: [MODELS]
defenses: [DEFENSES]
attacks: [ATTACKS]
metrics: [accuracy, snr, forwards, backwardsMETRICS]
transcriber: none
noise: false
audit: false
"""

PRELUDE = '''
import gc, os, sys
from pathlib import Path
import numpy as np
import torch
import advser
from advser.defenses.base import Defense
from advser.metrics.base import ClipMetric
from advser.models.tiny import Tiny
from advser.plugins import Attack, budget
from pydantic import field_validator

STORE = Path(r"STORE_FOLDER")
SECRET = Path(r"SECRET_FILE")


def frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


def tensors(shape):
    """All integer tensors of a shape, wherever they are."""
    return [one for one in gc.get_objects() if isinstance(one, torch.Tensor) and one.dtype == torch.int64
            and one.shape == shape]
'''
ATTACKS = '''
class OneStep(Attack):
    """One step along the sign of the gradient."""
    citation = "none"
    domains = ("waveform",)
    epsilon: float = budget()
    def trick(self, target, x, labels):
        return labels
    def perturb(self, target, x, labels, generator):
        labels = self.trick(target, x, labels)
        return x + self.epsilon * target.gradient(x, labels).sign()


@advser.attack("honest")
class Honest(OneStep):
    """An honest attack."""


@advser.attack("labels-from-frames")
class LabelsFromFrames(OneStep):
    """Takes the true labels from the frames above, from artefacts in them, or from memory."""
    def trick(self, target, x, labels):
        for frame in frames():
            for value in list(frame.f_locals.values()):
                if hasattr(value, "targets") and hasattr(value, "lengths") and len(value.targets) == len(labels):
                    if value.targets.any():
                        return value.targets.clone()
        for other in tensors(labels.shape):
            if 0 < float(other.double().mean()) < 1 and not torch.equal(other, labels):
                return other.clone()
        return labels


@advser.attack("corpus-from-artefact")
class CorpusFromArtefact(OneStep):
    """Reads the labels of the prepared corpus."""
    def trick(self, target, x, labels):
        import pandas
        for frame in frames():
            task = frame.f_locals.get("task")
            if task is not None:
                pandas.read_parquet(task.inputs["prepared"].folder / "rows.parquet")
        return labels


@advser.attack("corpus-from-cache")
class CorpusFromCache(OneStep):
    """Asks the stage's own function for the prepared corpus."""
    def trick(self, target, x, labels):
        from advser.stages.prepare import load_prepared
        for frame in frames():
            task = frame.f_locals.get("task")
            if task is not None:
                return torch.from_numpy(load_prepared(task.inputs["prepared"]).targets[: len(labels)])
        return labels


@advser.attack("other-artefacts")
class OtherArtefacts(OneStep):
    """Lists the store, and reads all it can."""
    def trick(self, target, x, labels):
        raise RuntimeError(f"read {len([*STORE.rglob('*.safetensors')])} files of the store")


@advser.attack("secret-by-python")
class SecretByPython(OneStep):
    """Reads a file that no parameter names."""
    def trick(self, target, x, labels):
        SECRET.read_bytes()
        return labels


@advser.attack("secret-by-library")
class SecretByLibrary(OneStep):
    """Reads such a file by native code."""
    def trick(self, target, x, labels):
        import soundfile
        soundfile.read(SECRET)
        return labels


@advser.attack("secret-by-process")
class SecretByProcess(OneStep):
    """Reads such a file in another process."""
    def trick(self, target, x, labels):
        import subprocess
        subprocess.run(["cat", SECRET], check=True, capture_output=True)
        return labels


@advser.attack("overwrites-weights")
class OverwritesWeights(OneStep):
    """Changes the stored weights of its source."""
    def trick(self, target, x, labels):
        for frame in frames():
            task = frame.f_locals.get("task")
            if task is not None:
                (task.inputs["source"].folder / "weights.safetensors").write_bytes(b"")
        return labels


@advser.attack("larger-in-workers")
class LargerInWorkers(OneStep):
    """Has a ten times larger budget where jobs run."""
    @field_validator("epsilon")
    @classmethod
    def _larger(cls, value):
        return 10 * value if "temporary" in os.environ.get("TMPDIR", "") else value


@advser.attack("harness-without-budget")
class HarnessWithoutBudget(OneStep):
    """Takes the budget from the harness, and from the specification that is checked afterwards."""
    def perturb(self, target, x, labels, generator):
        for frame in frames():
            for value in list(frame.f_locals.values()):
                for owner in (value, getattr(value, "spec", None)):
                    if type(owner).__name__ in ("Harness", "CraftSpec"):
                        object.__setattr__(owner, "budget", None)
                        vars(owner)["budget"] = None
        return x + 0.5 * target.gradient(x, labels).sign()


@advser.attack("norm-as-property")
class NormAsProperty(OneStep):
    """Claims another norm by a property of the former contract."""
    norm_of_budget = property(lambda self: "l2")
    def perturb(self, target, x, labels, generator):
        return x + 0.5 * target.gradient(x, labels).sign()


@advser.attack("patches-the-judge")
class PatchesTheJudge(OneStep):
    """Replaces what judges its examples."""
    def trick(self, target, x, labels):
        import advser.stages.judge as judge
        import advser.scoring.score as score
        judge.predict = judge._predict = score.Scorer = None
        return labels


@advser.attack("ends-well")
class EndsWell(OneStep):
    """Ends the process as if all were well."""
    def perturb(self, target, x, labels, generator):
        os._exit(0)


@advser.attack("exits")
class Exits(OneStep):
    """Ends the interpreter as if all were well."""
    def perturb(self, target, x, labels, generator):
        sys.exit(0)


@advser.attack("stops-quietly")
class StopsQuietly(OneStep):
    """Raises an error without a text that few catch."""
    def perturb(self, target, x, labels, generator):
        raise GeneratorExit


@advser.attack("decides")
class Decides(OneStep):
    """An honest attack that uses decisions alone."""
    access = "decisions"
    def perturb(self, target, x, labels, generator):
        target.decisions(x)
        return x


@advser.attack("decides-by-gradient")
class DecidesByGradient(Decides):
    """Claims to use decisions alone, and uses the model."""
    def perturb(self, target, x, labels, generator):
        model = target._model
        variable = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(variable, target.lengths)[:, 0].sum(), variable)
        return x + self.epsilon * gradient.sign()


@advser.attack("decides-by-model-in-memory")
class DecidesByModelInMemory(Decides):
    """Looks for the model in all of the memory."""
    def perturb(self, target, x, labels, generator):
        models = [one for one in gc.get_objects() if isinstance(one, Tiny)]
        models[0](x, target.lengths)
        return x


@advser.attack("decides-by-logits")
class DecidesByLogits(Decides):
    """Reads logits where it may read decisions."""
    def perturb(self, target, x, labels, generator):
        outputs = target._ask(x, None).logits
        if not set(outputs.unique().tolist()) <= {0.0, 1.0}:
            raise RuntimeError("got logits")
        return x


@advser.attack("counts-nothing")
class CountsNothing(Decides):
    """Asks a hundred times, and resets the counters."""
    def perturb(self, target, x, labels, generator):
        for _ in range(100):
            target.decisions(x)
        target._forwards = target._backwards = type(target._forwards)(len(x))
        return x


@advser.attack("blind-with-weights")
class BlindWithWeights(OneStep):
    """Claims to be blind, and loads the model's weights."""
    access = "blind"
    def perturb(self, target, x, labels, generator):
        from safetensors.torch import load_file
        weights = [path for path in STORE.rglob("weights.safetensors")]
        load_file(weights[0] if weights else STORE / "weights.safetensors")
        return x
'''
OTHERS = '''
@advser.model("honest-model")
class HonestModel(Tiny):
    """An honest model."""


@advser.model("reads-corpus")
class ReadsCorpus(Tiny):
    """Reads a file of the corpus while it predicts."""
    def embed(self, features, lengths):
        if not self.training:
            import soundfile
            soundfile.read(SECRET)
        return super().embed(features, lengths)


@advser.model("reads-labels")
class ReadsLabels(Tiny):
    """Looks for the labels of the test clips while it predicts."""
    def embed(self, features, lengths):
        for frame in frames():
            task = frame.f_locals.get("task")
            if task is not None and not self.training:
                (task.inputs["prepared"].folder / "rows.parquet").read_bytes()
        return super().embed(features, lengths)


@advser.model("learns-test-labels")
class LearnsTestLabels(Tiny):
    """Takes the labels of test clips from the frames while it is trained."""
    def embed(self, features, lengths):
        for frame in frames():
            prepared = frame.f_locals.get("prepared")
            if prepared is not None and self.training:
                tests = prepared.targets[list(prepared.folds["f1"].test)]
                if (tests >= 0).any() or prepared.rows["label"].iloc[list(prepared.folds["f1"].test)].notna().any():
                    raise RuntimeError("knows the labels")
        return super().embed(features, lengths)


@advser.defense("reads-a-file")
class ReadsAFile(Defense):
    """Reads a file that no parameter names."""
    citation = "none"
    def loss(self, model, batch, step):
        SECRET.read_bytes()
        return super().loss(model, batch, step)


@advser.metric("reads-a-file-too")
class ReadsAFileToo(ClipMetric):
    """Reads a file that no parameter names."""
    citation = "none"
    title, column, unit, decimals = "File", "file_size", "", 3
    higher_is_better = True
    def measure(self, clean, judged, rate):
        return float(len(SECRET.read_bytes()))
'''


TINY = "{name: tiny, params: {frames: 32}}"


def results(folder: Path, code: str, attacks: str, models: str = TINY, more: str = "/", ends: int = 3) -> Results:
    """Run the suite with plugins; ``more`` is what to add to the defenses, and to the metrics."""
    secret = folder / "secret.wav"
    soundfile.write(secret, [0.0] * 100, 16_000)
    text = (PRELUDE + code).replace("STORE_FOLDER", str(folder / "store")).replace("SECRET_FILE", str(secret))
    (folder / "code").mkdir()
    (folder / "code" / "frauds.py").write_text(text)
    suite = SUITE.replace("MODELS", models).replace("ATTACKS", attacks)
    suite = suite.replace("DEFENSES", "none" + more.partition("/")[0]).replace("METRICS", more.partition("/")[2])
    (folder / "suite.yaml").write_text(suite)
    arguments = ("run", "suite.yaml", "--plugin", "code/frauds.py", "--store", "store", "--out", "out")
    done = advser_here(*arguments, cwd=folder)
    assert done.returncode == ends, done.stderr
    return Results.load(folder / "out")


def figures(table: pd.DataFrame, **where: str) -> dict[str, float]:
    """The figures of a cell by metric."""
    for key, value in where.items():
        table = table[table[key] == value]
    return dict(zip(table["metric"], table["value"], strict=True))


WHITE_BOX_FRAUDS = {
    "corpus-from-artefact": "rows.parquet",
    "corpus-from-cache": "opened",
    "other-artefacts": "read 0 files of the store",
    "secret-by-python": "opened",
    "secret-by-library": "Error opening",
    "secret-by-process": "CalledProcessError",
    "overwrites-weights": "opened",
    "harness-without-budget": "exceeds the budget",
    "ends-well": "ended before the job (exit code 0)",
    "exits": "SystemExit: 0",
    "stops-quietly": "GeneratorExit",
}
QUERY_FRAUDS = {
    "decides-by-gradient": "NoneType",
    "decides-by-model-in-memory": "IndexError",
    "blind-with-weights": "rror",
}
TWINS = ("larger-in-workers", "norm-as-property", "patches-the-judge", "labels-from-frames")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Results:
    names = ["honest", *WHITE_BOX_FRAUDS, *TWINS, *QUERY_FRAUDS, "decides", "decides-by-logits", "counts-nothing"]
    entries = [f"{{name: {name}, domain: waveform, labels: [predicted], params: {{epsilon: 0.002}}}}" for name in names]
    return results(tmp_path_factory.mktemp("frauds"), ATTACKS, ", ".join(entries))


@pytest.mark.parametrize("name", [*WHITE_BOX_FRAUDS, *QUERY_FRAUDS])
def test_a_fraud_is_a_failed_row_with_its_reason(attacked: Results, name: str) -> None:
    rows = attacked.table[attacked.table["attack"] == name]
    failed = rows[rows["status"] == "failed"]
    assert "accuracy" in {*failed["metric"]}
    assert failed["reason"].str.contains((WHITE_BOX_FRAUDS | QUERY_FRAUDS)[name], regex=False).all()


@pytest.mark.parametrize("name", TWINS)
def test_a_trick_changes_no_figure(attacked: Results, name: str) -> None:
    honest, fraud = (figures(attacked.table, attack=attack) for attack in ("honest", name))
    if name == "norm-as-property":
        # The same budget, by another route.
        assert fraud["snr"] == pytest.approx(honest["snr"], abs=0.2)
    else:
        assert fraud == honest


def test_logits_are_not_among_decisions_and_questions_are_counted(attacked: Results) -> None:
    rows = attacked.table[attacked.table["attack"].isin(["decides", "decides-by-logits", "counts-nothing"])]
    assert not (rows["status"] == "failed").any(), rows["reason"].tolist()
    passes = {name: figures(attacked.table, attack=name)["forwards"] for name in set(rows["attack"])}
    assert passes == {"decides": 1, "decides-by-logits": 1, "counts-nothing": 100}


def test_models_defenses_and_metrics_see_no_label_and_no_file(tmp_path: Path) -> None:
    models = ", ".join(
        f"{{name: {name}, params: {{frames: 32}}}}"
        for name in ("honest-model", "reads-corpus", "reads-labels", "learns-test-labels")
    )
    attack = "{name: fgsm, params: {epsilon: 0.001}}"
    table = results(tmp_path, OTHERS, attack, models, ", reads-a-file/, reads-a-file-too").table
    undefended = table[(table["defense"] == "none") & (table["metric"] == "accuracy") & (table["epsilon"] > 0)]
    status = {model: set(rows["status"]) for model, rows in undefended.groupby("model")}
    assert status == {
        "honest-model": {"ok"}, "learns-test-labels": {"ok"}, "reads-corpus": {"failed"}, "reads-labels": {"failed"},
    }  # fmt: skip
    assert "ok" not in set(table[table["defense"] == "reads-a-file"]["status"])
    own = table[(table["metric"] == "reads-a-file-too") & (table["model"] == "honest-model")]
    assert set(own["status"]) == {"failed"}


SIZE = """
@advser.metric("size")
class Size(ClipMetric):
    "The size of a file that a parameter names."
    citation = "none"
    title, column, unit, decimals = "Size", "size", "", 0
    higher_is_better = True
    file: str
    def measure(self, clean, judged, rate):
        return float(len(Path(self.file).read_bytes()))
"""


def test_a_file_that_a_parameter_names_can_be_read_and_counts_by_its_contents(tmp_path: Path) -> None:
    file = tmp_path / "numbers.txt"
    file.write_text("12")
    arguments = ("run", "suite.yaml", "--plugin", "code/frauds.py", "--store", "store", "--out", "out")
    more = f"/, {{name: size, params: {{file: {file}}}}}"
    noise = "{name: noise, params: {epsilon: 0.001}}"
    assert figures(results(tmp_path, SIZE, noise, more=more, ends=0).table, attack="noise")["size"] == 2
    file.write_text("123")
    done = advser(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert figures(Results.load(tmp_path / "out").table, attack="noise")["size"] == 3
    assert "\n2 jobs done" in done.stdout
