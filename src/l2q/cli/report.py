"""``python -m l2q report``: the tables of results."""

from __future__ import annotations

import argparse

PLACE = 6
HELP = "results tables from stored metrics.json files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--figure", metavar="FILE.png", help="draw quality against bits")


def run(folder: str, figure: str | None) -> None:
    """Markdown tables of all runs whose metrics.json lie below ``folder``; quality against bits as a picture."""
    import l2q.report

    runs = l2q.report.read(folder)
    print("\n\n".join(filter(None, (l2q.report.overview(runs), l2q.report.markdown(runs)))))
    if figure:
        l2q.report.figure(runs, figure)
