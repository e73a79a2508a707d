"""What pages show: their blocks of code, and the commands among them."""

from __future__ import annotations

import re
import shlex


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code of a language that a page in Markdown shows."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return the commands ``advser …`` of a page, each in a line, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split("#")[0] for line in lines if re.match(r"(\.venv/bin/)?advser \w", line)]


def unknown_options(command: str) -> set[str]:
    """Return the options of a command that there are not.

    Raises:
        KeyError: if there is no such command.
    """
    from typer.main import get_command

    from advser.commands.cli import app

    words = shlex.split(command)
    parameters = get_command(app).commands[words[1]].params  # type: ignore[attr-defined]
    known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
    return {word for word in words if word.startswith("--")} - known
