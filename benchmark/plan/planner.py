"""From a suite to its cells (the rows of the results) and the jobs that they need, none of them twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from advser.attacks.base import Attack
from advser.errors import InputError
from advser.metrics.base import ClipMetric
from advser.models.terms import Domain
from advser.plan.added_plugins import is_newcomer
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
from advser.plan.jobs import JobBook
from advser.plan.noise_controls import missing_noise
from advser.plan.worst_case import columns_of, members
from advser.plugins.parameters import build, validated
from advser.plugins.registries import ATTACKS, METRICS
from advser.results.schema import EXAMPLES_SCHEMA, KEYS
from advser.results.selection import matching
from advser.suite.schema import AttackEntry, PluginEntry, Suite
from advser.threat.model import Access, Delivery, Labels, ThreatModel

CLEAN_FILTERS = ("part", "seed", "fold", "model", "defense")
"""What ``--only`` selects clean cells by too; all else speaks of attacks."""


class NothingSelectedError(InputError):
    """``--only`` leaves no cell of a suite, or of one of its parts."""


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
        InputError: if a plugin is unknown or needs what is not installed, its parameters are wrong, an entry asks for
            what does not exist or two entries ask for the same.
        NothingSelectedError: if no cell matches ``only``.
    """
    return _Planner(suite, corpus, only, JobBook(suite, corpus, speech, device)).plan()


def _grid(params: Mapping[str, Any], plugin: type[Attack], where: str) -> Iterator[dict[str, Any]]:
    """Expand parameters given as lists, unless the plugin's parameter is itself a list."""
    spread = {
        name: value if isinstance(value, list) and not _takes_list(plugin, name) else [value]
        for name, value in params.items()
    }
    if empty := [name for name, values in spread.items() if not values]:
        raise InputError(f"{where}: {empty[0]}: got [], expected at least one value")
    for values in itertools.product(*spread.values()):
        yield dict(zip(spread, values, strict=True))


def _takes_list(plugin: type[Attack], name: str) -> bool:
    field_info = plugin.model_fields.get(name)
    return field_info is not None and any(word in str(field_info.annotation) for word in ("list", "tuple", "Sequence"))


def _refuse_norm(attack: Attack, domain: Domain, where: str) -> None:
    """Raise InputError if the attack's norm has no meaning in the domain."""
    try:
        Attack.budget(attack, domain)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check_metric(entry: PluginEntry) -> None:
    """Refuse wrong parameters, and a clip metric that would overwrite a column of the examples table."""
    metric = build(METRICS.get(entry.name), entry.params, f"metric '{entry.title}'")
    taken = {entry.title, metric.column} & {*EXAMPLES_SCHEMA.names} if isinstance(metric, ClipMetric) else ()
    if taken:
        raise InputError(
            f"metric '{entry.title}': got the name or column '{min(taken)}', expected any that is no "
            f"column of the examples table ({', '.join(EXAMPLES_SCHEMA.names)})"
        )


def _check_distinct(rows: Sequence[Configuration]) -> None:
    seen = set()
    for row in rows:
        for delivery in row.deliveries:
            place = (row.entry.title, row.text, row.domain, delivery, row.labels)
            if place in seen:
                raise InputError(f"attacks: got {' '.join(place)} twice, expected once (a label tells two apart)")
            seen.add(place)


@dataclass
class _Planner:
    suite: Suite
    corpus: Corpus
    only: Mapping[str, str]
    book: JobBook

    def plan(self) -> Plan:
        for entry in self.suite.metrics:
            _check_metric(entry)
        rows = [row for entry in self.suite.attacks for row in self._rows(entry)]
        if self.suite.noise:
            rows += [row for entry in missing_noise(rows) for row in self._rows(entry)]
        _check_distinct(rows)
        impossible = self._impossible(rows)
        named = [found for seed in self.suite.seeds for found in self._cells(seed, rows)]
        cells = [cell for _, cell in named]
        # A clean cell is there for the sake of others: alone it must have been asked for.
        if not any(self._selected(cell.columns) for cell in cells):
            asked = " ".join(f"{key}={glob}" for key, glob in self.only.items())
            raise NothingSelectedError(
                f"--only {asked}: no cell of suite '{self.suite.name}' matches (attacks: "
                f"{', '.join(dict.fromkeys(row.entry.title for row in rows))}; models: "
                f"{', '.join(model.title for model in self.suite.models)})"
            )
        self._check_keys(named)
        read = dict.fromkeys(f"{row.entry.title}: {row.reading.note}." for row in rows if row.reading)
        notes = (*(f"Left out: {reason}." for reason in impossible), *read, *self._late_defenses())
        probes = tuple(self._probes(cells)) if self.suite.audit else ()
        attacks = {row.entry.title: type(row.attack) for row in rows}
        return Plan(self.suite, self.book.jobs, tuple(cells), probes, notes, attacks)

    def _late_defenses(self) -> Iterator[str]:
        """Tell of defenses that a training cut short hardly begins, or never does: they are plain training by name."""
        steps = self.suite.training.iterations
        for entry in self.suite.defenses:
            if (warmup := entry.params.get("warmup", 0)) > steps / 2:
                last = f"the last {steps - warmup} of {steps}" if warmup < steps else f"none of {steps}"
                yield f"Defense '{entry.title}' works in {last} training steps (warmup {warmup})."

    def _probes(self, cells: Sequence[Cell]) -> Iterator[Probe]:
        """Yield the probe of each victim that is judged, on the first fold: the folds' models are of one kind."""
        judged = {(cell.columns["seed"], cell.columns["model"], cell.columns["defense"]) for cell in cells}
        for seed, victim in itertools.product(self.suite.seeds, self._victims):
            if (seed, *victim.columns.values()) in judged:
                columns = {"part": self.suite.part, "seed": seed, **victim.columns}
                yield Probe(columns, self.book.probe(seed, self._folds[0], victim))

    def _impossible(self, rows: Sequence[Configuration]) -> list[str]:
        """Return why no model of the suite can be attacked as an entry asks, whatever is selected of it.

        Raises:
            InputError: if it is so for all entries.
        """
        possible = [(row.entry, row.domain) for row in rows if any(True for _ in self._places(row))]
        reasons = [self._needs(row) for row in rows if (row.entry, row.domain) not in possible]
        if rows and not possible:
            raise InputError(reasons[0])
        return list(dict.fromkeys(reasons))

    def _needs(self, row: Configuration) -> str:
        needs = ["a spectrogram"] if row.attack.needs_spectrogram or row.domain == "spectrogram" else []
        needs += ["gradients"] if row.attack.access == "white-box" else []
        return (
            f"attack '{row.entry.title}' in the {row.domain} domain: got no model to craft it on (models: "
            f"{', '.join(model.title for model in self.suite.models)}), expected with {' and '.join(needs)}"
        )

    def _check_keys(self, cells: Sequence[tuple[str, Cell]]) -> None:
        """Refuse two cells, or rows for the worst of several, that the results could not tell apart."""
        named = [(name, cell.columns) for name, cell in cells]
        for declared in self.suite.worst:
            name = f"worst case {declared.name}"
            found = members((cell for _, cell in cells), declared)
            named += [(name, columns_of(together, declared)) for together in found]
        seen: dict[tuple[Any, ...], str] = {}
        for name, columns in named:
            place = tuple(columns[key] for key in KEYS)
            if place in seen:
                raise InputError(
                    f"cells: got '{seen[place]}' and '{name}' on {columns['model']} / {columns['defense']} under the "
                    "same keys, expected keys of their own (a label or a name tells two apart)"
                )
            seen[place] = name

    @cached_property
    def _victims(self) -> list[Victim]:
        return [
            victim
            for victim in itertools.starmap(Victim, itertools.product(self.suite.models, self.suite.defenses))
            if victim.model.defenses is None or victim.defense.title in victim.model.defenses
        ]

    def _selected(self, columns: Mapping[str, Any]) -> bool:
        return all(
            matching(str(columns[key]), glob) or is_newcomer(key, str(columns[key]))
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

    def _rows(self, entry: AttackEntry) -> list[Configuration]:
        plugin = ATTACKS.get(entry.name)
        where = f"attack '{entry.title}'"
        if plugin.access == "decisions" and "soft" in entry.labels:
            raise InputError(f"{where}: labels: got soft, expected for access '{plugin.access}': true, predicted")
        if plugin.places and entry.labels != ["true"]:
            raise InputError(
                f"{where}: labels: got {', '.join(entry.labels)}, expected for what was made elsewhere: true"
            )
        rows = []
        for domain in entry.domain:
            if domain not in plugin.domains:
                raise InputError(f"{where}: domain: got {domain}, expected {', '.join(plugin.domains)}")
            labels: Sequence[Labels] = ["none"] if plugin.access == "blind" else entry.labels
            for params, given in itertools.product(_grid(entry.params, plugin, where), labels):
                complete = validated(plugin, params, where)
                attack = build(plugin, complete, where)
                _refuse_norm(attack, domain, where)
                rows.append(self._configuration(entry, attack, complete, domain, given))
        return rows

    def _configuration(
        self, entry: AttackEntry, attack: Attack, params: dict[str, Any], domain: Domain, given: Labels
    ) -> Configuration:
        try:
            reading = attack.reads(self.corpus.clips)
        except InputError as error:
            raise InputError(f"attack '{entry.title}': {error}") from None
        local = {name: value for name, value in params.items() if name in attack.places}
        shared = {name: value for name, value in params.items() if name not in attack.places}
        return Configuration(entry, attack, shared, domain, given, local, reading)

    def _cells(self, seed: int, rows: list[Configuration]) -> Iterator[tuple[str, Cell]]:
        """Yield the selected cells, each after what it is called in messages."""
        for victim in self._victims:
            clean = self._columns(seed, victim, self._clean, "audio", ())
            if self._selected({key: clean[key] for key in CLEAN_FILTERS if key in clean}):
                yield described(self._clean, ()), self._cell(seed, victim, self._clean, "audio", ())
        for row in rows:
            for victim, delivery, source in self._places(row):
                if self._selected(self._columns(seed, victim, row, delivery, source)):
                    yield described(row, source), self._cell(seed, victim, row, delivery, source)

    def _places(self, row: Configuration) -> Iterator[tuple[Victim, Delivery, Source]]:
        """Yield whom an attack is judged on, how, and what it is crafted on."""
        for victim, delivery in itertools.product(self._victims, row.deliveries):
            for source in self._sources(victim, row, delivery):
                yield victim, delivery, source

    @cached_property
    def _clean(self) -> Configuration:
        return self._rows(AttackEntry(name="none"))[0]

    def _sources(self, victim: Victim, row: Configuration, delivery: Delivery) -> Iterator[Source]:
        """Yield what the examples are crafted on: the victim itself (nothing, for blind sound), then other models."""
        if row.blind and row.domain == "waveform":
            yield ()
            return
        others = [other for other in self._victims if other != victim] if row.entry.transfer and not row.blind else []
        named = [(victim,), *((other,) for other in others), *self._surrogates(row.entry)]
        # A group of one may be the victim itself, or one of the others.
        for source in (source for number, source in enumerate(named) if source not in named[:number]):
            # Features fit another model only if its front end is the same; sound fits any model.
            fits = delivery == "audio" or source[0].model == victim.model
            in_reach = row.attack.access != "white-box" or all(member.differentiable for member in source)
            perturbed = row.domain == "waveform" or all(member.spectrogram for member in source)
            # The features of an ensemble, which are its members', are no spectrogram.
            seen = not row.attack.needs_spectrogram or (len(source) == 1 and source[0].spectrogram)
            if fits and in_reach and perturbed and seen and (victim not in source or source == (victim,)):
                yield source

    def _surrogates(self, entry: AttackEntry) -> list[Source]:
        """Return the groups of models that an entry names; `victim not in source` keeps a group off its members."""
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
        heard = delivery == "audio"
        return FoldKeys(
            fold=fold,
            prepared=self.corpus.prepared[seed],
            crafted=crafted,
            predicted=self.book.predict(seed, fold, crafted, (victim,), delivery),
            clean_predicted=self.book.predict(seed, fold, clean, (victim,), "audio"),
            source_predicted=(
                self.book.predict(seed, fold, crafted, source, delivery) if source not in ((victim,), ()) else None
            ),
            measured=self.book.measure(fold, crafted, victim, columns),
            examined=self.book.examine(fold, crafted, victim, columns),
            transcribed=self.book.transcribe(seed, fold, crafted) if heard else None,
            clean_transcribed=self.book.transcribe(seed, fold, clean) if heard else None,
        )
