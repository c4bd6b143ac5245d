"""``python -m l2q export``: an index for an engine that people serve from."""

from __future__ import annotations

import argparse

from l2q.cli.arguments import add_index
from l2q.exports import ENGINES

PLACE = 4
HELP = "an index for another engine: FAISS, usearch, DuckDB, PostgreSQL, ..."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--to", required=True, choices=ENGINES, help="the engine, or files for any")
    parser.add_argument("--out", metavar="DIR", help="folder of the export (export/ENGINE)")
    parser.add_argument(
        "--without-history",
        action="store_false",
        dest="history",
        help="leave out what users have: no ranking excludes it then",
    )


def run(index: str, to: str, out: str | None, history: bool) -> None:
    """Writes the export and says what it has."""
    from l2q.exports import export
    from l2q.files import amount
    from l2q.retrieval.storage import load_index

    opened = load_index(index)
    folder = export(opened, to, out, history=history)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{opened.num_users:,} users and {opened.num_items:,} items for {to} in {folder}: {amount(size)}")
    if not history:
        print("note: what users have is not in it, and is not excluded from rankings")
    print(f"how it ranks: {folder / 'README.md'}")
