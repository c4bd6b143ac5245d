"""The report as one page of HTML that needs no other file and no network."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import l2q
from l2q.report.figures import Drawing, bits_drawing, curves, forests, option_drawing
from l2q.report.formats import MARKS, plain
from l2q.report.rows import Run, bits_of
from l2q.report.runs import PATH, folder_of
from l2q.report.tables import Column, Table

if TYPE_CHECKING:
    from l2q.report.contents import Finding, Report

JOBS = 500
"""Rows of the list of all jobs at most, so that a page of a large sweep stays small; ``--csv`` has every one."""
WORDS = ("reason", "command", "folder")


def page(report: Report) -> str:
    """The whole page: what is best, the results, curves, comparisons, swept options, what is not done, every job."""
    name = ", ".join(str(folder) for folder in report.folders) or "two runs"
    parts = [f"<h1>{html.escape(name)}</h1>", _states(report)]
    if len(report.findings) > 1:
        links = (
            f'<a href="#b{n}">{text_html(plain(each.block.title))}</a>'
            for n, each in enumerate(report.findings)
        )
        parts.append(f"<nav>{' '.join(links)}</nav>")
    parts += (table_html(table) for table in report.overview)
    for number, each in enumerate(report.findings):
        parts += _finding(each, number)
    if report.pruned:
        parts += ["<h2>Pruned by the search</h2>", *(table_html(table) for table in report.pruned)]
    if report.waiting:
        parts += ["<h2>Not done</h2>", *(table_html(table) for table in report.waiting)]
    if report.differences:
        parts += [
            f"<h2>{text_html(report.differences.title)}</h2>",
            table_html(report.differences, titled=False),
        ]
    if report.runs:
        parts.append(_jobs(report.runs))
    parts.append(_sources(report.runs))
    body = "\n".join(filter(None, parts))
    return whole(f"{name} · l2q report", body)


def whole(title: str, body: str) -> str:
    """A page around its ``body``, with the style sheet and the script of all pages within."""
    here = Path(__file__)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f"<style>\n{here.with_suffix('.css').read_text('utf-8')}</style>\n</head>\n<body>\n{body}\n"
        f"<script>\n{here.with_suffix('.js').read_text('utf-8')}</script>\n</body>\n</html>\n"
    )


def _states(report: Report) -> str:
    counts = Counter(done=len(report.runs)) + Counter(job.state for job in report.unfinished)
    shown = (
        f'<li class="{_class(state)}"><b>{number:,}</b> {text_html(state)}</li>'
        for state, number in counts.items()
    )
    return f'<ul class="states">{"".join(shown)}</ul>'


def _finding(found: Finding, number: int) -> Iterable[str]:
    block = found.block
    yield f'<h2 id="b{number}">{text_html(found.results.title)}</h2>'
    yield from (_best(table) for table in found.best)
    yield table_html(found.results, titled=False)
    bits = bits_drawing(block)
    yield drawings_html([*([bits] if bits else []), *curves(block)])
    significance = found.significance
    if significance and found.base is not None:
        yield f"<h3>Against {text_html(found.base.name)}, user by user</h3>"
        yield drawings_html(forests(block, found.comparisons))
        for table in significance:
            label = plain(table.title).removeprefix(plain(block.title) + ": ")
            yield f"<h3>{text_html(label)}</h3>"
            yield table_html(table, titled=False)
    if found.swept:
        yield "<h3>Swept options</h3>"
        yield drawings_html([option_drawing(block, each) for each in found.swept])
        inner = "".join(table_html(table) for table in found.sweeps)
        yield f"<details><summary>The same as tables</summary>{inner}</details>"


def _best(table: Table) -> str:
    rows = "".join(f"<dt>{text_html(name)}</dt><dd>{text_html(value)}</dd>" for name, value in table.rows)
    return (
        f'<div class="best"><h3>Best run</h3><dl>{rows}</dl><p class="note">{text_html(table.note)}</p></div>'
    )


def table_html(table: Table, titled: bool = True) -> str:
    """A table whose heads sort it."""
    stacked = any(column.label in WORDS for column in table.columns)
    most = {
        number: max(map(_number, (row[number] for row in table.rows)), default=0.0) for number in table.bars
    }
    filled = [(number, table.columns[number]) for number in table.filled]
    heads = "".join(f"<th{_kind(column)}>{text_html(column.label)}</th>" for _, column in filled)
    lines = []
    for line, row in enumerate(table.rows):
        cells = []
        for number, column in filled:
            cell = row[number]
            share = f"{_number(cell) / most[number]:.1%}" if most.get(number, 0) > 0 and cell else ""
            kinds = ["top" * ((line, number) in table.best), "bar" * bool(share)]
            kinds += [_class(cell)] if column.label in ("verdict", "state") else []
            style = f' style="--share:{share}"' if share else ""
            named = f' data-label="{html.escape(plain(column.label))}"' if stacked else ""
            shown = re.sub(r"( ± [\d.,]+)$", r"<small>\1</small>", text_html(cell))
            cells.append(f"<td{_kind(column, *kinds)}{style}{named}>{shown}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    title = f"<h3>{text_html(table.title)}</h3>" if titled and table.title else ""
    note = f'<p class="note">{text_html(table.note)}</p>' if table.note else ""
    body = "\n".join(lines)
    return (
        f'{title}<div class="table"><table class="sortable{" stack" * stacked}"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>{note}"
    )


def _kind(column: Column, *more: str) -> str:
    words = " ".join(filter(None, ("right" * column.right, "words" * (column.label in WORDS), *more)))
    return f' class="{words}"' if words else ""


def _number(cell: str) -> float:
    """The first number of a cell, or 0."""
    found = re.match(r"-?[\d,]*\.?\d+", cell)
    return float(found[0].replace(",", "")) if found else 0.0


def _class(text: str) -> str:
    """A word as a class of the style sheet; nothing where it is none."""
    return text if text.isalpha() and text.isascii() else ""


def drawings_html(drawings: list[Drawing]) -> str:
    """Beside each other, as far as there is room."""
    shown = []
    for drawing in drawings:
        svg = drawing.svg.replace(
            "<svg", f'<svg role="img" aria-label="{html.escape(plain(drawing.title))}"', 1
        )
        keys = "".join(
            f'<li><i class="{style}" style="--color:{color}"></i>{text_html(name)}</li>'
            for name, color, style in drawing.legend
        )
        legend = f'<ul class="legend">{keys}</ul>' if len(drawing.legend) > 1 else ""
        shown.append(f"<figure><figcaption>{text_html(drawing.title)}</figcaption>{svg}{legend}</figure>")
    pairs = " pairs" if len(shown) % 3 else ""  # rows of two or three, as leaves fewer alone
    return f'<div class="drawings{pairs}">{"".join(shown)}</div>' if shown else ""


def _jobs(runs: list[Run]) -> str:
    columns = [
        Column("run", right=False),
        Column("seed"),
        Column("bits per item"),
        Column("epochs"),
        Column("seconds"),
    ]
    columns += [Column("command", right=False), Column("folder", right=False)]
    lines = [
        [
            f"`{run['model']}` {run['dataset']}",
            str(run["seed"]),
            f"{bits_of(run):,}",
            str(run["epochs"]),
            f"{run['fit_seconds'] + run.get('start_seconds', 0):,.0f}",
            f"`{run.get('command', '')}`",
            f"`{folder_of(run) or run.get(PATH, '')}`",
        ]
        for run in runs[:JOBS]
    ]
    note = f"{len(runs) - JOBS:,} more: --csv has every one." if len(runs) > JOBS else ""
    inner = table_html(Table("", columns, lines, note))
    return f"<h2>Every run</h2><details><summary>{len(runs):,} runs and their commands</summary>{inner}</details>"


def _sources(runs: list[Run]) -> str:
    """Where the figures come from."""
    said = []
    for key, word in (("git_commit", "commit"), ("versions", "versions"), ("hardware", "hardware")):
        values = list(dict.fromkeys(str(run[key]) for run in runs if run.get(key)))
        if values:
            more = f" and {len(values) - 3} more" if len(values) > 3 else ""
            said.append(f"<p>{word}: {html.escape('; '.join(values[:3]))}{more}</p>")
    return (
        "<footer><p>Figures are those of the exported files on test, by full ranking; of runs that left test unread, "
        "those on their validation part. Means and standard deviations are over seeds. A click on a column's head "
        f"sorts by it.</p>{''.join(said)}<p>Made by l2q {html.escape(l2q.__version__)}.</p></footer>"
    )


def text_html(text: str) -> str:
    """Escaped; names in backticks as code."""
    parts, end = [], 0
    for found in MARKS.finditer(text):
        parts.append(html.escape(text[end : found.start()]))
        tag, inner = ("code", found[1]) if found[1] is not None else ("strong", found[2])
        shown = html.escape(inner)
        if tag == "code":  # a line may end behind a sign of a long name
            shown = re.sub(r"(=|,|_|/|\.)(?=\w)", r"\1<wbr>", shown)
        parts.append(f"<{tag}>{shown}</{tag}>")
        end = found.end()
    return "".join([*parts, html.escape(text[end:])])
