"""``python -m l2q inspect``: what a table is like, before anything is trained on it."""

from __future__ import annotations

import argparse
from typing import Any

from l2q.cli.arguments import add_json, add_parts, add_table, as_asked, spelled

PLACE = 9
HELP = "what a table of events is like, without training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="PATH", help="a table, a split folder, a set, a run's folder")
    parser.add_argument("--html", metavar="FILE", help="as one page with pictures")
    add_json(parser)
    add_table(parser)
    add_parts(parser.add_argument_group("the splits that are tried"))


def run(source: str, html: str | None, as_json: bool, **options: Any) -> None:
    """Columns, sizes, degrees, times, splits, values, what looks odd, and which options may help."""
    import sys
    from dataclasses import replace
    from pathlib import Path

    from rich.console import Console

    from l2q.cli.printing import print_json
    from l2q.data.inspection import inspect
    from l2q.files import check_output, replaced_file, writing
    from l2q.report.inspection import page, show

    if html is not None:
        check_output(html, ".html", ".htm", option="--html")
    with as_asked():
        found = inspect(source, options)
        notes = tuple(map(spelled, found.notes))
        found = replace(found, refusal=spelled(found.refusal), notes=notes)
        if html is not None:
            with writing(html), replaced_file(html) as fresh:
                fresh.write_text(page(found), "utf-8")
    if as_json:
        print_json(found.to_json(), 2)
    else:
        show(found, Console(markup=False, emoji=False, highlight=False))
    if html is not None:
        print(f"{Path(html).absolute()}: the inspection as a page", file=sys.stderr)
