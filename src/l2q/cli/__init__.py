"""``python -m l2q COMMAND``: an index asked by name, and what is made of one, from the command line.

A module of this package that has ``run`` is a command, and its name is the module's; a new command is a new file.
What several of them share stands in ``arguments``, ``names`` and ``printing``. Heavy imports stand inside ``run``, so
that ``python -m l2q --help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from l2q.errors import L2QError, lacking, print_anything, printable
from l2q.learning.signals import Interrupted, interruptible, piped, unhidden


class Command(Protocol):
    """What the module of a command has. ``PLACE``, where it has one, is its line in the list of commands; those
    without come last, by name.

    HELP = "what it does, in a line"

    def add_arguments(parser: argparse.ArgumentParser) -> None: ...  # each one's ``dest`` is a parameter of run

    def run(index: str, ...) -> None: ...  # prints; raises L2QError for what cannot be used
    """

    HELP: str
    run: Callable[..., None]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 2 after one line on stderr about input that cannot be used, or, as a shell says it,
    128 and the number of the signal that ended it: 130 by Ctrl-C, 141 where nobody reads on, as behind ``| head``."""
    print_anything()
    known, unknown = _parser().parse_known_args(argv)
    arguments = vars(known)
    run, refuse = arguments.pop("run"), arguments.pop("refuse")
    if unknown:  # the parser of all commands would show how these are called, and not the options of this one
        refuse(f"unrecognized arguments: {' '.join(map(printable, unknown))}")
    try:
        with interruptible(), unhidden(), piped():
            run(**arguments)
    except Exception as error:
        said = str(error) if isinstance(error, L2QError) else lacking(error)
        if said is None:
            raise
        print(f"error: {printable(said)}", file=sys.stderr)
        return 2
    except Interrupted as signal:
        return signal.code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m l2q", description="Ask a 1-bit index by name.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in _commands():
        added = commands.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(added)
        added.set_defaults(run=command.run, refuse=added.error)
    return parser


def _commands() -> list[tuple[str, Command]]:
    """By name, in the order of the help."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    found = [(name, cast(Command, module)) for name, module in modules.items() if hasattr(module, "run")]
    return sorted(found, key=lambda command: (getattr(command[1], "PLACE", len(found)), command[0]))
