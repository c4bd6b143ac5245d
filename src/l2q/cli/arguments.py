"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager

from l2q.errors import L2QError


def add_index(parser: argparse.ArgumentParser) -> None:
    """``index``: the folder of the index that is asked."""
    parser.add_argument("--index", required=True, metavar="DIR", help="folder of the index")


def add_length(parser: argparse.ArgumentParser) -> None:
    """``k``: how many items a ranking has."""
    parser.add_argument("-k", type=int, default=20, help="length of the ranking (20)")


def add_exact(parser: argparse.ArgumentParser) -> None:
    """``exact``: the share of the exact Top-20 that a ranking makes do with."""
    parser.add_argument(
        "--exact",
        type=float,
        default=1.0,
        metavar="X",
        help="below 1: approximate, by lists; such as 0.99 (1)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``as_json``: for programs, one JSON object instead of the table."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="JSON instead of a table")


def add_table(parser: argparse.ArgumentParser) -> None:
    """How a table is read: the options of ``dataset=table``, each None where it is not given."""
    group = parser.add_argument_group(
        "how a table is read", "as dataset=table of train.py; found where not given"
    )
    for role in ("user", "item", "time", "value"):
        none = "; none: not read" if role in ("time", "value") else ""
        group.add_argument(f"--{role}", type=_column, metavar="COLUMN", help=f"name, or number from 1{none}")
    group.add_argument("--where", metavar="SQL", help="which rows to take: \"event = 'buy' and price > 0\"")
    group.add_argument("--min-value", type=float, metavar="X", help="leave out events with less")
    group.add_argument("--header", type=_truth, metavar="true|false", help="the first line names columns")
    group.add_argument("--delimiter", metavar="TEXT", help="what stands between columns")
    group.add_argument("--encoding", metavar="NAME", help="utf-8, latin-1, ...")
    group.add_argument(
        "--missing", choices=("error", "drop", "keep"), help="rows without user or item (error)"
    )
    group.add_argument(
        "--dedupe", choices=("first", "last"), help="which event of a repeated pair counts (first)"
    )
    group.add_argument(
        "--day-first",
        type=_truth,
        metavar="true|false",
        help="in dates such as 01/12/2010 (as the rows tell)",
    )
    group.add_argument("--query", metavar="SQL", help="a SELECT whose result is the table")


def add_splitting(parser: argparse.ArgumentParser, usual: str) -> None:
    """How a table is split, likewise; ``usual`` is the split where none is given."""
    group = parser.add_argument_group("how a table is split")
    group.add_argument("--split", metavar="HOW", help=f"none, auto, time, random, last or users ({usual})")
    add_parts(group)


def add_parts(group: argparse._ActionsContainer) -> None:
    """The size of a test part, and what counts as enough to learn from."""
    group.add_argument(
        "--test-fraction", type=float, metavar="X", help="share of test (as conf/dataset/table.yaml)"
    )
    group.add_argument(
        "--min-events", type=int, metavar="N", help="leave out users and items with fewer in train"
    )
    group.add_argument("--seed", type=int, dest="split_seed", help="of what is drawn")


def _column(text: str) -> str | int:
    return int(text) if text.isascii() and text.isdigit() else text


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


OPTIONS = {
    **{
        name: f"--{name.replace('_', '-')}"
        for name in ("user", "item", "time", "value", "where", "min_value")
    },
    **{
        name: f"--{name}"
        for name in ("header", "delimiter", "encoding", "missing", "dedupe", "query", "split")
    },
    **{
        "day_first": "--day-first",
        "test_fraction": "--test-fraction",
        "min_events": "--min-events",
        "split_seed": "--seed",
    },
}
"""Those of a table as these commands call them."""
_NAMED = re.compile(rf"(?<![\w./=-])(?:dataset\.)?({'|'.join(OPTIONS)})=(?=[\w\s\"'.,;)]|$)")


def spelled(text: str) -> str:
    """A message that names options as ``train.py`` has them, with those of a command.

    >>> spelled("name them with user=COLUMN and item=COLUMN; missing=drop leaves them out")
    'name them with --user=COLUMN and --item=COLUMN; --missing=drop leaves them out'
    """
    return _NAMED.sub(lambda found: f"{OPTIONS[found[1]]}=", text)


@contextmanager
def as_asked() -> Iterator[None]:
    """Within it, what is refused names the options of the command."""
    try:
        yield
    except L2QError as error:
        raise L2QError(spelled(str(error))) from error
