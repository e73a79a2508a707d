"""Blocks of code and commands that pages show."""

from __future__ import annotations

import re
import shlex


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of ``language`` in a Markdown page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return the ``advser …`` commands of a page, one a line, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split("#")[0] for line in lines if re.match(r"(\.venv/bin/)?advser \w", line)]


def unknown_options(command: str) -> set[str]:
    """Return the options of ``command`` that do not exist.

    Raises:
        KeyError: if the command itself does not exist.
    """
    from typer.main import get_command

    from advser.commands.cli import app

    words = shlex.split(command)
    parameters = get_command(app).commands[words[1]].params  # type: ignore[attr-defined]
    existing = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    return {word for word in words if word.startswith("--")} - existing
