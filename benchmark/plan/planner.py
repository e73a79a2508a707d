"""From a suite to its cells (the rows of the results) and the jobs that they need, each once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from advser.errors import InputError
from advser.plan.added_plugins import is_added
from advser.plan.cells import (
    Cell,
    Configuration,
    Corpus,
    FoldKeys,
    Plan,
    Probe,
    Source,
    Speech,
    Victim,
    described,
    source_columns,
)
from advser.plan.configurations import check_distinct, check_labels, check_metric, configurations
from advser.plan.jobs import JobBook
from advser.plan.noise_controls import missing_noise
from advser.plan.worst_case import columns_of, members
from advser.plugins.parameters import build
from advser.plugins.registries import DEFENSES
from advser.results.schema import KEYS
from advser.results.selection import matching
from advser.suite.schema import AttackEntry, Suite
from advser.threat.model import Access, Delivery, ThreatModel

CLEAN_FILTERS = ("part", "seed", "fold", "model", "defense")
"""Columns by which ``--only`` selects clean cells too; all other columns describe attacks."""


class NothingSelectedError(InputError):
    """``--only`` leaves no cell of a suite, or of one of its parts."""


def make_plan(suite: Suite, corpus: Corpus, speech: Speech, only: Mapping[str, str], device: str) -> Plan:
    """Return the cells and jobs of a suite.

    Args:
        suite: the suite, with added plugins in it (`advser.plan.added_plugins.with_added_plugins`).
        corpus: the prepared corpus.
        speech: the transcriber.
        only: column → glob; cells that do not match are left out. The clean cells of the same seed and victim stay, as
            the reference. A victim that is left out is still a source of transferred examples.
        device: the torch device that models run on.

    Raises:
        InputError: if a plugin is unknown or needs a missing package, parameters are wrong, an entry cannot run or two
            entries are the same.
        NothingSelectedError: if no cell matches ``only``.
    """
    return _Planner(suite, corpus, only, JobBook(suite, corpus, speech, device)).plan()


@dataclass
class _Planner:
    suite: Suite
    corpus: Corpus
    only: Mapping[str, str]
    book: JobBook

    def plan(self) -> Plan:
        check_labels(self.suite)
        for entry in self.suite.metrics:
            check_metric(entry)
        for entry in self.suite.defenses:
            # Models may name their defenses; those that no model names are checked too.
            build(DEFENSES.get(entry.name), entry.params, f"defense '{entry.title}'")
        rows = self._rows()
        unable = self._unable(rows)
        named = [cell for seed in self.suite.seeds for cell in self._cells(seed, rows)]
        cells = [cell for _, cell in named]
        # A clean cell is the reference of other cells: alone it must have been selected itself.
        if not any(self._selected(cell.columns) for cell in cells):
            raise self._nothing_selected(rows)
        self._check_keys(named)
        read = dict.fromkeys(f"{row.entry.title}: {row.reading.note}." for row in rows if row.reading)
        notes = (*(f"Left out: {reason}." for reason in unable), *read, *self._late_defenses())
        probes = tuple(self._probes(cells)) if self.suite.audit else ()
        attacks = {(row.entry.title, row.text): row.facts for row in rows}
        return Plan(self.suite, self.book.jobs, tuple(cells), probes, notes, attacks)

    def _rows(self) -> list[Configuration]:
        """Return the configurations of all attacks, with the noise controls that the suite does not list."""
        rows = [row for entry in self.suite.attacks for row in self._configurations(entry)]
        if self.suite.noise:
            rows += [row for entry in missing_noise(rows) for row in self._configurations(entry)]
        check_distinct(rows)
        return rows

    def _configurations(self, entry: AttackEntry) -> list[Configuration]:
        return configurations(entry, self.corpus.clips)

    def _nothing_selected(self, rows: Sequence[Configuration]) -> NothingSelectedError:
        asked = " ".join(f"{key}={glob}" for key, glob in self.only.items())
        attacks = ", ".join(dict.fromkeys(row.entry.title for row in rows))
        models = ", ".join(model.title for model in self.suite.models)
        defenses = ", ".join(defense.title for defense in self.suite.defenses)
        return NothingSelectedError(
            f"--only {asked}: no cell of suite '{self.suite.name}' matches (attacks: {attacks}; models: {models}; "
            f"defenses: {defenses})"
        )

    def _late_defenses(self) -> Iterator[str]:
        """Yield a note on each defense that acts in less than half of a shortened training, or not at all."""
        steps = self.suite.training.iterations
        for entry in self.suite.defenses:
            defense = build(DEFENSES.get(entry.name), entry.params, f"defense '{entry.title}'")
            if (warmup := defense.first_step()) > steps / 2:
                last = f"the last {steps - warmup} of {steps}" if warmup < steps else f"none of {steps}"
                yield f"Defense '{entry.title}' acts in {last} training steps (warmup {warmup})."

    def _probes(self, cells: Sequence[Cell]) -> Iterator[Probe]:
        """Yield the probe of each judged victim, on the first fold: the folds' models are of one kind."""
        judged = {(cell.columns["seed"], cell.columns["model"], cell.columns["defense"]) for cell in cells}
        for seed, victim in itertools.product(self.suite.seeds, self._victims):
            if (seed, *victim.columns.values()) in judged:
                columns = {"part": self.suite.part, "seed": seed, **victim.columns}
                yield Probe(columns, self.book.probe(seed, self._folds[0], victim))

    def _unable(self, rows: Sequence[Configuration]) -> list[str]:
        """Return, for each entry that fits no model of the suite, the reason; ``--only`` does not matter.

        Raises:
            InputError: if that holds for all entries.
        """
        able = [(row.entry, row.domain) for row in rows if any(True for _ in self._places(row))]
        reasons = [self._needs(row) for row in rows if (row.entry, row.domain) not in able]
        if rows and not able:
            raise InputError(reasons[0])
        return list(dict.fromkeys(reasons))

    def _needs(self, row: Configuration) -> str:
        needs = ["a spectrogram"] if row.attack.needs_spectrogram or row.domain == "spectrogram" else []
        needs += ["gradients"] if row.attack.access == "white-box" else []
        models = ", ".join(model.title for model in self.suite.models)
        return (
            f"attack '{row.entry.title}' in the {row.domain} domain: got no model to craft it on (models: {models}), "
            f"expected a model with {' and '.join(needs)}"
        )

    def _check_keys(self, cells: Sequence[tuple[str, Cell]]) -> None:
        """Raise InputError if two cells, or rows for a worst case, have the same keys."""
        named = [(name, cell.columns) for name, cell in cells]
        for declared in self.suite.worst:
            groups = members((cell for _, cell in cells), declared)
            named += [(f"worst case {declared.name}", columns_of(group, declared)) for group in groups]
        names: dict[tuple[Any, ...], str] = {}
        for name, columns in named:
            place = tuple(columns[key] for key in KEYS)
            if place in names:
                raise InputError(
                    f"cells: got '{names[place]}' and '{name}' on {columns['model']} / {columns['defense']} under the "
                    "same keys, expected different keys (give one a label or a name)"
                )
            names[place] = name

    @cached_property
    def _victims(self) -> list[Victim]:
        pairs = itertools.product(self.suite.models, self.suite.defenses)
        return [
            Victim(model, defense)
            for model, defense in pairs
            if model.defenses is None or defense.title in model.defenses
        ]

    def _selected(self, columns: Mapping[str, Any]) -> bool:
        return all(
            matching(str(columns[key]), glob) or is_added(key, str(columns[key]))
            for key, glob in self.only.items()
            if key in columns
        )

    @cached_property
    def _folds(self) -> list[str]:
        chosen = self.suite.folds or list(self.corpus.folds)
        for fold in chosen:
            if fold not in self.corpus.folds:
                raise InputError(f"folds: got '{fold}', expected {', '.join(self.corpus.folds)}")
        folds = [fold for fold in chosen if self._selected({"fold": fold})]
        if not folds:
            raise NothingSelectedError(f"--only fold={self.only['fold']}: no such fold (folds: {', '.join(chosen)})")
        return folds

    def _cells(self, seed: int, rows: list[Configuration]) -> Iterator[tuple[str, Cell]]:
        """Yield the selected cells, each after its title in messages."""
        for victim in self._victims:
            clean = self._columns(seed, victim, self._clean, "audio", ())
            if self._selected({key: clean[key] for key in CLEAN_FILTERS if key in clean}):
                yield described(self._clean, ()), self._cell(seed, victim, self._clean, "audio", ())
        for row in rows:
            for victim, delivery, source in self._places(row):
                if self._selected(self._columns(seed, victim, row, delivery, source)):
                    yield described(row, source), self._cell(seed, victim, row, delivery, source)

    def _places(self, row: Configuration) -> Iterator[tuple[Victim, Delivery, Source]]:
        """Yield the victim of an attack, its delivery, and the source that it is crafted on."""
        for victim, delivery in itertools.product(self._victims, row.deliveries):
            for source in self._sources(victim, row, delivery):
                yield victim, delivery, source

    @cached_property
    def _clean(self) -> Configuration:
        return self._configurations(AttackEntry(name="none"))[0]

    def _sources(self, victim: Victim, row: Configuration, delivery: Delivery) -> Iterator[Source]:
        """Yield the sources of examples: the victim itself (none for blind sound), then other models."""
        if row.blind and row.domain == "waveform":
            yield ()
            return
        others = [other for other in self._victims if other != victim] if row.entry.transfer and not row.blind else []
        named = [(victim,), *((other,) for other in others), *self._surrogates(row.entry)]
        # A group of one surrogate may be the victim itself, or another source already.
        for source in (source for number, source in enumerate(named) if source not in named[:number]):
            if self._is_possible(victim, row, delivery, source):
                yield source

    def _is_possible(self, victim: Victim, row: Configuration, delivery: Delivery, source: Source) -> bool:
        # Features fit another model only if its front end is the same; sound fits any model.
        fits = delivery == "audio" or source[0].model == victim.model
        in_reach = row.attack.access != "white-box" or all(member.differentiable for member in source)
        has_domain = row.domain == "waveform" or all(member.spectrogram for member in source)
        # The features of an ensemble are those of its members: no spectrogram.
        has_spectrogram = not row.attack.needs_spectrogram or (len(source) == 1 and source[0].spectrogram)
        is_foreign = victim not in source or source == (victim,)
        return fits and in_reach and has_domain and has_spectrogram and is_foreign

    def _surrogates(self, entry: AttackEntry) -> list[Source]:
        """Return the groups of models that an entry names; a group that has the victim in it is skipped later."""
        named = {f"{victim.model.title}/{victim.defense.title}": victim for victim in self._victims}
        named |= {victim.model.title: victim for victim in self._victims if victim.defense.name == "none"}
        for name in itertools.chain.from_iterable(entry.surrogates):
            if name not in named:
                raise InputError(
                    f"attack '{entry.title}': surrogates: got '{name}', expected {', '.join(sorted(named))}"
                )
        if entry.surrogates and entry.domain != ["waveform"]:
            raise InputError(f"attack '{entry.title}': surrogates: got domain {entry.domain}, expected waveform")
        return [tuple(named[name] for name in group) for group in entry.surrogates]

    def _columns(
        self, seed: int, victim: Victim, row: Configuration, delivery: Delivery, source: Source
    ) -> dict[str, Any]:
        suite = self.suite
        access: Access = row.attack.access if source in ((victim,), ()) else "transfer"
        return {
            "suite": suite.name,
            "part": suite.part,
            "corpus": suite.corpus.title,
            "task": suite.task,
            "protocol": suite.protocol,
            "split": "test",
            "seed": seed,
            **victim.columns,
            **row.columns(ThreatModel(row.domain, delivery, row.labels, access)),
            **source_columns(() if row.blind else source),
        }

    def _cell(self, seed: int, victim: Victim, row: Configuration, delivery: Delivery, source: Source) -> Cell:
        columns = self._columns(seed, victim, row, delivery, source)
        return Cell(columns, tuple(self._fold(fold, columns, victim, row, source) for fold in self._folds))

    def _fold(
        self, fold: str, columns: Mapping[str, Any], victim: Victim, row: Configuration, source: Source
    ) -> FoldKeys:
        seed, delivery = columns["seed"], columns["delivery"]
        crafted = self.book.craft(seed, fold, row, source)
        clean = self.book.craft(seed, fold, self._clean, ())
        transferred = source not in ((victim,), ())
        return FoldKeys(
            fold=fold,
            prepared=self.corpus.prepared[seed],
            crafted=crafted,
            predicted=self.book.predict(seed, fold, crafted, (victim,), delivery),
            clean_predicted=self.book.predict(seed, fold, clean, (victim,), "audio"),
            source_predicted=self.book.predict(seed, fold, crafted, source, delivery) if transferred else None,
            measured=self.book.measure(fold, crafted, victim, columns),
            examined=self.book.examine(fold, crafted, victim, columns),
            transcribed=self.book.transcribe(seed, fold, crafted) if delivery == "audio" else None,
            clean_transcribed=self.book.transcribe(seed, fold, clean) if delivery == "audio" else None,
        )
