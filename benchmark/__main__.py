"""``python -m advser``: the command line."""

from advser.commands.cli import command

if __name__ == "__main__":
    command()
