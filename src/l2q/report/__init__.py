"""Reports of runs: ``python -m l2q report DIR...``, or from Python:

    import l2q.report

    report = l2q.report.gather(["outputs/sweeps/NAME"], baseline="lightgcn")
    report.write(html="report.html", csv="jobs.csv")
    jobs = l2q.report.frame(report.runs)                # a pandas.DataFrame

``runs`` reads what is below folders, ``rows`` says what stands beside each other, ``measures`` what is shown of it.
``statistics`` compares, ``sweeps`` finds what was varied, ``tables`` puts it into words; ``contents`` puts all
together, ``formats``, ``figures`` and ``page`` show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from l2q.report import formats, tables
from l2q.report.contents import Report, gather
from l2q.report.figures import bits_figure as figure
from l2q.report.frame import frame
from l2q.report.measures import USUAL, Measure
from l2q.report.rows import blocks
from l2q.report.runs import read, unfinished
from l2q.report.statistics import holm, paired, spread

__all__ = [
    "Measure",
    "Report",
    "figure",
    "frame",
    "gather",
    "holm",
    "markdown",
    "overview",
    "paired",
    "read",
    "spread",
    "unfinished",
]


def overview(runs: Sequence[dict[str, Any]], measures: Sequence[Measure] = USUAL) -> str:
    """``tables.overview`` as Markdown; empty where fewer than two datasets have a LightGCN to be compared with."""
    found = tables.overview(runs, measures)
    return "" if found is None else formats.markdown(found)


def markdown(runs: Sequence[dict[str, Any]], measures: Sequence[Measure] = USUAL) -> str:
    """``tables.results`` of every block as Markdown."""
    return "\n\n".join(formats.markdown(tables.results(block)) for block in blocks(runs, measures))
