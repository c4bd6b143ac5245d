"""``python -m l2q similar``: what is like an item."""

from __future__ import annotations

import argparse

from l2q.cli import names
from l2q.cli.arguments import add_index, add_json, add_length
from l2q.cli.printing import print_ranking

PLACE = 1
HELP = "items like another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add_length(parser)
    add_json(parser)
    parser.add_argument("--item", required=True, metavar="NAME")


def run(index: str, item: str, k: int, as_json: bool) -> None:
    """The k items most like one."""
    from l2q.retrieval.storage import load_index

    opened = load_index(index)
    names.check_item(opened, item)
    print_ranking(opened.similar(item, k), f"like {item}", {"item": item}, as_json)
