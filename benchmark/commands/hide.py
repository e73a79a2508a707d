"""`advser hide`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advser.commands.usage import EXIT_FINDINGS, Plugins, console, pairs, parameters

if TYPE_CHECKING:
    from advser.protect.effect import Effect
    from advser.protect.listeners import Listeners


def hide(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording: WAV, FLAC, OGG or MP3.")],
    into: Annotated[Path, typer.Argument(metavar="OUT", help="File to write; the suffix names the format.")],
    run: Annotated[Path, typer.Option(help="Results folder. Its undefended models are the ones to mislead.")],
    where: Annotated[list[str], typer.Option("--where", metavar="KEY=GLOB", help="Models of it to use.")] = [],
    attack: Annotated[str, typer.Option(help="An attack on waveforms with a budget in L∞.")] = "mi-fgsm",
    strength: Annotated[
        float, typer.Option(max=0, help="Level of the perturbation, dB relative to the sound: −40 faint, −20 loud.")
    ] = -40.0,
    params: Annotated[list[str], typer.Option("--param", metavar="KEY=VALUE", help="A parameter of the attack.")] = [],
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: $ADVSER_STORE or a cache]")] = None,
    seed: Annotated[int, typer.Option(help="Of the attack's random numbers.")] = 0,
    plugin: Plugins = [],
) -> None:
    """Protect a recording: models misclassify its emotion, while people and speech-to-text understand the same.

    Rate, channels and length stay. Every model of the results classifies the written file, and their recogniser
    transcribes it. Whether other models misclassify it too is a matter of transfer.

    Exit code: 0 if a model classifies a window differently than before, 1 if none does, 2 unusable input.
    """
    from rich.progress import Progress, TimeRemainingColumn

    from advser.plugins.registries import load_plugin_files
    from advser.protect.hide import Perturbation
    from advser.protect.hide import hide as protect
    from advser.protect.listeners import load_listeners
    from advser.results.folder import Results
    from advser.results.selection import select
    from advser.store.artefacts import Store, default_store

    load_plugin_files(plugin)
    perturbation = Perturbation(attack, parameters(params), strength, seed)
    results = select(Results.load(run), pairs("--where", where, "KEY=GLOB"))
    listeners = load_listeners(results, Store(store or default_store()))
    bar = Progress(*Progress.get_default_columns()[:2], TimeRemainingColumn(), console=console(errors=True))
    task = bar.add_task(source.name, total=1.0)

    def progress(share: float) -> None:
        # The bar starts only once the input has proved usable.
        bar.start()
        bar.update(task, completed=share)

    try:
        effect = protect(source, into, listeners, perturbation, progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    console().print(_report(effect, listeners, into), markup=False, soft_wrap=True)
    if not effect.misled:
        raise typer.Exit(EXIT_FINDINGS)


def _report(effect: Effect, listeners: Listeners, into: Path) -> str:
    """Return the answers of each model, the measures and the transcripts, before and after."""
    from statistics import fmean

    from tabulate import tabulate

    surrogates = {listener.title for listener in listeners.models if listener.surrogate}
    rows = [
        [
            name + ("" if name in surrogates else " (not crafted on)"),
            _answers(effect.before[name]),
            _answers(effect.after[name]),
            f"{effect.changed[name]} of {effect.before[name].total()}",
        ]
        for name in effect.before
    ]
    lines = [tabulate(rows, headers=["model", "before", "after", "changed"])] if rows else []
    lines.append(
        "SNR –: nothing changed" if math.isnan(effect.snr) else f"SNR {effect.snr:.1f} dB, of the written file"
    )
    lines += [f"{name} {fmean(values):.2f}" for name, values in effect.measured.items()]
    if listeners.speech is None:
        lines.append(f"no transcript: {listeners.no_speech}")
    else:
        before, after = (" ".join(filter(None, texts)) for texts in effect.transcripts)
        lines += [f"before: {before or '(nothing)'}", f"after:  {after or '(nothing)'}"]
        closed = ", limited to the sentences of the corpus" if listeners.speech.transcriber.closed_text else ""
        lines.append(f"transcribed by {listeners.speech.name} (language '{listeners.speech.language}'{closed})")
    windows = f"{effect.windows} window{'s' if effect.windows != 1 else ''}"
    return "\n".join([*lines, f"{into}: {effect.seconds:.1f} s, perturbed in {windows}", _verdict(effect)])


def _verdict(effect: Effect) -> str:
    """Return a line on whether the emotion is hidden."""
    if not effect.windows:
        return "NOT hidden: the recording is silent, or shorter than a quarter of a second; nothing was perturbed"
    if not effect.misled:
        return "NOT hidden: every model classifies it as before; --strength nearer to 0 perturbs more"
    return f"classified differently by {len(effect.misled)} of {len(effect.before)} models"


def _answers(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" if counts.total() > 1 else name for name, number in counts.most_common())
