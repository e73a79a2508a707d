"""Plugins are listed, loaded, refused and fingerprinted; a broken plugin does not affect the others."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from advser.errors import InputError
from advser.plugins.fingerprint import closure, code_fingerprint, source_file
from advser.plugins.registries import ATTACKS, REGISTRIES, load_plugin_files
from advser.plugins.registry import Registry, load_plugin_file

PLUGIN = '''
import advser
from advser.attacks.base import Attack


@advser.attack("{name}")
class Mine(Attack):
    """Does nothing."""

    def perturb(self, target, x, labels, generator):
        """Return x."""
        return x{ending}
'''


class Pitch:
    """Shifts the pitch."""


class Tempo:
    """Changes the tempo."""


@pytest.fixture
def registry() -> Registry[object]:
    """A registry with an entry-point group of its own."""
    return Registry("toy", f"advser_test.{uuid.uuid4().hex}")


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Install a distribution: its entry points in a group, and its modules by file name."""

    def install(group: str, points: dict[str, str], **modules: str) -> str:
        package = f"package_{uuid.uuid4().hex[:8]}"
        folder = tmp_path / package
        metadata = folder / f"{package}-1.0.dist-info"
        (folder / package).mkdir(parents=True)
        metadata.mkdir()
        lines = [f"{name} = {value.format(package=package)}" for name, value in points.items()]
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
        for name, text in {"__init__": "", **modules}.items():
            (folder / package / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return package

    return install


@pytest.fixture
def fingerprint() -> Iterator[Callable[[str], str]]:
    """Return a function that fingerprints a module without this process's caches."""

    def fresh(module: str) -> str:
        code_fingerprint.cache_clear()
        importlib.invalidate_caches()
        return code_fingerprint(module)

    yield fresh
    code_fingerprint.cache_clear()


@pytest.fixture
def plugin_file(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Write a plugin file; afterwards nothing that was loaded is left in this process."""
    modules, path, attacks = set(sys.modules), list(sys.path), dict(ATTACKS._decorated)
    # Other tests of this process may have registered some.
    ATTACKS._decorated.clear()

    def write(text: str, folder: str = "a", name: str = "mine.py") -> Path:
        file = tmp_path / folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    yield write
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path
    ATTACKS._decorated.clear()
    ATTACKS._decorated.update(attacks)


def test_a_decorated_class_is_loaded_by_its_name(registry: Registry[object]) -> None:
    assert registry.register("pitch")(Pitch) is Pitch
    registry.register("a-tempo")(Tempo)
    assert registry.get("pitch") is Pitch
    assert list(registry) == ["a-tempo", "pitch"]
    assert registry.decorated() == ("pitch", "a-tempo")
    assert "pitch" in registry
    assert "itch" not in registry


def test_a_name_is_given_once(registry: Registry[object]) -> None:
    registry.register("pitch")(Pitch)
    registry.register("pitch")(Pitch)
    with pytest.raises(InputError, match=r"toy 'pitch': the name is taken by .*:Pitch; .*:Tempo needs another"):
        registry.register("pitch")(Tempo)
    assert registry.get("pitch") is Pitch


def test_the_name_of_a_shipped_plugin_cannot_be_taken() -> None:
    with pytest.raises(InputError, match=r"attack 'fgsm': the name is taken by advser.attacks.gradient_sign:FGSM"):
        ATTACKS.register("fgsm")(type("Mine", (ATTACKS.get("noise"),), {}))
    assert "fgsm" not in ATTACKS.decorated()


@pytest.mark.parametrize("plugin", [Pitch, Pitch(), len])
def test_only_classes_of_the_kind_are_registered(plugin: object) -> None:
    with pytest.raises(InputError, match=r"attack 'mine': got .*, expected a class derived from advser.attacks.base"):
        ATTACKS.register("mine")(plugin)
    assert "mine" not in ATTACKS


@pytest.mark.parametrize(("typed", "hint"), [("fgms", "; did you mean 'fgsm'?"), ("zzzz", "")])
def test_an_unknown_name_is_refused_with_the_nearest(typed: str, hint: str) -> None:
    for look_up in (ATTACKS.get, ATTACKS.origin, ATTACKS.fingerprint):
        with pytest.raises(InputError) as refusal:
            look_up(typed)
        names = ", ".join(ATTACKS)
        assert str(refusal.value) == f"unknown attack '{typed}'{hint} (known: {names})"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def (:", "SyntaxError: "),
        ("Other = 1", "AttributeError: .*Broken"),
        ("Broken = 1", "got 1, expected a class"),
    ],
)
def test_a_broken_plugin_breaks_nothing_else(
    registry: Registry[object], distribution: Callable[..., str], broken: str, reason: str
) -> None:
    points = {"good": "{package}.good:Good", "broken": "{package}.broken:Broken"}
    package = distribution(registry.group, points, good='class Good:\n    """Is good."""\n', broken=broken)
    assert list(registry) == ["broken", "good"]
    assert [registry.origin(name).summary for name in registry] == ["", "Is good."]
    assert not any(name.startswith(package) for name in sys.modules), "listing imported the plugins"
    assert registry.get("good").__name__ == "Good"
    with pytest.raises(InputError, match=f"toy 'broken'.*{reason}") as refusal:
        registry.get("broken")
    assert "\n" not in str(refusal.value)


def test_a_missing_package_is_listed_and_refused_when_loaded(
    registry: Registry[object], distribution: Callable[..., str]
) -> None:
    distribution(registry.group, {"gone": "no_such_package.module:Gone"})
    assert str(registry.origin("gone")) == "?:0"
    with pytest.raises(InputError, match=r"toy 'gone' .* cannot be imported: ModuleNotFoundError"):
        registry.get("gone")
    with pytest.raises(InputError, match="got no Python source"):
        registry.fingerprint("gone")


def test_two_distributions_with_one_name_are_refused_for_that_name_only(
    registry: Registry[object], distribution: Callable[..., str]
) -> None:
    distribution(registry.group, {"pitch": "{package}:Pitch", "other": "{package}:Pitch"}, __init__="class Pitch: ...")
    distribution(registry.group, {"pitch": "{package}:Pitch"}, __init__="class Pitch: ...")
    assert list(registry) == ["other", "pitch"]
    assert registry.get("other").__name__ == "Pitch"
    with pytest.raises(InputError, match=r"toy 'pitch' is announced as .* and as .*: uninstall"):
        registry.get("pitch")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_origin_of_every_plugin_is_its_class(kind: str) -> None:
    for name in REGISTRIES[kind]:
        origin = REGISTRIES[kind].origin(name)
        line = Path(origin.file).read_text(encoding="utf-8").splitlines()[origin.line - 1]
        assert line.startswith(f"class {origin.qualname}(")
        assert origin.summary.endswith((".", "]", ")"))


def test_the_origin_of_a_decorated_class_is_its_line(registry: Registry[object]) -> None:
    registry.register("pitch")(Pitch)
    origin = registry.origin("pitch")
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert (Path(origin.file), origin.line) == (Path(__file__), lines.index("class Pitch:") + 1)
    assert origin.summary == "Shifts the pitch."


def test_listing_and_fingerprints_import_neither_torch_nor_plugins(tmp_path: Path) -> None:
    program = """
import sys
from advser.plugins.registries import REGISTRIES
for registry in REGISTRIES.values():
    for name in registry:
        registry.origin(name), registry.fingerprint(name)
print(sorted({name for name in sys.modules if name in ("torch", "pandas", "datasets") or name.startswith("advser.")}))
"""
    results = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        )  # fmt: skip
        results.append(ast.literal_eval(done.stdout))
    needed = [
        "advser.errors",
        "advser.plugins",
        "advser.plugins.fingerprint",
        "advser.plugins.outline",
        "advser.plugins.registries",
        "advser.plugins.registry",
    ]
    # The first process writes the outlines of source files; the next process reads them.
    assert results == [[*needed, "advser.store", "advser.store.files"], needed]


def test_a_plugin_file_registers_its_classes(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(PLUGIN.format(name="mine", ending=""))
    module = load_plugin_file(path)
    assert load_plugin_file(path) is module
    assert load_plugin_file(path.parent / "." / ".." / "a" / "mine.py") is module
    assert ATTACKS.get("mine") is module.Mine
    assert ATTACKS.decorated() == ("mine",)
    assert ATTACKS.origin("mine").file == str(path)


def test_two_plugin_files_cannot_share_a_name(plugin_file: Callable[..., Path]) -> None:
    load_plugin_file(plugin_file(PLUGIN.format(name="mine", ending=""), "a"))
    with pytest.raises(InputError, match="attack 'mine': the name is taken"):
        load_plugin_file(plugin_file(PLUGIN.format(name="mine", ending=""), "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def (:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        (PLUGIN.format(name="fgsm", ending=""), "the name is taken by advser.attacks.gradient_sign:FGSM"),
    ],
)
def test_an_unusable_plugin_file_is_refused_in_one_line(
    plugin_file: Callable[..., Path], text: str, message: str
) -> None:
    path = plugin_file(text)
    for _ in range(2):
        with pytest.raises(InputError, match=message) as refusal:
            load_plugin_file(path)
        assert "\n" not in str(refusal.value)


def test_a_plugin_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.py", tmp_path):
        with pytest.raises(InputError, match=f"plugin file {path}: got no such file"):
            load_plugin_file(path)
    text = tmp_path / "notes.txt"
    text.write_text("no code")
    with pytest.raises(InputError, match="not a Python file"):
        load_plugin_file(text)


@pytest.mark.parametrize(("method", "methods"), [("pertrub", "'pertrub'"), ("attack", "none")])
def test_a_class_without_its_method_is_refused(method: str, methods: str, plugin_file: Callable[..., Path]) -> None:
    text = f"""
import advser
from advser.attacks.base import Attack

@advser.attack("misspelt")
class Misspelt(Attack):
    def {method}(self, target, x, labels, generator):
        return x
"""
    with pytest.raises(InputError, match=f"attack 'misspelt': got {methods}, expected a method 'perturb'"):
        load_plugin_file(plugin_file(text))


def test_a_plugin_file_that_registers_nothing_is_refused(plugin_file: Callable[..., Path]) -> None:
    empty = plugin_file("NOTHING = 1\n")
    with pytest.raises(InputError, match=f"plugin file {empty}: got no plugin defined in it or beside it, expected "):
        load_plugin_files([empty])


def test_the_fingerprint_of_a_plugin_file_is_that_of_its_contents(plugin_file: Callable[..., Path]) -> None:
    results = {}
    for folder, ending in {"a": "", "b": "", "c": " + 1", "d": "  # as it is"}.items():
        load_plugin_file(plugin_file(PLUGIN.format(name="mine", ending=ending), folder))
        results[folder] = ATTACKS.fingerprint("mine")
        ATTACKS._decorated.clear()
    assert results["a"] == results["b"] == results["d"] != results["c"]


def test_a_file_beside_a_plugin_file_can_be_imported_and_counts(
    plugin_file: Callable[..., Path], fingerprint: Callable[[str], str]
) -> None:
    plugin_file("STEP = 1\n", name="step_beside_it.py")
    path = plugin_file("from step_beside_it import STEP\n" + PLUGIN.format(name="mine", ending=" + STEP"))
    module = load_plugin_file(path).__name__
    first = fingerprint(module)
    plugin_file("STEP = 2\n", name="step_beside_it.py")
    assert fingerprint(module) != first
    plugin_file("STEP = 1  # one\n", name="step_beside_it.py")
    assert fingerprint(module) == first


PACKAGE = {
    "attack": (
        '"""Text."""\nfrom typing import TYPE_CHECKING\nfrom . import part\nfrom {package}.other import more\n'
        "if TYPE_CHECKING:\n    from {package} import types_only\n"
        'class A:\n    """Text."""\n    x: int = 1\n    "About x."\n'
    ),
    "part": "VALUE = 1\n",
    "other": "def more(): return 1\n",
    "types_only": "VALUE = 1\n",
    "unrelated": "VALUE = 1\n",
}


@pytest.mark.parametrize(
    ("module", "old", "new", "changes"),
    [
        ("attack", "= 1", "= 2", True),
        ("part", "= 1", "= 2", True),
        ("other", "return 1", "return 2", True),
        ("unrelated", "= 1", "= 2", False),
        ("types_only", "= 1", "= 2", False),
        ("attack", '"""Text."""', '"""Another text."""', False),
        ("attack", "About x", "About this", False),
        ("attack", "class A:", "# A comment.\n\n\nclass A :", False),
        ("part", "1", "(\n  1\n)", False),
    ],
)
def test_a_fingerprint_changes_with_the_code_that_runs(
    distribution: Callable[..., str],
    fingerprint: Callable[[str], str],
    module: str,
    old: str,
    new: str,
    changes: bool,
) -> None:
    package = distribution("unused", {}, **PACKAGE)
    folder = source_file(f"{package}.part").parent
    attack = folder / "attack.py"
    attack.write_text(attack.read_text().format(package=package))
    before = fingerprint(f"{package}.attack")
    file = folder / f"{module}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert (fingerprint(f"{package}.attack") != before) is changes
    assert package not in sys.modules


RENAMED = {
    "attack": "from . import {part}\nfrom {{package}}.{other} import more, VALUE as value\nX = {part}.VALUE + value\n",
    "part": "VALUE = 1\n",
    "other": "VALUE = 2\ndef more(): return 1\n",
}


def test_a_fingerprint_does_not_depend_on_names_of_modules(
    distribution: Callable[..., str], fingerprint: Callable[[str], str]
) -> None:
    results = []
    for names in ({"part": "part", "other": "other"}, {"part": "part", "other": "another"}):
        modules = {names.get(name, name): text for name, text in RENAMED.items()}
        package = distribution("unused", {}, **modules)
        attack = source_file(f"{package}.attack")
        attack.write_text(attack.read_text().format(**names).format(package=package))
        results.append(fingerprint(f"{package}.attack"))
    assert results[0] == results[1]


def test_a_fingerprint_depends_on_where_a_name_comes_from(
    distribution: Callable[..., str], fingerprint: Callable[[str], str]
) -> None:
    results = set()
    for source in ("part", "other"):
        text = f"from . import other, part\nfrom .{source} import VALUE\n"
        package = distribution("unused", {}, attack=text, part=RENAMED["part"], other=RENAMED["other"])
        results.add(fingerprint(f"{package}.attack"))
    assert len(results) == 2


LAZY = """
from typing import TYPE_CHECKING
__affects_results__ = False
if TYPE_CHECKING:
    from {package}.other import more
    from {package}.part import VALUE
def __getattr__(name):
    raise AttributeError(name)
"""


@pytest.mark.parametrize("text", ["from {package} import VALUE\n", "import {package} as p\nX = p.VALUE\n"])
@pytest.mark.parametrize(("module", "changes"), [("part", True), ("other", False)])
def test_a_lazily_loaded_name_counts_as_the_module_where_it_lives(
    distribution: Callable[..., str], fingerprint: Callable[[str], str], text: str, module: str, changes: bool
) -> None:
    package = distribution("unused", {}, __init__=LAZY, attack=text, part=RENAMED["part"], other=RENAMED["other"])
    for name in ("__init__", "attack"):
        file = source_file(f"{package}.part").parent / f"{name}.py"
        file.write_text(file.read_text().format(package=package))
    before = fingerprint(f"{package}.attack")
    file = source_file(f"{package}.{module}")
    file.write_text(file.read_text() + "CHANGED = True\n")
    assert (fingerprint(f"{package}.attack") != before) is changes


def test_the_contracts_count_into_the_fingerprint_of_a_shipped_plugin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fingerprint: Callable[[str], str]
) -> None:
    attack = "advser.attacks.gradient_sign"
    before = fingerprint(attack)
    for contract in (
        "advser.attacks.base",
        "advser.threat.target",
        "advser.threat.budget",
        "advser.threat.model",
        "advser.models.base",
    ):
        changed = tmp_path / f"{contract}.py"
        changed.write_text(source_file(contract).read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")
        with monkeypatch.context() as context:
            context.setattr(importlib.import_module(contract), "__file__", str(changed))
            assert fingerprint(attack) != before, f"{contract} does not count"
    assert fingerprint(attack) == before


def test_code_without_a_file_has_no_fingerprint(registry: Registry[object]) -> None:
    typed = type("Typed", (), {"__module__": "typed_into_a_notebook"})
    registry.register("typed")(typed)
    assert str(registry.origin("typed")) == "?:0"
    with pytest.raises(InputError, match="module typed_into_a_notebook: got no Python source"):
        registry.fingerprint("typed")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, registry in REGISTRIES.items() for name in registry])
def test_every_plugin_is_described_and_names_its_source(kind: str, name: str) -> None:
    plugin = REGISTRIES[kind].get(name)
    assert plugin.__doc__
    # These two read data of the user.
    assert plugin.citation or (kind, name) in {("corpora", "folder"), ("corpora", "hub")}


def test_outlines_are_cached_for_other_processes_and_recomputed_if_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = (
        "from advser.plugins.fingerprint import code_fingerprint; print(code_fingerprint('advser.attacks.controls'))"
    )

    def fingerprint() -> str:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    first = fingerprint()
    outlines = sorted((tmp_path / "advser" / "outlines").glob("*.json"))
    assert len(outlines) > 3
    times = [path.stat().st_mtime_ns for path in outlines]
    assert fingerprint() == first
    assert [path.stat().st_mtime_ns for path in outlines] == times
    for number, path in enumerate(outlines):
        path.write_text(("", "{}", '{"imports": [[0]], "body": ""}')[number % 3])
    assert fingerprint() == first
    assert all("body" in json.loads(path.read_text()) for path in outlines)


def test_the_wrapper_of_function_attacks_counts_into_its_fingerprint(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file("import advser\n\n\n@advser.attack('f')\ndef f(target, x, labels, generator):\n    return x\n")
    module = load_plugin_file(path)
    assert "advser.attacks.function" in closure(module.__name__)


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("Attack", "attacks.base"),
        ("ClipMetric", "metrics.base"),
        ("Corpus", "corpora.base"),
        ("Defense", "defenses.base"),
        ("EmotionModel", "models.base"),
        ("Target", "threat.target"),
        ("Transcriber", "metrics.transcribers.base"),
    ],
)
def test_the_contract_counts_to_a_plugin_that_imports_the_face_alone(
    name: str, home: str, plugin_file: Callable[..., Path]
) -> None:
    modules = closure(load_plugin_file(plugin_file(f"from advser.plugins import {name}\n")).__name__)
    assert f"advser.{home}" in modules
    assert not any(name.startswith("advser.plugins.registr") for name in modules)


def test_every_name_of_the_face_has_its_home_twice() -> None:
    """The table that loads names and the imports for type checkers and fingerprints agree."""
    import advser.plugins as face

    tree = ast.parse(Path(str(face.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {node.module: tuple(alias.name for alias in node.names) for node in block.body}
    assert declared == face._HOMES
    assert sorted(name for names in declared.values() for name in names) == sorted(face.__all__) == sorted(dir(face))
    assert all(getattr(face, name) is not None for name in face.__all__)


def test_fingerprints_need_no_outline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    script = (
        "from advser.plugins.fingerprint import code_fingerprint; print(code_fingerprint('advser.attacks.controls'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_fingerprint("advser.attacks.controls")
