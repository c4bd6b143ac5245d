"""``python -m l2q report``: what runs reached, and which of them is better."""

from __future__ import annotations

import argparse
from pathlib import Path

PLACE = 6
CONTENT = {
    "html": "the report as a page",
    "markdown": "all tables as Markdown",
    "latex": "all tables for LaTeX",
    "csv": "a line for each job",
    "figure": "quality against bits",
}
HELP = "tables and a page of what runs reached, with what decides between them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", metavar="DIR", help="folders of runs: all below them")
    parser.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        metavar="METRIC",
        help="recall@20, ndcg@10, or a key of metrics.json; the first one decides (default: recall@20 ndcg@20)",
    )
    parser.add_argument(
        "--baseline",
        metavar="ROW",
        help="model, with options or bits where it has several rows, that others are compared with (default: lightgcn)",
    )
    parser.add_argument(
        "--diff", nargs=2, metavar="RUN", help="two runs' folders: where their options differ"
    )
    parser.add_argument("--html", metavar="FILE", help="all of it as one page")
    parser.add_argument("--markdown", metavar="FILE", help="all tables as Markdown")
    parser.add_argument("--latex", metavar="FILE", help="all tables for LaTeX, with booktabs")
    parser.add_argument("--csv", metavar="FILE", help="a line for each job, every figure in full precision")
    parser.add_argument("--figure", metavar="FILE.png", help="draw quality against bits")


def run(
    folders: list[str],
    metric: list[str] | None,
    baseline: str | None,
    diff: list[str] | None,
    html: str | None,
    markdown: str | None,
    latex: str | None,
    csv: str | None,
    figure: str | None,
) -> None:
    """All tables on a terminal; elsewhere those of results alone, as Markdown. Files have everything."""
    import sys

    import l2q.report
    from l2q.report import formats

    measures = [l2q.report.Measure.of(name) for name in metric] if metric else l2q.report.USUAL
    report = l2q.report.gather(folders, measures, baseline, (diff[0], diff[1]) if diff else None)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(markup=False, emoji=False, highlight=False)
        for table in report.all:
            formats.show(table, console)
    else:
        print("\n\n".join(map(formats.markdown, report.short)))
    files = {"html": html, "markdown": markdown, "latex": latex, "csv": csv}
    report.write(**files)
    if figure:
        l2q.report.figure(report.runs, figure, measures)
    for kind, file in (files | {"figure": figure}).items():
        if file:  # said beside the tables, which may go into a file themselves
            print(f"{Path(file).absolute()}: {CONTENT[kind]}, {_size(Path(file))}", file=sys.stderr)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{max(1, round(size / 2**10))} kB"
