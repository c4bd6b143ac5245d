"""``python -m l2q convert``: events and their split in the files of other libraries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from l2q.cli.arguments import add_splitting, add_table, as_asked, spelled

PLACE = 10
HELP = "a table, or the split of a run, for other libraries"
FORMATS = ("lightgcn", "recbole", "parquet", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a table, a split folder, a set, a run's folder")
    parser.add_argument("out", metavar="OUT", help="folder; of csv and parquet a file too")
    parser.add_argument("--to", choices=FORMATS, help="format (default: by the ending of OUT)")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    add_table(parser)
    add_splitting(parser, "none")


def run(source: str, out: str, to: str | None, force: bool, **options: Any) -> None:
    """Says what was read, how it was split and what was written where."""
    from l2q.data.export import export
    from l2q.data.parts import open_parts
    from l2q.errors import L2QError

    ending = Path(out).suffix[1:]
    to = to or (ending if ending in FORMATS else None)
    if to is None:
        raise L2QError(f"--to: in which format is {out}? give one of {', '.join(FORMATS)}")
    if Path(out).exists() and Path(source).exists() and Path(out).samefile(source):
        raise L2QError(f"{out} is what is read; give another name")
    with as_asked():
        parts = open_parts(source, options)
        reading = parts.reading.lines()
        notes = export(parts, to, out, force=force)
    for line in [*reading, *(f"note: {note}" for note in notes)]:
        print(spelled(line))
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in parts.of.items())
    users, items = parts.first.num_users, parts.first.num_items
    print(f"{users:,} users, {items:,} items, pairs: {sizes}; written as {to} to {out}")
