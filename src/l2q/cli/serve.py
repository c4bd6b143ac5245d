"""``python -m l2q serve``: an index as a service, with a page to look at."""

from __future__ import annotations

import argparse

from l2q.cli.arguments import add_exact
from l2q.errors import L2QError

PLACE = 7
HELP = "a service over HTTP, and a page to look at"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index",
        required=True,
        action="append",
        metavar="DIR",
        help="folder of the index; given twice, the page shows the two side by side",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="another address than this machine's own (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    add_exact(parser)


def run(index: list[str], host: str, port: int, exact: float) -> None:
    """Serves one index or two until it is told to end."""
    if len(index) > 2:
        raise L2QError(
            f"--index is given {len(index)} times; give one or two, and start a service for others"
        )
    try:
        from l2q.serving.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("l2q"):
            raise
        raise L2QError(f"a service needs {error.name}: pip install -e '.[serve]'") from error
    serve(index, host, port, exact)
