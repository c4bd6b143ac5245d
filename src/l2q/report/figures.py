"""Pictures: quality against bits as a file, and drawings of the page as SVG that takes its colors."""

from __future__ import annotations

import hashlib
import io
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2q.errors import L2QError
from l2q.files import check_output, replaced_file
from l2q.report.formats import plain
from l2q.report.measures import USUAL, Measure
from l2q.report.rows import FLOAT, Block, Row, Run, blocks, models_of
from l2q.report.runs import HISTORY, folder_of, history
from l2q.report.statistics import Comparison
from l2q.report.sweeps import LINES, Swept

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 300
"""Epochs of a curve at most; the page stays small."""
ROWS = 30
"""Of a drawing of differences at most."""
# colors that no drawing has; in the page they become its own, of light or dark
INK, GRID, GOOD, BAD = "#0a0b0c", "#0d0e0f", "#0a0b0d", "#0a0b0e"
SERIES = [f"#0f0f{number:02x}" for number in range(LINES)]


def bits_figure(runs: Sequence[Run], path: str | Path, measures: Sequence[Measure] = USUAL) -> None:
    """Quality against bits as PNG: a panel per table, a line per model, the float references as levels.

    Raises L2QError where ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = blocks(runs, measures)
    drawing = Figure(figsize=(4.6 * len(found), 3.4), layout="constrained")
    FigureCanvasAgg(drawing)
    for axes, block in zip(drawing.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        for number, (model, level) in enumerate(_levels(block).items()):
            if model == "lightgcn" and level:
                axes.axhline(max(level.values()), color="gray", linestyle="--", label="lightgcn, float32")
            elif model not in ("popularity", "spectral") and level:
                color = f"C{number - len(FLOAT)}"
                axes.plot(level.keys(), level.values(), marker="o", color=color, label=model)
        teachers = _teacher_values(block)
        if teachers:
            axes.axhline(statistics.mean(teachers), color="gray", linestyle=":", label="teacher, float32")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        title = block.title.translate({ord("*"): None, ord("`"): None})
        axes.set(xlabel="bits per item, scale included", ylabel=measures[0].label, title=title)
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    ending = Path(path).suffix
    if not ending:
        raise L2QError(f"--figure {path}: give a name with an ending, such as {path}.png")
    check_output(path, ".png", ".pdf", ".svg", option="--figure")
    try:
        with replaced_file(path) as fresh:
            drawing.savefig(fresh, dpi=120, format=ending[1:].lower())
    except (OSError, ValueError) as error:  # a ValueError names the formats that there are
        raise L2QError(f"--figure {path} cannot be written: {getattr(error, 'strerror', error)}") from error


def _levels(block: Block) -> dict[str, dict[float, float]]:
    """Of every model the first measure's mean by bits; empty of one that has no run."""
    found: dict[str, dict[float, float]] = {}
    for model in models_of(block.runs):
        points: dict[float, list[float]] = {}
        for run in block.runs:
            value = block.measures[0].of_run(run, block.part)
            if run["model"] == model and value is not None:
                points.setdefault(8 * run["item_bytes"], []).append(value)
        found[model] = {bits: statistics.mean(values) for bits, values in sorted(points.items())}
    return found


def _teacher_values(block: Block) -> list[float]:
    return [run[key] for run in block.runs if (key := f"{block.part}/teacher/{block.measures[0].key}") in run]


@dataclass(frozen=True)
class Drawing:
    """An SVG with what it shows, and (name, CSS color, style) of its lines; the style is solid, dashed or dotted."""

    title: str
    svg: str
    legend: list[tuple[str, str, str]]


def bits_drawing(block: Block) -> Drawing | None:
    """Quality against bits, a line per 1-bit model; None where there is nothing to compare."""
    levels = _levels(block)
    codes = {model: level for model, level in levels.items() if level and model not in FLOAT}
    sizes = [bits for level in codes.values() for bits in level]
    if not sizes or max(sizes) < 1.5 * min(sizes):
        return None
    drawing, axes = new_axes()
    legend, colors = [], _colors(block)
    for model, level in codes.items():
        axes.plot(list(level), list(level.values()), marker="o", markersize=4, color=colors[model])
        legend.append((f"`{model}`", css(colors[model]), "solid"))
    lightgcn = list(levels["lightgcn"].values())
    if lightgcn:
        axes.axhline(max(lightgcn), color=colors["lightgcn"], linestyle="--", linewidth=1.2)
        legend.append(("`lightgcn`, float32", css(colors["lightgcn"]), "dashed"))
    if teachers := _teacher_values(block):
        axes.axhline(statistics.mean(teachers), color=INK, linestyle=":", linewidth=1.2)
        legend.append(("teacher, float32", css(INK), "dotted"))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("bits per item, scale included")
    return Drawing(f"{block.measures[0].label} against bits", to_svg(drawing, axes), legend)


def _colors(block: Block) -> dict[str, str]:
    """A color for each model, the same in all drawings of a block."""
    shown = [model for model in models_of(block.runs) if any(run["model"] == model for run in block.runs)]
    lines = [model for model in shown if model not in ("popularity", "spectral", "teacher")]
    return {model: SERIES[number % LINES] for number, model in enumerate(lines)}


def curves(block: Block) -> list[Drawing]:
    """Over the epochs: the first measure on validation, training loss, annealing strength. A thin line for each run, a
    strong one for its row's mean; the rows that are best by the first measure, as far as colors go."""
    from matplotlib.ticker import MaxNLocator

    chosen = sorted(block.rows, key=lambda row: row.means, reverse=not block.measures[0].less_is_better)
    histories: dict[str, list[list[dict[str, float]]]] = {}
    models: list[str] = []
    for row in chosen:
        folders = [] if row.model == "teacher" else [folder_of(run) for run in row.runs]
        found = [rows for folder in folders if folder is not None and (rows := history(folder / HISTORY))]
        if any(len(rows) > 1 for rows in found) and len(histories) < LINES:
            histories[label(row, block)] = found
            models.append(row.model)
    colors = dict(zip(histories, SERIES, strict=False))
    if len(set(models)) == len(models):
        colors = {name: _colors(block).get(model, INK) for name, model in zip(histories, models, strict=True)}
    key = f"val/{block.measures[0].key}"
    panels = [(key, f"{block.measures[0].label} on validation"), ("train/loss", "training loss")]
    panels.append(("anneal/strength", "annealing strength"))
    drawings = []
    for key, title in panels:
        shown = {
            name: [
                points for rows in runs if (points := {row["epoch"]: row[key] for row in rows if key in row})
            ]
            for name, runs in histories.items()
        }
        shown = {name: lines for name, lines in shown.items() if lines}
        if not shown:
            continue
        drawing, axes = new_axes()
        for name, lines in shown.items():
            for line in lines if len(lines) > 1 else ():
                axes.plot(*_thinned(line), color=colors[name], linewidth=0.7, alpha=0.35)
            epochs = sorted(set().union(*lines))
            means = {
                epoch: statistics.mean(line[epoch] for line in lines if epoch in line) for epoch in epochs
            }
            axes.plot(
                *_thinned(means), color=colors[name], marker="o" if len(means) < 3 else None, markersize=4
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        legend = [(name, css(colors[name]), "solid") for name in shown]
        drawings.append(Drawing(title, to_svg(drawing, axes), legend))
    return drawings


def option_drawing(block: Block, each: Swept) -> Drawing:
    """A measure against a swept option: means over seeds, with their standard deviations as bars. Numbers are joined
    by a line, words stand below each other."""
    from matplotlib.ticker import MaxNLocator

    measure, values, legend = block.measures[0], each.values, []
    shown = list(each.lines)[:LINES]
    drawing, axes = new_axes(height=2.5 if each.numeric else 0.55 + 0.26 * len(values))
    for number, name in enumerate(shown):
        found = [
            (place, seeds)
            for place, value in enumerate(values)
            if (seeds := each.found(name, value, measure))
        ]
        means = [statistics.mean(seeds) for _, seeds in found]
        errors = [statistics.stdev(seeds) if len(seeds) > 1 else 0.0 for _, seeds in found]
        style: dict[str, Any] = {"color": SERIES[number], "marker": "o", "markersize": 4, "elinewidth": 1}
        if each.numeric:
            axes.errorbar([float(values[place]) for place, _ in found], means, errors, capsize=3, **style)
        else:
            aside = 0.5 * (number + 0.5) / len(shown) - 0.25
            axes.errorbar(means, [place + aside for place, _ in found], xerr=errors, linestyle="", **style)
        legend.append((name, css(SERIES[number]), "solid"))
    if each.numeric:
        places = [float(value) for value in values]
        if min(places) > 0 and max(places) / min(places) >= 8:
            axes.set_xscale("log")
            axes.set_xticks(places, values, minor=False)
            axes.set_xticks([], minor=True)
        axes.set_xlabel(each.option)
    else:
        axes.set_yticks(range(len(values)), [value[:34] for value in values])
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(measure.label)
    return Drawing(f"{measure.label} against `{each.option}`", to_svg(drawing, axes), legend)


def forests(block: Block, comparisons: Sequence[Comparison]) -> list[Drawing]:
    """For each measure the differences to the baseline with their 95 % intervals, of the first rows."""
    from matplotlib.ticker import MaxNLocator

    names = {"better": GOOD, "worse": BAD, "no clear difference": INK}
    drawings = []
    for measure in block.measures:
        here = [each for each in comparisons if each.measure == measure][:ROWS]
        if not here:
            continue
        drawing, axes = new_axes(height=0.55 + 0.24 * len(here))
        verdicts = [each.verdict if each.verdict in names else "no clear difference" for each in here]
        for place, (each, verdict) in enumerate(zip(here, verdicts, strict=True)):
            found, color = each.paired, names[verdict]
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=1.6)
            axes.plot([found.difference], [place], color=color, marker="o", markersize=4)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(here)), [plain(label(each.row, block))[:34] for each in here])
        axes.set_ylim(len(here) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("difference, 95 % interval")
        legend = [(name, css(color), "solid") for name, color in names.items() if name in verdicts]
        drawings.append(Drawing(measure.label, to_svg(drawing, axes), legend))
    return drawings


def label(row: Row, block: Block) -> str:
    """A row's name, with its bits where another row has the same."""
    alike = sum(other.name == row.name for other in block.rows)
    return f"{row.name} {row.bits:,} bits" if alike > 1 else row.name


def _thinned(points: dict[float, float]) -> tuple[list[float], list[float]]:
    """Epochs and values; of very many every so many, the last among them."""
    epochs = sorted(points)
    step = -(-len(epochs) // POINTS)
    kept = epochs[::-1][::step][::-1]
    return kept, [points[epoch] for epoch in kept]


def new_axes(height: float = 2.5) -> tuple[Figure, Axes]:
    """A drawing of the page's width, empty."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.2, height), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.subplots()
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=INK, linewidth=0.6)
    axes.tick_params(colors=INK, labelsize=8, width=0.6, length=3)
    axes.xaxis.label.set(color=INK, fontsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return drawing, axes


def css(color: str) -> str:
    """A color of a drawing as the page's."""
    if color in SERIES:
        return f"var(--s{SERIES.index(color)})"
    return {INK: "var(--ink)", GRID: "var(--line)", GOOD: "var(--good)", BAD: "var(--bad)"}[color]


def to_svg(drawing: Figure, axes: Any) -> str:
    """A figure to stand in a page: without what belongs to a file, with text as text, and no name that another
    drawing has too."""
    from matplotlib import rc_context

    axes.xaxis.get_offset_text().set(color=INK, fontsize=8)
    axes.yaxis.get_offset_text().set(color=INK, fontsize=8)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "l2q"}):
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text))
    own = f"d{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{own}{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}", text)
    for color in (INK, GRID, GOOD, BAD, *SERIES):
        text = text.replace(color, css(color))
    return re.sub(r"\s*\n\s*", "\n", text).strip()
