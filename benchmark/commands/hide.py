"""`advser hide`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advser.commands.usage import EXIT_FINDINGS, Plugins, console, pairs, parameters

if TYPE_CHECKING:
    from advser.protect.effect import Protected
    from advser.protect.listeners import Party


def hide(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording: WAV, FLAC, OGG or MP3.")],
    into: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write it; the suffix names the format.")],
    run: Annotated[Path, typer.Option(help="Results folder whose models without a defense are to misread it.")],
    where: Annotated[list[str], typer.Option("--where", metavar="KEY=GLOB", help="Models to keep of it.")] = [],
    attack: Annotated[str, typer.Option(help="An attack on waveforms with a budget in L∞.")] = "mi-fgsm",
    strength: Annotated[
        float, typer.Option(max=0, help="Level of the perturbation, dB relative to the sound: −40 faint, −20 loud.")
    ] = -40.0,
    params: Annotated[list[str], typer.Option("--param", metavar="KEY=VALUE", help="A parameter of the attack.")] = [],
    store: Annotated[Path | None, typer.Option(help="Artefact store.  [default: $ADVSER_STORE or a cache]")] = None,
    seed: Annotated[int, typer.Option(help="Of the attack's random numbers.")] = 0,
    plugin: Plugins = [],
) -> None:
    """Protect a recording: models misread its emotion, while people and speech-to-text hear the same.

    Rate, channels and length stay. The file that was written is heard again by every model of the results, and by
    their recogniser; whether other models misread it too is a matter of transfer.

    Exit code: 0 if a model reads a window otherwise than before, 1 if none does, 2 unusable input.
    """
    from rich.progress import Progress, TimeRemainingColumn

    from advser.plugins.registries import load_plugin_files
    from advser.protect.hide import hide as hidden
    from advser.protect.listeners import party
    from advser.results.folder import Results
    from advser.results.selection import select
    from advser.store.artefacts import Store, default_store

    load_plugin_files(plugin)
    given = parameters(params)
    chosen = select(Results.load(run), pairs("--where", where, "KEY=GLOB"))
    listening = party(chosen, Store(store or default_store()))
    bar = Progress(*Progress.get_default_columns()[:2], TimeRemainingColumn(), console=console(errors=True))
    task = bar.add_task(source.name, total=1.0)

    def progress(share: float) -> None:
        # Not before the input has proved usable.
        bar.start()
        bar.update(task, completed=share)

    try:
        done = hidden(source, into, listening, attack, given, strength, seed, progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    console().print(_told(done, listening, into), markup=False, soft_wrap=True)
    if not done.misled:
        raise typer.Exit(EXIT_FINDINGS)


def _told(done: Protected, listening: Party, into: Path) -> str:
    """Return what each model, two measures and the recogniser heard, before and after."""
    from statistics import fmean

    from tabulate import tabulate

    crafted = {one.title for one in listening.listeners if one.surrogate}
    rows = [
        [
            name + ("" if name in crafted else " (not crafted on)"),
            _answers(done.before[name]),
            _answers(done.after[name]),
            f"{done.changed[name]} of {done.before[name].total()}",
        ]
        for name in done.before
    ]
    lines = [tabulate(rows, headers=["model", "before", "after", "changed"])] if rows else []
    lines.append(
        "SNR –: nothing was changed" if math.isnan(done.snr) else f"SNR {done.snr:.1f} dB, of the file as written"
    )
    lines += [f"{name} {fmean(values):.2f}" for name, values in done.measured.items()]
    if listening.speech is None:
        lines.append(f"no transcript: {listening.unheard}")
    else:
        before, after = (" ".join(filter(None, texts)) for texts in done.transcripts)
        lines += [f"before: {before or '(nothing)'}", f"after:  {after or '(nothing)'}"]
        closed = ", and of it the sentences of the corpus alone"
        known = closed if listening.speech.transcriber.closed_text else ""
        lines.append(f"by {listening.speech.name}, which hears the language '{listening.speech.language}'{known}")
    windows = f"{done.windows} window{'s' if done.windows != 1 else ''}"
    return "\n".join([*lines, f"{into}: {done.seconds:.1f} s, perturbed in {windows}", _verdict(done)])


def _verdict(done: Protected) -> str:
    """Return in a line whether anything is hidden."""
    if not done.windows:
        return "NOT hidden: the recording is silent, or shorter than a quarter of a second; nothing was perturbed"
    if not done.misled:
        return "NOT hidden: every model reads it as before; --strength nearer to 0 perturbs more"
    return f"read otherwise by {len(done.misled)} of {len(done.before)} models"


def _answers(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" if counts.total() > 1 else name for name, number in counts.most_common())
