"""From a suite to its cells (the rows of the results) and the jobs that they need, none of them twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from advser.attacks.base import Attack
from advser.errors import InputError
from advser.job import Job
from advser.jobs import Configuration, Corpus, JobBook, Speech, Victim
from advser.metrics.base import ClipMetric
from advser.newcomers import is_newcomer
from advser.parameters import build, validated
from advser.plugins import ATTACKS, METRICS, MODELS
from advser.results import EXAMPLES_SCHEMA
from advser.suite import AttackEntry, PluginEntry, Suite
from advser.threat import Access, Delivery, Labels, ThreatModel

FILTERS = ("seed", "fold", "model", "defense", "attack", "domain", "delivery", "labels", "access", "source_model",
           "source_defense")  # fmt: skip
"""What ``--only`` can select by."""

CLEAN_FILTERS = ("seed", "fold", "model", "defense")
"""Those that select clean cells too; the others speak of attacks."""


@dataclass(frozen=True)
class FoldKeys:
    """Keys of the artefacts that one fold of a cell is scored from; None where there is none."""

    fold: str
    prepared: str
    crafted: str
    predicted: str
    clean_predicted: str
    source_predicted: str | None
    measured: Mapping[str, str]
    transcribed: str | None
    clean_transcribed: str | None


@dataclass(frozen=True)
class Cell:
    """One row of the results: its key columns, and what each fold is scored from."""

    columns: Mapping[str, Any]
    folds: tuple[FoldKeys, ...]


@dataclass(frozen=True)
class Plan:
    """A suite worked out: jobs by key (each after those that it reads) and cells."""

    suite: Suite
    jobs: Mapping[str, Job]
    cells: tuple[Cell, ...]


def make_plan(suite: Suite, corpus: Corpus, speech: Speech, only: Mapping[str, str], device: str) -> Plan:
    """Work out cells and jobs.

    Args:
        suite: the suite, with newcomers in it (`with_newcomers`).
        corpus: the prepared corpus.
        speech: the transcriber.
        only: column → glob; cells that do not match are left out, but for the clean ones of the same seed and victim,
            the reference of all. A victim that is left out is still a source of transferred examples.
        device: the torch device that models run on.

    Raises:
        InputError: if a plugin is unknown, its parameters are wrong, an entry asks for what does not exist, two
            entries ask for the same, or no cell matches ``only``.
    """
    return _Planner(suite, corpus, only, JobBook(suite, corpus, speech, device)).plan()


def _grid(params: Mapping[str, Any], plugin: type[Attack], where: str) -> Iterator[dict[str, Any]]:
    """Expand parameters given as lists, unless the plugin's parameter is itself a list."""
    spread = {
        name: value if isinstance(value, list) and not _takes_list(plugin, name) else [value]
        for name, value in params.items()
    }
    if empty := [name for name, values in spread.items() if not values]:
        raise InputError(f"{where}: {empty[0]}: found [], allowed: at least one value")
    for values in itertools.product(*spread.values()):
        yield dict(zip(spread, values, strict=True))


def _takes_list(plugin: type[Attack], name: str) -> bool:
    field_info = plugin.model_fields.get(name)
    return field_info is not None and any(word in str(field_info.annotation) for word in ("list", "tuple", "Sequence"))


def _check_metric(entry: PluginEntry) -> None:
    """Refuse wrong parameters, and a clip metric that would overwrite a column of the examples table."""
    metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
    taken = {entry.title, metric.column} & {*EXAMPLES_SCHEMA.names} if isinstance(metric, ClipMetric) else ()
    if taken:
        raise InputError(
            f"metric '{entry.title}': found the name or column '{min(taken)}', allowed: any that is no "
            f"column of the examples table ({', '.join(EXAMPLES_SCHEMA.names)})"
        )


def _check_distinct(rows: Sequence[Configuration]) -> None:
    seen = set()
    for row in rows:
        for delivery in row.deliveries:
            place = (row.entry.title, json.dumps(row.params, sort_keys=True), row.domain, delivery, row.labels)
            if place in seen:
                raise InputError(f"attacks: found {' '.join(place)} twice, allowed: once (a label tells two apart)")
            seen.add(place)


@dataclass
class _Planner:
    suite: Suite
    corpus: Corpus
    only: Mapping[str, str]
    book: JobBook

    def plan(self) -> Plan:
        for key in self.only:
            if key not in FILTERS:
                raise InputError(f"--only {key}: found '{key}', allowed: {', '.join(FILTERS)}")
        for entry in self.suite.metrics:
            _check_metric(entry)
        rows = [row for entry in self.suite.attacks for row in self._rows(entry)]
        _check_distinct(rows)
        cells = [cell for seed in self.suite.seeds for cell in self._cells(seed, rows)]
        # A clean cell is there for the sake of others: alone it must have been asked for.
        if not any(self._selected(cell.columns) for cell in cells):
            asked = " ".join(f"{key}={glob}" for key, glob in self.only.items())
            raise InputError(
                f"--only {asked}: no cell of suite '{self.suite.name}' matches (attacks: "
                f"{', '.join(dict.fromkeys(row.entry.title for row in rows))}; models: "
                f"{', '.join(model.title for model in self.suite.models)})"
            )
        return Plan(self.suite, self.book.jobs, tuple(cells))

    @cached_property
    def _victims(self) -> list[Victim]:
        return [
            victim
            for victim in itertools.starmap(Victim, itertools.product(self.suite.models, self.suite.defenses))
            if victim.model.defenses is None or victim.defense.title in victim.model.defenses
        ]

    def _selected(self, columns: Mapping[str, Any]) -> bool:
        return all(
            fnmatchcase(str(columns[key]), glob) or is_newcomer(key, str(columns[key]))
            for key, glob in self.only.items()
            if key in columns
        )

    @cached_property
    def _folds(self) -> list[str]:
        chosen = self.suite.folds or list(self.corpus.folds)
        for fold in chosen:
            if fold not in self.corpus.folds:
                raise InputError(f"folds: found '{fold}', allowed: {', '.join(self.corpus.folds)}")
        folds = [fold for fold in chosen if self._selected({"fold": fold})]
        if not folds:
            raise InputError(f"--only fold={self.only['fold']}: no such fold (folds: {', '.join(chosen)})")
        return folds

    def _rows(self, entry: AttackEntry) -> list[Configuration]:
        plugin = ATTACKS.get(entry.name)
        where = f"attack '{entry.title}'"
        if plugin.access == "decisions" and "soft" in entry.labels:
            raise InputError(f"{where}: labels: found soft, allowed for access '{plugin.access}': true, predicted")
        rows = []
        for domain in entry.domain:
            if domain not in plugin.domains:
                raise InputError(f"{where}: domain: found {domain}, allowed: {', '.join(plugin.domains)}")
            labels: Sequence[Labels] = ["none"] if plugin.access == "blind" else entry.labels
            for params, given in itertools.product(_grid(entry.params, plugin, where), labels):
                complete = validated(plugin, params, where)
                attack = build(plugin, complete, where)
                rows.append(Configuration(entry, attack, complete, domain, given))
        return rows

    def _cells(self, seed: int, rows: list[Configuration]) -> Iterator[Cell]:
        for victim in self._victims:
            clean = self._columns(seed, victim, self._clean, "audio", None)
            if self._selected({key: clean[key] for key in CLEAN_FILTERS if key in clean}):
                yield self._cell(seed, victim, self._clean, "audio", None)
        for row, victim in itertools.product(rows, self._victims):
            for delivery in row.deliveries:
                for source in self._sources(victim, row, delivery):
                    if self._selected(self._columns(seed, victim, row, delivery, source)):
                        yield self._cell(seed, victim, row, delivery, source)

    @cached_property
    def _clean(self) -> Configuration:
        return self._rows(AttackEntry(name="none"))[0]

    def _sources(self, victim: Victim, row: Configuration, delivery: Delivery) -> Iterator[Victim | None]:
        """Yield what the examples are crafted on: the victim itself (nothing, for blind sound), then other models."""
        if row.blind and row.domain == "waveform":
            yield None
            return
        others = [other for other in self._victims if other != victim] if row.entry.transfer and not row.blind else []
        for source in (victim, *others):
            # Features fit another model only if its front end is the same; sound fits any model.
            fits = delivery == "audio" or source.model == victim.model
            if fits and (row.domain == "waveform" or MODELS.get(source.model.name).spectrogram):
                yield source

    def _columns(
        self, seed: int, victim: Victim, row: Configuration, delivery: Delivery, source: Victim | None
    ) -> dict[str, Any]:
        suite = self.suite
        access: Access = row.attack.access if source in (victim, None) else "transfer"
        crafted_on = {"source_model": "", "source_defense": ""}
        if source is not None and not row.blind:
            crafted_on = source.source_columns
        return {
            "suite": suite.name,
            "corpus": suite.corpus.title,
            "task": suite.task,
            "protocol": suite.protocol,
            "split": "test",
            "seed": seed,
            **victim.columns,
            **row.columns(ThreatModel(row.domain, delivery, row.labels, access)),
            **crafted_on,
        }

    def _cell(self, seed: int, victim: Victim, row: Configuration, delivery: Delivery, source: Victim | None) -> Cell:
        folds = [self._fold(seed, fold, victim, row, delivery, source) for fold in self._folds]
        return Cell(self._columns(seed, victim, row, delivery, source), tuple(folds))

    def _fold(
        self, seed: int, fold: str, victim: Victim, row: Configuration, delivery: Delivery, source: Victim | None
    ) -> FoldKeys:
        trained = self.book.train(seed, fold, victim)
        crafted = self.book.craft(seed, fold, row, source)
        clean = self.book.craft(seed, fold, self._clean, None)
        heard = delivery == "audio"
        return FoldKeys(
            fold=fold,
            prepared=self.corpus.prepared[seed],
            crafted=crafted,
            predicted=self.book.predict(seed, fold, crafted, trained, victim, delivery),
            clean_predicted=self.book.predict(seed, fold, clean, trained, victim, "audio"),
            source_predicted=(
                self.book.predict(seed, fold, crafted, self.book.train(seed, fold, source), source, delivery)
                if source is not None and source != victim
                else None
            ),
            measured=self.book.measure(seed, fold, crafted) if heard else {},
            transcribed=self.book.transcribe(seed, fold, crafted) if heard else None,
            clean_transcribed=self.book.transcribe(seed, fold, clean) if heard else None,
        )
